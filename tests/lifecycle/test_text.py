"""What strangers wrote, made fit to be told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sigmic_guard.lifecycle.text import (
    MAX_DETAIL,
    MAX_STATUS,
    one_line,
    shown_id,
    tidy_detail,
    tidy_status,
)

KEY = "sigmic_" + "0f" * 32
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain words", "plain words"),
        ("ünïcödé 🦊", "ünïcödé 🦊"),
        ("a\r\nb", "a b"),
        ("\x1b[2K\x9b31mred", "[2K 31mred"),
        ("a\u2028b\u2029c", "a b c"),
        ("x\ud800y", "x y"),
        ("abc\u202egnp.exe\u2066", "abc gnp.exe"),
        (f"key {KEY}!", "key ***"),
        (f"token '{JWT}'", "token '***'"),
        ("sigmic_guard was here", "sigmic_guard was here"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    """A text stands in one line, without what steers a terminal or looks like a credential."""
    assert one_line(text) == expected


def test_one_line_has_an_end() -> None:
    """A text is cut, and a credential at the cut is hidden as a whole."""
    assert one_line("x" * 1_000_000) == "x" * 300 + "…"
    assert one_line("y" * 290 + KEY) == "y" * 290 + "***"


@pytest.mark.parametrize("status", ["pending", "running", "awaiting_approval", "completed"])
def test_a_documented_status(status: str) -> None:
    """A documented status is kept."""
    assert tidy_status(status) is status


def test_any_other_status() -> None:
    """Any other status is made fit for a row."""
    assert tidy_status("paused\n\x1b[2K") == "paused [2K"
    assert len(tidy_status("x" * 100_000)) == MAX_STATUS + 1


@pytest.mark.parametrize(
    "detail, expected",
    [
        (None, None),
        (7, 7),
        (True, True),
        ("plain", "plain"),
        (
            {"code": "X", "more": ["a\nb", 1.5, None]},
            {"code": "X", "more": ["a b", 1.5, None]},
        ),
        ({"a\x1b": {KEY: "v"}}, {"a": {"***": "v"}}),
    ],
)
def test_detail(detail: Any, expected: Any) -> None:
    """What the API tells of a failure keeps its structure; its texts are made fit to be told."""
    assert tidy_detail(detail) == expected


@pytest.mark.parametrize(
    "detail",
    ["x" * 10**6, ["x"] * 10**6, {str(n): n for n in range(10**5)}, [["x" * 9000] * 9] * 9],
    ids=["text", "list", "object", "nested"],
)
def test_detail_has_an_end(detail: Any) -> None:
    """However much there is, what is kept of it is bounded."""
    assert len(json.dumps(tidy_detail(detail))) < 6 * MAX_DETAIL


def test_detail_is_not_deep() -> None:
    """However deep it is, what is kept of it can be told."""
    detail: Any = "x"
    for _ in range(900):
        detail = [detail]
    assert len(repr(tidy_detail(detail))) < 100


def test_detail_is_redacted_before_it_is_cut() -> None:
    """What a caller wants hidden is hidden in texts and names, at the cut as well."""
    hide = lambda text: text.replace("hunter2", "[redacted]")  # noqa: E731
    assert tidy_detail({"hunter2": ["my hunter2"]}, hide) == {"[redacted]": ["my [redacted]"]}
    assert "hunt" not in tidy_detail("x" * (MAX_DETAIL - 4) + "hunter2", hide)


@pytest.mark.parametrize(
    "remote_id, expected",
    [
        ("c37c1d78-4d23-4e53-949a-ddd775f25e01", "c37c1d78-4d23-4e53-949a-ddd775f25e01"),
        ("a\n\x1b[2K", r"a\n\x1b[2K"),
        ("\u202ex", r"\u202ex"),
        (KEY, "***"),
    ],
)
def test_shown_id(remote_id: str, expected: str) -> None:
    """An id in a message is escaped."""
    assert shown_id(remote_id) == expected


def test_shown_id_has_an_end() -> None:
    """An id in a message is cut."""
    assert len(shown_id("x" * 10**6)) == 81
