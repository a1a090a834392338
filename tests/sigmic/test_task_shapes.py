"""Tasks whose fields are not all of the documented shape."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmic_guard.errors import ProtocolError
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.sigmic.reading import read_info, read_infos, read_pagination

pytestmark = pytest.mark.usefixtures("transport")

WELL = {"id": "a", "status": "running", "env": {"X": "1"}, "createdAt": "2026-01-26T15:50:54.870Z"}

NAMES = ["id", "status", "env", "completedAt", "output", "total", "hasMore", "message"]


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


@pytest.mark.parametrize(
    "odd", [{"env": {"X": 1}}, {"createdAt": 5}, {"output": "text"}, {"messageCount": "many"}]
)
def test_an_odd_field_does_not_hide_the_others(odd: dict[str, object]) -> None:
    """What is malformed is left out, and the rest is read."""
    info = read_info(raw({**WELL, **odd}), 200)
    assert isinstance(info, TaskInfo)
    assert (info.id, info.status) == ("a", "running")
    assert (info.env is None) == ("env" in odd)


@pytest.mark.parametrize("lost", [{"id": 7}, {"status": None}, {"id": None, "env": 3}])
def test_a_task_without_id_or_status_is_none(lost: dict[str, object]) -> None:
    """Without these two nothing can be said of a task."""
    assert isinstance(read_info(raw({**WELL, **lost}), 200), ProtocolError)


@pytest.mark.parametrize("value", [[], "x", 7, None, [1]])
def test_what_is_no_object_is_no_task(value: object) -> None:
    """Anything but an object is refused."""
    assert isinstance(read_info(raw(value), 200), ProtocolError)


def test_an_odd_task_does_not_hide_the_others_of_its_page() -> None:
    """A page is read without what cannot be told from others."""
    page = read_infos(raw([WELL, 5, {"id": 1}, {**WELL, "id": "b", "env": 1}]), 200)
    assert not isinstance(page, ProtocolError)
    infos, scraps = page
    assert [info.id for info in infos] == ["a", "b"]
    assert [scrap.raw for scrap in scraps] == [b"5", b'{"id":1}']
    assert [scrap.tells_something for scrap in scraps] == [False, True]


def test_a_scrap_keeps_what_it_tells() -> None:
    """An item without an id still says whose it is not, and its repr shows nothing."""
    page = read_infos(raw([{"status": "running", "message": "m", "env": {"X": "1"}}]), 200)
    assert not isinstance(page, ProtocolError)
    (scrap,) = page[1]
    assert scrap.message == "m"
    assert scrap.tells_something
    assert b'"X"' in scrap.raw
    assert "X" not in repr(scrap)


@pytest.mark.parametrize("status", [None, 7, ["running"]])
def test_a_listed_task_without_a_status_keeps_its_id(status: object) -> None:
    """It is there, in a status that nobody knows."""
    page = read_infos(raw([{**WELL, "status": status}]), 200)
    assert not isinstance(page, ProtocolError)
    assert [(info.id, info.status, info.terminal) for info in page[0]] == [("a", "", False)]


@pytest.mark.parametrize("word", ["expired", "canceled", "Cancelled", "timed_out", "completed "])
@pytest.mark.parametrize("at", ["2026-01-26T15:50:54.870Z", "yesterday", 1769442654, 1.7e12])
def test_an_undocumented_status_with_completed_at_has_ended(word: str, at: object) -> None:
    """Whatever the word and the form of the time: there is an end."""
    info = read_info(raw({**WELL, "status": word, "completedAt": at}), 200)
    assert isinstance(info, TaskInfo)
    assert info.terminal


@pytest.mark.parametrize("at", [None, "", 0, False, [], {}])
def test_an_undocumented_status_without_completed_at_is_running(at: object) -> None:
    """It may be billed."""
    info = read_info(raw({**WELL, "status": "thawing", "completedAt": at}), 200)
    assert isinstance(info, TaskInfo)
    assert not info.terminal


@pytest.mark.parametrize("word", ["pending", "running", "awaiting_approval"])
def test_a_documented_live_status_with_completed_at_is_running(word: str) -> None:
    """The time may be that of an earlier turn."""
    at = "2026-01-26T15:50:54.870Z"
    info = read_info(raw({**WELL, "status": word, "completedAt": at}), 200)
    assert isinstance(info, TaskInfo)
    assert not info.terminal


@pytest.mark.parametrize(
    "text, read",
    [
        ('{"total": 5, "hasMore": true}', (5, True)),
        ('{"total": -1, "hasMore": false}', (None, False)),
        ('{"total": "5", "hasMore": "yes"}', (None, None)),
        ('{"total": 1e400, "hasMore": true}', (None, True)),
        ('{"total": 1.5, "hasMore": 1}', (None, None)),
        ('{"total": 1, "total": 2, "hasMore": true}', (2, True)),
        ('{"total": %s, "hasMore": true}' % ("[" * 100_000), (None, None)),
        ("[]", (None, None)),
        ("null", (None, None)),
        ("", (None, None)),
    ],
)
def test_each_field_of_the_pagination_is_read_by_itself(text: str, read: object) -> None:
    """A total that makes no sense does not hide that there is more."""
    assert read_pagination(msgspec.Raw(text.encode())) == read


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES), inner),
        max_leaves=20,
    )
)
def test_whatever_json_comes_is_read_or_refused(value: object) -> None:
    """No reader raises, and each item of a page has its place."""
    one = msgspec.Raw(json.dumps(value).encode())
    info, page = read_info(one, 200), read_infos(one, 200)
    assert isinstance(info, TaskInfo | ProtocolError)
    if isinstance(value, list):
        assert not isinstance(page, ProtocolError)
        assert len(page[0]) + len(page[1]) == len(value)
    read_pagination(one)


@pytest.mark.parametrize("value", [{}, "x", None])
def test_what_is_no_list_is_no_page(value: object) -> None:
    """Anything but a list is refused."""
    assert isinstance(read_infos(raw(value), 200), ProtocolError)
