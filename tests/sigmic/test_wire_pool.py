"""Connections of the wire transport: who has which, in which order, and what is kept of them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from sigmic_guard.sigmic.wire import connection, pool
from sigmic_guard.sigmic.wire.dialing import Dialer
from sigmic_guard.sigmic.wire.pool import Pool
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import (
    KEY,
    Exchange,
    RawServer,
    answering,
    client_of,
    raw_server,
    response,
    success,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP)


def task(task_id: str) -> bytes:
    return success({"id": task_id, "status": "running"})


def id_of(request: bytes) -> str:
    return request.split(b" ")[1].rpartition(b"/")[2].decode()


def bug(*_: object) -> None:
    raise KeyError


class Gate:
    """A server that answers a request when it is told to, and counts them by id."""

    def __init__(self) -> None:
        self.seen = Counter[str]()
        self.order: list[str] = []
        self.opened = asyncio.Event()
        self.arrived = asyncio.Event()

    async def script(self, exchange: Exchange) -> None:
        while request := await exchange.request():
            self.seen[id_of(request)] += 1
            self.order.append(id_of(request))
            self.arrived.set()
            await self.opened.wait()
            await exchange.send(task(id_of(request)))


@asynccontextmanager
async def one_place(**options: Any) -> AsyncIterator[tuple[Gate, RawServer, SigmicClient]]:
    gate = Gate()
    options.setdefault("connections", 1)
    async with (
        raw_server(gate.script) as server,
        SigmicClient(KEY, server.url, **options) as client,
    ):
        yield gate, server, client


def pool_of(client: SigmicClient) -> Pool:
    control: Any = client._control
    found = control._pool
    assert isinstance(found, Pool)
    return found


def at_rest(client: SigmicClient) -> bool:
    """Whether nobody has a place or waits for one, and all that is open can be used."""
    if client._control._pool is None:  # type: ignore[attr-defined]
        return True
    found = pool_of(client)
    places = client._control._connections  # type: ignore[attr-defined]
    busy = found._connections - set(found._idle)
    waited_for = [slot for slot in found.deadlines._slots.values() if slot]
    return found._free == places and not (busy or found._waiting or found._dialing or waited_for)


async def settled(client: SigmicClient) -> None:
    """Return when what was dropped is gone."""
    while not at_rest(client):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    """Who waits for a connection the longest gets it."""
    async with one_place() as (gate, server, client):
        calls = [asyncio.create_task(client.get(str(i), timeout=60)) for i in range(20)]
        await gate.arrived.wait()
        gate.opened.set()
        await asyncio.gather(*calls)
        assert gate.order == [str(i) for i in range(20)]
        assert server.connections == 1
        assert at_rest(client)


async def test_nobody_overtakes() -> None:
    """Nor does one who comes while a place is on its way to one who waits."""
    async with one_place() as (gate, _, client):
        gate.opened.set()
        first = asyncio.create_task(client.get("a", timeout=60))
        second = asyncio.create_task(client.get("b", timeout=60))
        await first
        third = asyncio.create_task(client.get("c", timeout=60))
        await asyncio.gather(second, third)
        assert gate.order == ["a", "b", "c"]


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_at_any_step(victim: int, times: int) -> None:
    """Whoever is cancelled, wherever: all others are answered, and nothing is sent twice."""
    async with one_place(connections=2) as (gate, server, client):
        gate.opened.set()
        for steps in range(24):
            calls = [asyncio.create_task(client.get(f"{steps}-{i}", timeout=60)) for i in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for _ in range(times):
                calls[victim].cancel()
            await asyncio.wait(calls)
            for number, call in enumerate(calls):
                if number != victim or not call.cancelled():
                    assert call.result().id == f"{steps}-{number}"
            await settled(client)
            assert len(pool_of(client)._connections) <= 2
        assert set(gate.seen.values()) == {1}
        assert server.connections <= 24 + 2


async def test_all_cancelled_at_any_step() -> None:
    """The same where nobody is left; the next one is answered."""
    async with one_place() as (gate, _, client):
        gate.opened.set()
        for steps in range(24):
            calls = [asyncio.create_task(client.get(f"{steps}-{i}", timeout=60)) for i in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await settled(client)
            assert (await client.get("x", timeout=60)).id == "x"
            del gate.seen["x"]
        assert set(gate.seen.values()) <= {1}


async def test_a_place_that_comes_with_the_cancellation() -> None:
    """Who is cancelled in the turn in which the place is his hands it on."""
    async with one_place() as (gate, _, client):
        calls = [asyncio.create_task(client.get(str(i), timeout=60)) for i in range(3)]
        await gate.arrived.wait()
        found = pool_of(client)
        found._hand_on()  # as a call that is over does it
        found._free -= 1
        calls[1].cancel()
        calls[0].cancel()
        gate.opened.set()
        assert (await calls[2]).id == "2"
        found._free += 1
        assert gate.seen["1"] == 0


async def test_those_whose_time_is_over() -> None:
    """Nobody waits longer than he said; the others keep their turns."""
    async with one_place() as (gate, _, client):
        holder = asyncio.create_task(client.get("a", timeout=60))
        await gate.arrived.wait()
        short = asyncio.create_task(client.create(CreateRequest(message="m"), timeout=0.05))
        long = asyncio.create_task(client.get("b", timeout=60))
        with pytest.raises(ConnectionFailed, match=r"no connection within 0\.05 s") as caught:
            await short
        assert caught.value.timed_out
        assert not caught.value.sent
        gate.opened.set()
        await asyncio.gather(holder, long)
        assert gate.order == ["a", "b"]
        assert at_rest(client)


async def test_no_limit() -> None:
    """``connections=0`` is as many as there are calls."""
    async with one_place(connections=0) as (gate, server, client):
        calls = [asyncio.create_task(client.get(str(i), timeout=60)) for i in range(50)]
        while len(gate.order) < 50:
            await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(*calls)
        assert server.connections == 50
        assert len(pool_of(client)._idle) == 50


async def test_a_kept_connection_that_was_hung_up_meanwhile() -> None:
    """It is not used, for the socket tells, even if the loop has not looked since."""
    posts: list[bytes] = []
    hang_up = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        while request := await exchange.request():
            posts.append(request)
            await exchange.send(task("x"))
            if len(posts) == 1:
                await hang_up.wait()
                return

    async with raw_server(script) as server, SigmicClient(KEY, server.url) as client:
        await client.get("x", timeout=5)
        [kept] = pool_of(client)._idle
        transport = kept._transport
        assert transport is not None
        transport.pause_reading()  # so that the loop does not tell
        hang_up.set()
        while kept.quiet:
            await asyncio.sleep(0)
        assert kept.open
        assert await client.create(CreateRequest(message="m"), timeout=5) == "x"
        assert server.connections == 2
        assert len(posts) == 2


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n", b"x", task("y")])
@pytest.mark.parametrize("when", ["with it", "later"])
async def test_bytes_that_nobody_asked_for(junk: bytes, when: str) -> None:
    """What follows an answer is nobody's, and its connection is not used again."""
    later = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        if when == "with it":
            await exchange.send(task("x") + junk)
        else:
            await exchange.send(task("x"))
            await later.wait()
            await exchange.send(junk)
        while await exchange.request():
            await exchange.send(task("x"))

    async with raw_server(script) as server, SigmicClient(KEY, server.url) as client:
        await client.get("x", timeout=5)
        if when == "later":
            later.set()
            while any(kept.quiet for kept in pool_of(client)._idle):
                await asyncio.sleep(0)
        later.set()
        assert (await client.get("x", timeout=5)).id == "x"
        # A line end after an answer the parser passes over, as it does before one.
        assert server.connections == (1 if (junk, when) == (b"\r\n", "with it") else 2)


async def test_an_answer_before_the_request_is_sent() -> None:
    """A refusal that comes while the body is on its way is the answer, and ends the connection."""
    answered = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(response(b"", status=413))
        answered.set()
        await asyncio.Event().wait()

    async with raw_server(script) as server, SigmicClient(KEY, server.url) as client:
        for _ in range(2):
            with pytest.raises(Exception) as caught:
                await client.create(CreateRequest(message="x" * 30_000_000), timeout=30)
            assert getattr(caught.value, "status", None) == 413
        assert server.connections == 2


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that nobody uses is kept for long."""
    monkeypatch.setattr(pool, "KEEP_ALIVE", 0.05)
    closed = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(task("x"))
        await exchange.hung_up()
        closed.set()

    async with client_of(script) as client:
        await client.get("x", timeout=5)
        await closed.wait()
        await settled(client)
        assert not pool_of(client)._idle


async def test_what_was_idle_for_too_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what has not been closed yet when it should have been."""
    async with raw_server(answering(task("x"))) as server, SigmicClient(KEY, server.url) as client:
        await client.get("x", timeout=5)
        [kept] = pool_of(client)._idle
        kept.idle_since -= connection.KEEP_ALIVE
        await client.get("x", timeout=5)
        assert server.connections == 2


async def test_a_connection_that_ends_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, and the error says so."""
    dial = Dialer.dial

    async def dial_and_lose(self: Dialer, make: Any) -> connection.Connection:
        made = await dial(self, make)
        made.abort()
        return made

    async with client_of(answering(task("x"))) as client:
        monkeypatch.setattr(Dialer, "dial", dial_and_lose)
        with pytest.raises(ConnectionFailed, match="ended before it was used") as caught:
            await client.create(CreateRequest(message="m"), timeout=5)
        assert not caught.value.sent
        await settled(client)


async def test_a_bug_while_dialing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nobody else's doing is not turned into a failed connection; no place is lost."""
    async with client_of(answering(task("x")), connections=1) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Dialer, "_resolve", bug)
            with pytest.raises(KeyError):
                await client.get("x", timeout=5)
        assert (await client.get("x", timeout=5)).id == "x"
        await settled(client)


async def test_a_timeout_drops_the_connection() -> None:
    """An answer that comes too late meets nobody."""
    async with one_place() as (gate, server, client):
        with pytest.raises(ConnectionFailed, match="no answer") as caught:
            await client.get("a", timeout=0.5)
        assert caught.value.sent
        gate.opened.set()
        assert (await client.get("b", timeout=5)).id == "b"
        assert server.connections == 2
        await settled(client)


async def test_long_timeouts() -> None:
    """However long it is, there is a timer that bears it."""
    async with client_of(answering(task("x"))) as client:
        for timeout in (1e300, 1e9, 5.0):
            assert (await client.get("x", timeout=timeout)).id == "x"


async def test_nobodys_context() -> None:
    """What a caller's context holds is not kept by a connection that was made for him."""
    variable: ContextVar[object] = ContextVar("variable")

    class Mark:
        pass

    async with client_of(answering(task("x"))) as client:

        async def call() -> None:
            variable.set(Mark())
            await client.get("x", timeout=5)

        await asyncio.create_task(call())
        await asyncio.sleep(0)  # the task itself is gone
        gc.collect()
        assert not [it for it in gc.get_objects() if type(it) is Mark]
