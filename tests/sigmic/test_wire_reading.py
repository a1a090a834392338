"""Answers out of bytes, however these come, and whatever they are."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import ConnectionFailed, ProtocolError
from sigmic_guard.sigmic.responses import Answer
from sigmic_guard.sigmic.wire import reading
from sigmic_guard.sigmic.wire.inflating import Inflater
from sigmic_guard.sigmic.wire.reading import AnswerReader
from tests.sigmic.test_side_by_side import ANSWERS, BODY, LAST_WORDS, WHOLE, chunked, head, sized

if TYPE_CHECKING:
    from collections.abc import Iterable

#: All of those that come in one piece and are not large.
ALL = {
    name: data if isinstance(data, bytes) else b"".join(data)
    for name, data in (ANSWERS | LAST_WORDS).items()
    if len(data) < 2_000
}


def read(pieces: Iterable[bytes], *, end: bool = True) -> tuple[Any, ...] | None:
    """What a reader makes of the bytes; ``None`` if there is no result."""
    reader = AnswerReader()
    reader.expect()
    for piece in pieces:
        if piece and reader.feed(piece):
            break
    else:
        if not end:
            return None
        reader.feed_eof()
    result = reader.take()
    assert isinstance(result, Answer | ConnectionFailed | ProtocolError)
    if isinstance(result, Answer):
        return result.status, result.body, result.retry_after
    assert not reader.reusable
    return type(result), str(result)


@pytest.mark.parametrize("name", ALL)
def test_cut_anywhere(name: str) -> None:
    """Where the bytes are cut makes no difference."""
    data = ALL[name]
    whole = read([data])
    assert read(bytes([byte]) for byte in data) == whole
    for at in range(len(data)):
        assert read([data[:at], data[at:]]) == whole, data[:at]


def test_one_after_the_other() -> None:
    """A connection that is reusable gives the next answer, and keeps nothing of the last one."""
    reader = AnswerReader()
    first = sized(BODY, "Retry-After: 5", "X: y", status="503 No")
    for data in (first, WHOLE, chunked(BODY), head(status="204 No Content"), WHOLE):
        reader.expect()
        assert reader.feed(data)
        assert reader.reusable
        answer = reader.take()
        assert isinstance(answer, Answer)
        assert answer.retry_after == ("5" if data is first else None)
        assert answer.body == (b"" if b"204" in data else BODY)


@pytest.mark.parametrize(
    "data",
    [
        WHOLE + WHOLE,
        WHOLE + b"HTTP",
        WHOLE + b"junk",
        WHOLE + b"\0",
        chunked(BODY) + b"0\r\n\r\n",
        head(status="204 No Content") + b"{}",
        sized(BODY, "Connection: close"),
        sized(BODY, version="1.0"),
        sized(BODY, "Connection: upgrade", "Upgrade: x", status="101 Switching"),
        head() + BODY,
        sized(gzip.compress(b"x" * 70_000), "Content-Encoding: gzip", status="500 No"),
    ],
    ids=range(11),
)
def test_not_again(data: bytes) -> None:
    """After more than an answer, or the last one, or one that is not read on, it is not reused."""
    reader = AnswerReader()
    reader.expect()
    if not reader.feed(data):
        reader.feed_eof()
    assert isinstance(reader.take(), Answer)
    assert not reader.reusable


def test_kept_alive_by_http_1_0() -> None:
    reader = AnswerReader()
    reader.expect()
    assert reader.feed(sized(BODY, "Connection: keep-alive", version="1.0"))
    assert reader.reusable


@pytest.mark.parametrize(
    "first, endless",
    [
        (b"", b"HTTP/1.1 200 " + b"x" * 1_000),
        (head()[:-2], b"x" * 1_000),
        (head()[:-2], b"X: " + b"x" * 1_000),
        (head()[:-2], b"X: y\r\n"),
        (head("Transfer-Encoding: chunked"), b"1;" + b"x" * 1_000),
        (head("Transfer-Encoding: chunked") + b"0\r\n", b"X: " + b"x" * 1_000),
        (head("Transfer-Encoding: chunked") + b"0\r\n", b"X: y\r\n"),
        (head("Transfer-Encoding: chunked") + b"0\r\n", b"x" * 1_000),
    ],
)
def test_no_end(first: bytes, endless: bytes) -> None:
    """What never ends is given up before it takes more than a little memory."""
    reader = AnswerReader()
    reader.expect()
    reader.feed(first)
    if endless.startswith(b"HTTP"):
        reader.feed(endless)
        endless = endless[13:]
    if b"\r\n" not in endless:
        reader.feed(endless)
        endless = b"x" * 1_000
    assert any(reader.feed(endless) for _ in range(200))
    assert isinstance(reader.take(), ProtocolError)


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of a body is inflated than is read, and a byte."""
    monkeypatch.setattr(reading, "MAX_JSON", 1_000)
    inflated: list[int] = []
    feed = Inflater.feed

    def noting(self: Inflater, data: bytes, most: int) -> bytes:
        found = feed(self, data, most)
        inflated.append(len(found))
        return found

    monkeypatch.setattr(Inflater, "feed", noting)
    for packed in (gzip.compress(b"x" * 2**20), gzip.compress(b"x" * 900) * 50):
        inflated.clear()
        found = read([sized(packed, "Content-Encoding: gzip")])
        assert found == (200, None, None)
        assert sum(inflated) == 1_001


def test_just_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_JSON", 1_000)
    for size, body in ((1_000, b"x" * 1_000), (1_001, None)):
        assert read([sized(b"x" * size)]) == (200, body, None)
        packed = sized(zlib.compress(b"x" * size), "Content-Encoding: deflate")
        assert read([packed]) == (200, body, None)


def test_a_bug_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no server's doing is not taken for it."""

    def bug(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(AnswerReader, "on_body", bug)
    with pytest.raises(Exception) as caught:
        read([WHOLE])
    assert isinstance(caught.value.__context__, KeyError)


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The same with a few of its bytes, or pieces, not as they were."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        to = min(len(found), at + chance.randint(0, 8))
        match chance.randrange(6):
            case 0:
                found[at:to] = b""
            case 1:
                found[at:at] = chance.choice(SPICES)
            case 2:
                found[at:to] = chance.randbytes(to - at)
            case 3:
                found[at:at] = found[at:to] * chance.randint(1, 20)
            case 4:
                del found[at:]
            case _:
                other = chance.choice(list(ALL.values()))
                found[at:at] = other[chance.randrange(len(other) + 1) :]
    return bytes(found)


SPICES = [
    b"\r\n",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"\r\n\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: -5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"x" * 9_000,
]


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 60))]
)
def test_anything(seed: int) -> None:
    """Whatever comes is an answer, no answer yet, or an error of ours; never anything else."""
    chance = random.Random(seed)
    kinds = set()
    for _ in range(300):
        data = mutated(chance, chance.choice(list(ALL.values())))
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 5)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        found = read(pieces, end=False)
        kinds.add(found and found[0])
        read(pieces)
    assert {None, 200, ProtocolError} <= kinds
