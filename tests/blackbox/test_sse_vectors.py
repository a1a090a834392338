"""The event-stream tests of the web platform, from memory, and what follows from the algorithm."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from sigmic_guard.sigmic.sse import SSEDecoder


class Vector(NamedTuple):
    name: str
    stream: bytes
    events: list[tuple[str, str, str]]  # event, data, id


def m(data: str, last: str = "", kind: str = "message") -> tuple[str, str, str]:
    return kind, data, last


VECTORS = [
    Vector(
        "format-bom", b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", [m("1"), m("3")]
    ),
    Vector(
        "format-bom-2", b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n", [m("2"), m("3")]
    ),
    Vector(
        "format-comments",
        b"data:1\r:\0\n:"
        + b"x" * 2048
        + b"\rdata:2\n:"
        + b"y" * 2048
        + b"\rdata:3\r:data:fail\r:"
        + b"z" * 2048
        + b"\rdata:4\n\n",
        [m("1\n2\n3\n4")],
    ),
    Vector(
        "format-data-before-final-empty-line",
        b"retry:1000\ndata:test1\n\nid:test\ndata:test2",
        [m("test1")],
    ),
    Vector(
        "format-field-data", b"data:\n\ndata\ndata\n\ndata:test\n\n", [m(""), m("\n"), m("test")]
    ),
    Vector(
        "format-field-event", b"event:test\ndata:x\n\ndata:x\n\n", [m("x", kind="test"), m("x")]
    ),
    Vector("format-field-event-empty", b"event: \ndata:data\n\n", [m("data")]),
    Vector(
        "format-field-id",
        b"id: \xe2\x80\xa6\ndata:1\n\ndata:2\n\n",
        [m("1", "\u2026"), m("2", "\u2026")],
    ),
    Vector(
        "format-field-id-2",
        b"id: 1\ndata:1\n\nid\ndata:2\n\nid: 3\ndata:3\n\nid:\ndata:4\n\n",
        [m("1", "1"), m("2"), m("3", "3"), m("4")],
    ),
    Vector(
        "format-field-id-3", b"id: 1\n\ndata:a\n\nid: a\n\nid\ndata:b\n\n", [m("a", "1"), m("b")]
    ),
    Vector(
        "format-field-id-null",
        b"id: \0\0\ndata:1\n\nid: a\0b\ndata: 2\n\nid: x\ndata: 3\n\nid: \0y\ndata:4\n\n",
        [m("1"), m("2"), m("3", "x"), m("4", "x")],
    ),
    Vector(
        "format-field-parsing",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
        b"data:3\rdata:\r\n data:32\ndata:4\n\n",
        [m("\0\n 2\n1\n3\n\n4")],
    ),
    Vector("format-field-retry-bogus", b"retry:3000\nretry:1000x\ndata:x\n\n", [m("x")]),
    Vector(
        "format-field-unknown",
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [m("test\n\ntest")],
    ),
    Vector("format-leading-space", b"data:\ttest\rdata: \ndata:test\n\n", [m("\ttest\n\ntest")]),
    Vector("format-newlines", b"data:test\r\ndata\ndata:test\r\n\r", [m("test\n\ntest")]),
    Vector("format-null-character", b"data:\0\n\n\n\n", [m("\0")]),
    Vector("format-utf-8", "data:ok\u2026\n\n".encode(), [m("ok\u2026")]),
    Vector("spec: no data, no event", b"event: x\nid: 9\n\ndata: y\n\n", [m("y", "9")]),
    Vector("spec: stocks", b"data: YHOO\ndata: +2\ndata: 10\n\n", [m("YHOO\n+2\n10")]),
    Vector("all CR", b"event:a\rdata:1\r\rdata:2\r\r", [m("1", kind="a"), m("2")]),
    Vector("CR then LF then LF", b"data:1\r\n\ndata:2\n\r\n", [m("1"), m("2")]),
    Vector("LF CR is two ends", b"data:1\n\rdata:2\n\r", [m("1"), m("2")]),
    Vector(
        "other separators are data",
        "data:a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        [m("a\u2028b\u0085c\x0bd\x0ce")],
    ),
    Vector(
        "bad UTF-8",
        b"data:\xff\xfeok\xc3\n\ndata:\xe2\x82\n\n",
        [m("\ufffd\ufffdok\ufffd"), m("\ufffd")],
    ),
    Vector("event names are case-sensitive fields", b"EVENT:x\nEvent:y\ndata:1\n\n", [m("1")]),
    Vector("data with colons", b'data: {"a": "b:c"}\n\n', [m('{"a": "b:c"}')]),
]


def decode(chunks: list[bytes]) -> list[tuple[str, str, str]]:
    decoder = SSEDecoder()
    found = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [(event.event or "message", event.data, event.id or "") for event in found]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_vector_in_every_cut(vector: Vector) -> None:
    """A vector gives its events whole, byte by byte, and cut in two at each place."""
    stream = vector.stream
    assert decode([stream]) == vector.events
    assert decode([stream[at : at + 1] for at in range(len(stream))]) == vector.events
    assert decode([part for at in range(len(stream)) for part in (stream[at : at + 1], b"")]) == (
        vector.events
    )
    for at in range(0, len(stream), 1 if len(stream) < 300 else 97):
        assert decode([stream[:at], stream[at:]]) == vector.events


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r", b"\n\r", b"\r\n\n", b"\r\n\r\n"])
def test_an_event_comes_the_moment_its_blank_line_is_complete(end: bytes) -> None:
    """Neither a byte earlier nor a byte later; and a following LF starts no new line."""
    decoder = SSEDecoder()
    head = b"data:1" + end
    due = head if end != b"\r\n\r\n" else head[:-1]
    before = [decoder.feed(due[at : at + 1]) for at in range(len(due))]
    assert not any(before[:-1])
    assert [event.data for event in before[-1]] == ["1"]
    rest = head[len(due) :] + (b"\n" if due.endswith(b"\r") and due == head else b"")
    assert [event.data for event in decoder.feed(rest + b"data:2\n\n")] == ["2"]


@pytest.mark.parametrize(
    "line, retry",
    [
        (b"retry: 1500", 1500),
        (b"retry:0", 0),
        (b"retry:  1", None),
        (b"retry: 1 ", None),
        (b"retry: -1", None),
        (b"retry: +1", None),
        (b"retry: 1.5", None),
        (b"retry: 0x10", None),
        ("retry: ١٢".encode(), None),
        (b"retry: 1_000", None),
        (b"retry: ", None),
        (b"retry", None),
    ],
)
def test_retry_is_ascii_digits_only(line: bytes, retry: int | None) -> None:
    """What is not only digits is ignored."""
    (event,) = SSEDecoder().feed(line + b"\ndata: x\n\n")
    assert event.retry == retry


def test_a_retry_of_absurd_length_is_no_crash() -> None:
    """Ten thousand digits are digits, though more than `int` takes."""
    (event,) = SSEDecoder().feed(b"retry: " + b"9" * 10_000 + b"\ndata: x\n\n")
    assert event.data == "x"


def test_a_thousand_events_in_one_chunk() -> None:
    """A big chunk gives all of its events, in order."""
    stream = b"".join(b"event: e\r\ndata: %d\r\n\r\n" % at for at in range(1000))
    assert [int(event.data) for event in SSEDecoder().feed(stream)] == list(range(1000))
