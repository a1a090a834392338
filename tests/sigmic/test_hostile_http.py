"""Hostile HTTP over sockets: no call hangs or raises what is foreign, and none shares its end."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import ApiError, ConnectionFailed, ProtocolError
from sigmic_guard.sigmic import SigmicClient
from sigmic_guard.sigmic.responses import Answer
from sigmic_guard.sigmic.wire.connection import Connection
from sigmic_guard.sigmic.wire.reading import AnswerReader
from tests.backends import ASYNCIO, UVLOOP_SLOWLY
from tests.sigmic.raw_server import KEY, Exchange, raw_server
from tests.sigmic.test_wire_reading import ALL, mutated

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [
    pytest.mark.backends(ASYNCIO, UVLOOP_SLOWLY),
    pytest.mark.usefixtures("transport"),
]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]

CALLS = 60


def is_clean(data: bytes) -> bool:
    """Whether these bytes are an answer, and nothing else, after which a connection goes on."""
    reader = AnswerReader()
    reader.expect()
    return reader.feed(data) and isinstance(reader.take(), Answer) and reader.reusable


def told_at_once(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """Leave no cut behind the end of an answer: what comes after it later nobody can foresee."""
    reader = AnswerReader()
    reader.expect()
    for number, piece in enumerate(pieces):
        if reader.feed(piece):
            return [*pieces[:number], b"".join(pieces[number:])]
    return pieces


class Hostile:
    """Answers each request in a way of its own, cut anywhere, and says when that is not the end."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        #: Requests on connections whose last answer had not ended well.
        self.too_many: list[bytes] = []
        self.clean = 0

    def pieces(self) -> Sequence[bytes]:
        chance = self._chance
        data = chance.choice(list(ALL.values()))
        if chance.random() < 0.8:
            data = mutated(chance, data)
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 4)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    async def script(self, exchange: Exchange) -> None:
        clean = True
        while request := await exchange.request():
            if not clean:
                self.too_many.append(request)
            pieces = told_at_once(self.pieces())
            for piece in pieces:
                await exchange.send(piece)
                await asyncio.sleep(0)
            clean = is_clean(b"".join(pieces))
            self.clean += clean
            match self._chance.choice(["reset", "close", "close", "close", "stay"]):
                case "reset":
                    return exchange.reset()
                case "close":
                    return None
        return None


async def endings_of(hostile: Hostile) -> set[type]:
    """What becomes of calls to it."""
    endings = set[type]()
    with_context: list[object] = []

    async def call(client: SigmicClient) -> None:
        try:
            await client.get("x", timeout=0.5)
        except (ApiError, ProtocolError, ConnectionFailed) as error:
            endings.add(type(error))
            with_context.append(error.__context__)
        else:
            endings.add(str)

    async with raw_server(hostile.script) as server, SigmicClient(KEY, server.url) as client:
        async with asyncio.timeout(20):
            for _ in range(CALLS // 20):
                await asyncio.gather(*(call(client) for _ in range(20)))
    assert not any(with_context)
    return endings


@pytest.mark.parametrize("seed", SEEDS)
async def test_anything(seed: int, transport: str) -> None:
    """Whatever a server sends, and however it ends: an answer, or an error that is documented."""
    hostile = Hostile(seed)
    assert await endings_of(hostile) >= {ProtocolError, ConnectionFailed}
    if transport == "wire":  # aiohttp has an eye of its own for an answer's end
        assert hostile.too_many == []
    assert hostile.clean


async def test_a_connection_that_is_always_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: who looks at nothing sends into what did not end well."""
    for name in ("reusable", "quiet"):
        monkeypatch.setattr(Connection, name, Connection.open)
    kind: Any = SigmicClient
    monkeypatch.setitem(kind.__init__.__kwdefaults__, "transport", "wire")
    # It may meet whatever an answer leaves behind, and then has a bug.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    hostile = Hostile(0)
    await endings_of(hostile)
    assert hostile.too_many
