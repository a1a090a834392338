"""The event stream over real sockets: chunks, silence, breaks, closing."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.errors import (
    AuthenticationError,
    ConnectionFailed,
    ProtocolError,
    ServerError,
    SigmicGuardError,
    TaskNotFound,
)
from sigmic_guard.sigmic import EventStream, ServerSentEvent
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import Exchange, client_of, response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
OPEN_END = HEAD + b"\r\n"
E = ServerSentEvent


def streaming(*chunks: bytes, hang: bool = False) -> Callable[[Exchange], Awaitable[None]]:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        for chunk in chunks:
            await exchange.send(chunk)
            await asyncio.sleep(0)
        if hang:
            await exchange.hung_up()
        else:
            exchange.writer.close()

    return script


async def everything(stream: EventStream) -> list[ServerSentEvent]:
    events: list[ServerSentEvent] = []
    while batch := await stream.receive():
        events += batch
    return events


async def test_events() -> None:
    """Events come in order, in batches of at least one, and the clean end is an empty batch."""
    chunks = [
        OPEN_END,
        b"event: a\ndata: 1\n\nevent: b\nda",
        b"ta: 2\n\n:hb\n\n",
        b"data: 3\n\ndata",
    ]
    async with client_of(streaming(*chunks)) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        assert await everything(stream) == [E("a", "1"), E("b", "2"), E(data="3")]
        assert not await stream.receive()
        await stream.aclose()


async def test_an_event_comes_at_once() -> None:
    """An event is received before the server sends another byte."""
    more = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        for i in range(3):
            await exchange.send((OPEN_END if i == 0 else b"") + b"data: %d\r\r" % i)
            await more.wait()
            more.clear()
        await exchange.hung_up()

    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        for i in range(3):
            assert await stream.receive() == [E(data=str(i))]
            more.set()
        await stream.aclose()


async def test_chunked_and_cut_short() -> None:
    """A chunked stream that ends without its last chunk broke; its events come first."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    event = b"9\r\ndata: 1\n\n\r\n"
    async with client_of(streaming(chunked, event, b"0\r\n\r\n")) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        assert await everything(stream) == [E(data="1")]
        await stream.aclose()
    async with client_of(streaming(chunked, event)) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        received: list[ServerSentEvent] = []
        with pytest.raises(ConnectionFailed) as caught:
            while True:
                received += await stream.receive()
        assert caught.value.sent
        assert caught.value.__context__ is None
        await stream.aclose()


async def test_reset() -> None:
    """A reset is a ConnectionFailed, and so is whatever is asked of the stream afterwards."""

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await go.wait()
        exchange.reset()

    go = asyncio.Event()
    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        assert await stream.receive() == [E(data="1")]
        go.set()
        for _ in range(2):
            with pytest.raises(ConnectionFailed):
                await stream.receive()


async def test_silence() -> None:
    """A stream without a byte for that long breaks, and drops its connection."""
    gone = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(OPEN_END + b"data: 1\n\n")
        await exchange.hung_up()
        gone.set()

    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=0.05)
        assert await stream.receive() == [E(data="1")]
        with pytest.raises(ConnectionFailed, match=r"silent for 0\.05 seconds") as caught:
            await stream.receive()
        assert caught.value.__context__ is None
        await gone.wait()


async def test_heartbeats_are_life() -> None:
    """Any byte keeps the stream alive, also where none makes an event."""

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(OPEN_END)
        for _ in range(20):
            await asyncio.sleep(0.02)
            await exchange.send(b":")
        await exchange.send(b"\ndata: 1\n\n")
        await exchange.hung_up()

    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=0.3)
        assert await stream.receive() == [E(data="1")]
        await stream.aclose()


async def test_silence_counts_while_waiting_only() -> None:
    """A consumer that takes its time does not make the stream silent."""
    async with client_of(streaming(OPEN_END + b"data: 1\n\n", hang=True)) as client:
        stream = await client.stream("x", timeout=5, silence=0.3)
        assert await stream.receive()
        await asyncio.sleep(0.5)
        receiving = asyncio.create_task(stream.receive())
        done, _ = await asyncio.wait([receiving], timeout=0.01)
        assert not done
        with pytest.raises(ConnectionFailed, match="silent"):
            await receiving


async def test_time_out_of_the_opening() -> None:
    """The time-out bounds the opening, also where a refusal's body never ends; then no longer."""
    refusal = b"HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nx"
    for chunks in ([], [refusal]):
        async with client_of(streaming(*chunks, hang=True)) as client:
            with pytest.raises(ConnectionFailed, match="no answer") as caught:
                await client.stream("x", timeout=0.5, silence=5)
            assert caught.value.sent

    async def slow(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(OPEN_END)
        await asyncio.sleep(1)
        await exchange.send(b"data: 1\n\n")
        await exchange.hung_up()

    async with client_of(slow) as client:
        stream = await client.stream("x", timeout=0.5, silence=5)
        assert await stream.receive() == [E(data="1")]
        await stream.aclose()


NOT_FOUND = b'{"success": false, "error": {"code": "NOT_FOUND", "message": "No such task"}}'


@pytest.mark.parametrize(
    "answer, kind",
    [
        (response(NOT_FOUND, status=404), TaskNotFound),
        (response(b"<html>", status=404), ProtocolError),
        (response(b"<html>", status=401), ProtocolError),
        (response(NOT_FOUND, status=401), AuthenticationError),
        (response(b"<html>", status=503), ServerError),
        (response(b"", status=302, headers="Location: /\r\n"), ProtocolError),
        (response(b"data: 1\n\n"), ProtocolError),
        (response(b"data: 1\n\n", headers="Content-Type: text/plain\r\n"), ProtocolError),
        (response(b"{}", headers="Content-Type: application/json\r\n"), ProtocolError),
        (response(b"", status=204), ProtocolError),
    ],
    ids=range(10),
)
async def test_refusals(answer: bytes, kind: type[SigmicGuardError]) -> None:
    """A refusal has its class, and what is no event stream is a ProtocolError."""
    async with client_of(streaming(answer, hang=True)) as client:
        with pytest.raises(kind):
            await client.stream("x", timeout=5, silence=5)


async def test_too_large() -> None:
    """An event of more than 8 MiB is a ProtocolError, and drops the connection."""
    gone = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(OPEN_END + b"data: ")
        try:
            while True:
                await exchange.send(b"x" * 65536)
        finally:
            gone.set()

    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        with pytest.raises(ProtocolError, match="larger"):
            await stream.receive()
        await gone.wait()


async def test_back_pressure() -> None:
    """Nobody receives: the server is held back, and nothing piles up here."""
    sent = 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.request()
        await exchange.send(OPEN_END)
        while True:
            await exchange.send(b"data: " + b"x" * 65536 + b"\n\n")
            sent += 65536

    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        before = -1
        while sent > before:
            before = sent
            await asyncio.sleep(0.05)
        assert before < 50_000_000
        assert await stream.receive()
        await stream.aclose()


class TestClosing:
    async def test_drops_the_connection(self) -> None:
        """aclose() hangs up at once, again does nothing, and nothing is received afterwards."""
        gone = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            await exchange.send(OPEN_END + b"data: 1\n\ndata: 2\n\n")
            await exchange.hung_up()
            gone.set()

        async with client_of(script) as client:
            stream = await client.stream("x", timeout=5, silence=5)
            assert await stream.receive()
            await stream.aclose()
            await stream.aclose()
            await gone.wait()
            with pytest.raises(ConnectionFailed, match="closed"):
                await stream.receive()

    async def test_under_way(self) -> None:
        """aclose() by another task ends a receive() that waits."""
        async with client_of(streaming(OPEN_END, hang=True)) as client:
            stream = await client.stream("x", timeout=5, silence=60)
            receiving = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            await stream.aclose()
            with pytest.raises(ConnectionFailed, match="closed"):
                await receiving

    async def test_the_client(self) -> None:
        """Closing the client breaks its streams."""
        async with client_of(streaming(OPEN_END, hang=True)) as client:
            stream = await client.stream("x", timeout=5, silence=60)
            receiving = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            await client.aclose()
            with pytest.raises(ConnectionFailed):
                await receiving
            await stream.aclose()

    async def test_cancelled(self) -> None:
        """A receive() that is cancelled loses nothing: the stream goes on."""
        go = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            await exchange.send(OPEN_END + b"data: ")
            await go.wait()
            await exchange.send(b"1\n\n")
            await exchange.hung_up()

        async with client_of(script) as client:
            stream = await client.stream("x", timeout=5, silence=60)
            for _ in range(3):
                receiving = asyncio.create_task(stream.receive())
                await asyncio.sleep(0.01)
                receiving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await receiving
            go.set()
            assert await stream.receive() == [E(data="1")]
            await stream.aclose()

    async def test_opening_cancelled(self) -> None:
        """A stream whose opening is cancelled leaves no connection."""
        arrived, gone = asyncio.Event(), asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            arrived.set()
            await exchange.hung_up()
            gone.set()

        async with client_of(script) as client:
            opening = asyncio.create_task(client.stream("x", timeout=60, silence=60))
            await arrived.wait()
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await gone.wait()

    async def test_forgotten_timer(self) -> None:
        """A stream that is over keeps no timer, and so nothing alive."""
        async with client_of(streaming(OPEN_END, hang=True)) as client:
            stream = await client.stream("x", timeout=5, silence=3600)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stream.receive()
            await stream.aclose()
            assert stream._timer is None
            gc.collect()


async def test_streams_and_calls_share_no_connection() -> None:
    """However many streams are open, a call has a connection."""

    async def script(exchange: Exchange) -> None:
        while request := await exchange.request():
            if b"/stream" in request:
                await exchange.send(OPEN_END)
                await exchange.hung_up()
                return
            await exchange.send(response({"success": True, "data": []}))

    async with client_of(script, connections=1) as client:
        streams = [await client.stream(str(i), timeout=5, silence=5) for i in range(20)]
        await client.list(timeout=5)
        for stream in streams:
            await stream.aclose()


@pytest.mark.backends(ASYNCIO)  # which writes at once
async def test_a_loop_that_stood_still() -> None:
    """What arrived while the loop was busy for longer than the silence is read, not missed."""

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(OPEN_END + b"data: 1\n\n")
        await more.wait()
        exchange.writer.write(b"data: 2\n\n")
        busy_until = time.monotonic() + 0.4
        while time.monotonic() < busy_until:
            pass
        await again.wait()
        await exchange.send(b"data: 3\n\n")
        await exchange.hung_up()

    more, again = asyncio.Event(), asyncio.Event()
    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=0.3)
        assert await stream.receive() == [E(data="1")]
        receiving = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        more.set()
        assert await receiving == [E(data="2")]
        again.set()
        assert await stream.receive() == [E(data="3")], "and it is not closed"
        await stream.aclose()


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_what_came_before_a_break(how: str) -> None:
    """A consumer that was away when the connection broke gets first what had arrived."""

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await go.wait()
        for number in range(2, 5):
            await exchange.send(b"9\r\ndata: %d\n\n\r\n" % number)
        await asyncio.sleep(0.1)
        if how == "reset":
            exchange.reset()
        else:
            exchange.writer.close()
        broke.set()

    go, broke = asyncio.Event(), asyncio.Event()
    async with client_of(script) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        assert await stream.receive() == [E(data="1")]
        go.set()
        await broke.wait()
        while stream._response.content.exception() is None:
            await asyncio.sleep(0.01)
        assert [event.data for event in await stream.receive()] == ["2", "3", "4"]
        for _ in range(2):
            with pytest.raises(ConnectionFailed) as caught:
                await stream.receive()
            assert caught.value.__context__ is None


async def test_a_large_batch_comes_in_slices() -> None:
    """Thousands of events that arrived together hold the loop for no longer than some hundred."""
    events = b"".join(b"data: %06d\n\n" % number for number in range(20_000))

    async with client_of(streaming(OPEN_END, events)) as client:
        stream = await client.stream("x", timeout=5, silence=5)
        await asyncio.sleep(0.2)
        turns, sizes, seen = 0, [], []

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        while batch := await stream.receive():
            sizes.append(len(batch))
            seen += [event.data for event in batch]
        counting.cancel()
        assert seen == [f"{number:06}" for number in range(20_000)]
        assert max(sizes) <= 16 * 1024 // 14 + 1
        assert turns >= len(sizes) - 1, "others have their turn between two batches"
        await stream.aclose()
