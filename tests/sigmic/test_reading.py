"""Tasks whose fields are not all of the documented shape."""

from __future__ import annotations

import msgspec
import pytest

from sigmic_guard.errors import ProtocolError
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.sigmic.reading import read_info, read_infos

WELL = {"id": "a", "status": "running", "env": {"X": "1"}, "createdAt": "2026-01-26T15:50:54.870Z"}


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
    infos = read_infos(raw([WELL, 5, {"id": 1}, {**WELL, "id": "b", "env": 1}]), 200)
    assert not isinstance(infos, ProtocolError)
    assert [info.id for info in infos] == ["a", "b"]


@pytest.mark.parametrize("value", [{}, "x", None])
def test_what_is_no_list_is_no_page(value: object) -> None:
    """Anything but a list is refused."""
    assert isinstance(read_infos(raw(value), 200), ProtocolError)
