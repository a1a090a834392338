"""SSEDecoder against the WHATWG algorithm: its examples, all chunkings, and a plain reference."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmic_guard.errors import ProtocolError
from sigmic_guard.sigmic.sse import MAX_EVENT_SIZE, ServerSentEvent, SSEDecoder

E = ServerSentEvent


def reference(stream: bytes) -> list[ServerSentEvent]:
    """The specification, sentence by sentence, on the whole stream at once."""
    text = stream.decode("utf-8", errors="replace")
    text = text.removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    events = []
    data = event_type = last_id = ""
    retry = None
    for line in text.split("\n")[:-1]:
        if line == "":
            if data == "":
                event_type, retry = "", None
                continue
            data = data.removesuffix("\n")
            events.append(E(event_type or "message", data, last_id, retry))
            data = event_type = ""
            retry = None
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            event_type = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and value and set(value) <= set("0123456789"):
            retry = int(value)
    return events


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


VECTORS: dict[str, tuple[bytes, list[ServerSentEvent]]] = {
    "the specification's first example": (
        (
            b"data: This is the first message.\n\n"
            b"data: This is the second message, it\ndata: has two lines.\n\n"
            b"data: This is the third message.\n\n"
        ),
        [
            E(data="This is the first message."),
            E(data="This is the second message, it\nhas two lines."),
            E(data="This is the third message."),
        ],
    ),
    "named events": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [E("add", "73857293"), E("remove", "2153")],
    ),
    "stock ticker": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [E(data="YHOO\n+2\n10")]),
    "comments and ids": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n",
        [E(data="first event", id="1"), E(data="second event"), E(data=" third")],
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [E(data=""), E(data="\n")]),
    "one leading space only": (b"data:test\n\ndata: test\n\n", [E(data="test"), E(data="test")]),
    "a tab is no space": (b"data:\tx\n\n", [E(data="\tx")]),
    "every line end": (
        b"data: a\rdata: b\r\ndata: c\n\r\ndata: d\r\r",
        [E(data="a\nb\nc"), E(data="d")],
    ),
    "CR LF LF is two": (b"data: a\r\n\ndata: b\r\n\r\n", [E(data="a"), E(data="b")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [E(data="a")]),
    "only one byte order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [E(data="b")]),
    "no byte order mark later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [E(data="a")]),
    "half a byte order mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [E(data="b")]),
    "nothing but a byte order mark": (b"\xef\xbb\xbf", []),
    "event resets, also without data": (
        b"event: x\n\ndata: a\n\nevent: y\ndata: b\n\ndata: c\n\n",
        [E(data="a"), E("y", "b"), E(data="c")],
    ),
    "an empty event name is message": (b"event: x\nevent:\ndata: a\n\n", [E(data="a")]),
    "an id in a block without data": (b"id: 1\n\ndata: a\n\n", [E(data="a", id="1")]),
    "an id persists": (
        b"id: 1\ndata: a\n\ndata: b\n\n",
        [E(data="a", id="1"), E(data="b", id="1")],
    ),
    "an id with NUL": (b"id: 1\nid: 2\x003\ndata: a\n\n", [E(data="a", id="1")]),
    "NUL elsewhere": (b"data: a\0b\n\n", [E(data="a\0b")]),
    "retry": (b"retry: 0500\ndata: a\n\ndata: b\n\n", [E(data="a", retry=500), E(data="b")]),
    "no retry": (
        b"retry: 5s\nretry: -1\nretry: 1.5\nretry:\nretry\nretry: \xd9\xa1\nretry:  1\ndata: a\n\n",
        [E(data="a")],
    ),
    "retry without data": (b"retry: 7\n\ndata: a\n\n", [E(data="a")]),
    "fields are case-sensitive": (b"Data: a\nDATA: b\n data: c\ndata : d\n\n", []),
    "unknown fields": (b"foo: bar\nfoo\ndata: a\n:\n: data: b\n\n", [E(data="a")]),
    "colons in a value": (b"data::a: b:\n\n", [E(data=":a: b:")]),
    "other line separators are data": (
        "data: a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\n\n".encode(),
        [E(data="a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g")],
    ),
    "bad UTF-8": (
        b"data: \xff \xc3\ndata: \xe2\x82\ndata: \xf0\x9f\x98\xed\xa0\x80\n\n",
        [E(data="\ufffd \ufffd\n\ufffd\n\ufffd\ufffd\ufffd\ufffd")],
    ),
    "a bad name is unknown": (b"da\xffta: a\ndata: b\n\n", [E(data="b")]),
    "emoji": ("event: 🦊\nid: é\ndata: 😀\n\n".encode(), [E("🦊", "😀", "é")]),
    "an unfinished block is none": (b"data: a\n\ndata: b\n", [E(data="a")]),
    "an unfinished line is none": (b"data: a\n\ndata: b", [E(data="a")]),
    "nothing": (b"", []),
    "blank lines": (b"\n\r\n\r\r\n", []),
}
vectors = pytest.mark.parametrize("stream, events", VECTORS.values(), ids=list(VECTORS))


@vectors
def test_vector(stream: bytes, events: list[ServerSentEvent]) -> None:
    """A stream gives the events that the specification says."""
    assert decode(stream) == events
    assert reference(stream) == events


@vectors
def test_vector_byte_by_byte(stream: bytes, events: list[ServerSentEvent]) -> None:
    """A stream that drips gives the same events."""
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == events


@vectors
def test_vector_in_two(stream: bytes, events: list[ServerSentEvent]) -> None:
    """A stream may be cut anywhere."""
    for cut in range(len(stream) + 1):
        assert decode(stream[:cut], b"", stream[cut:]) == events


@pytest.mark.parametrize(
    "stream",
    [
        b"data:\r\n\r\nid",
        b"\xef\xbb\xbfdata\r\r\n\n",
        b"id:1\r\rdata\n\r\n",
        b"data:\xe2\x82\xac\r\r",
        b"event:a\n\r\ndata",
    ],
)
def test_every_chunking(stream: bytes) -> None:
    """A small stream gives the same events in each of its chunkings, of which there are 2ⁿ."""
    expected = reference(stream)
    for cuts in itertools.product((False, True), repeat=len(stream) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(stream)]
        assert decode(*(stream[a:b] for a, b in itertools.pairwise(edges))) == expected


# Mostly what matters to the algorithm, so that short streams reach its corners.
_TOKENS = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b":",
        b" ",
        b"data",
        b"data: ",
        b"event: ",
        b"id: ",
        b"retry: ",
        b"5",
        b"\x00",
        b"x",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"\xbf",
        b"\xe2\x82",
        "é€😀".encode(),
    ]
)
_STREAMS = st.lists(st.one_of(_TOKENS, st.binary(max_size=3)), max_size=40).map(b"".join)


@given(stream=_STREAMS, cuts=st.lists(st.integers(0, 120)))
def test_like_the_reference(stream: bytes, cuts: list[int]) -> None:
    """Any bytes, cut anywhere, give what the plain reference makes of them."""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(*chunks) == reference(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_comes_with_its_last_byte(end: bytes) -> None:
    """An event is delivered the moment its blank line is complete; a lone CR completes it."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: x" + end) == []
    *earlier, last = [decoder.feed(end[i : i + 1]) for i in range(len(end))]
    assert [*earlier, last][0] == [E(data="x")]
    assert sum(map(len, earlier)) + len(last) == 1


def test_the_line_feed_of_a_split_line_end_is_swallowed() -> None:
    """A LF at the start of a chunk belongs to the CR that ended the last one, over empty chunks."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: x\r") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\n") == [E(data="x")]


def test_the_id_takes_effect_at_the_blank_line() -> None:
    """last_event_id is the id as of the last blank line, retry the last one that was read."""
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\nretry: 9\n")
    assert (decoder.last_event_id, decoder.retry) == ("", 9)
    decoder.feed(b"\nid: 2\n")
    assert (decoder.last_event_id, decoder.retry) == ("1", 9)


def test_an_absurd_retry_is_ignored() -> None:
    """A retry of a million digits neither raises nor takes quadratic time."""
    assert decode(b"retry: " + b"9" * 1_000_000 + b"\ndata: a\n\n") == [E(data="a")]


class TestSizeLimit:
    @pytest.mark.parametrize(
        "stream", [b"data: 12345\n\n", b"data: 12\ndata: 4\n\n", b": 3456789ab\n"]
    )
    def test_up_to_the_limit(self, stream: bytes) -> None:
        """What is exactly as large as the limit passes, in one piece and in drops."""
        limit = max(len(line) for line in stream.split(b"\n"))
        whole, dripped = SSEDecoder(limit), SSEDecoder(limit)
        events = whole.feed(stream)
        assert [e for b in stream for e in dripped.feed(bytes([b]))] == events

    @pytest.mark.parametrize(
        "stream",
        [b"data: 12345", b": a comment", b"data: 12345\n", b"data:123\ndata:456\ndata:789\n"],
    )
    def test_over_the_limit(self, stream: bytes) -> None:
        """A larger line, finished or not, or larger data raises, in one piece and in drops."""
        with pytest.raises(ProtocolError, match="larger than 10 bytes"):
            SSEDecoder(10).feed(stream)
        decoder = SSEDecoder(10)
        with pytest.raises(ProtocolError):
            [decoder.feed(bytes([b])) for b in stream]

    def test_it_raises_for_ever(self) -> None:
        """After that the decoder raises whatever it is fed, and holds nothing."""
        decoder = SSEDecoder(10)
        for _ in range(2):
            with pytest.raises(ProtocolError):
                decoder.feed(b"data: 123456789\n\n")
        with pytest.raises(ProtocolError):
            decoder.feed(b"")

    def test_a_block_is_not_limited_by_its_neighbours(self) -> None:
        """The limit counts anew for each event."""
        assert len(SSEDecoder(10).feed(b"data:12345\n\n" * 1000)) == 1000

    def test_a_large_event_in_drops_takes_linear_time(self) -> None:
        """8 MiB in 1 KiB chunks are put together once, not once a chunk (which takes minutes)."""
        decoder = SSEDecoder()
        size = MAX_EVENT_SIZE - len(b"data: ")
        decoder.feed(b"data: ")
        for _ in range(size // 1024):
            assert not decoder.feed(b"x" * 1024)
        (event,) = decoder.feed(b"x" * (size % 1024) + b"\n\n")
        assert len(event.data) == size


def test_an_event_is_frozen() -> None:
    """An event cannot be changed."""
    with pytest.raises(AttributeError):
        E().data = "x"  # type: ignore[misc]
