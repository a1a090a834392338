"""What a client is told by its user is made plain, or refused before anything is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import ConfigurationError, ConnectionFailed
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from tests.lifecycle.test_values import (
    Duration,
    ForeignReal,
    ForeignWhole,
    Hostile,
    HostileFloat,
    HostileInt,
    HostileStr,
    each,
)
from tests.sigmic.raw_server import KEY, client_of, raw_server, success

if TYPE_CHECKING:
    from tests.sigmic.raw_server import Exchange

pytestmark = pytest.mark.usefixtures("transport")

Call = Callable[[SigmicClient, Any], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "create": lambda client, s: client.create(CreateRequest(message="m"), timeout=s),
    "get": lambda client, s: client.get("x", timeout=s),
    "list": lambda client, s: client.list(timeout=s),
    "delete": lambda client, s: client.delete("x", timeout=s),
    "send": lambda client, s: client.send("x", "m", timeout=s),
    "approve": lambda client, s: client.approve("x", "y", "cancel", timeout=s),
    "stream": lambda client, s: client.stream("x", timeout=s, silence=5),
    "silence": lambda client, s: client.stream("x", timeout=5, silence=s),
    "authenticate": lambda client, s: client.authenticate(timeout=s),
}

NO_SECONDS = each(
    -1,
    True,
    None,
    "5",
    float("nan"),
    float("inf"),
    HostileFloat("nan"),
    10**400,
    HostileInt(-1),
    timedelta(seconds=-1),
    ForeignReal(float("inf")),
    ForeignWhole(ValueError()),
    Duration(5),
    Hostile(),
)


async def whatever(exchange: Exchange) -> None:
    """A server that is content with everything."""
    while await exchange.request():
        await exchange.send(success({"id": "x", "status": "running", "message": "Task cancelled"}))


@pytest.mark.parametrize("make", NO_SECONDS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_seconds(call: Call, make: Callable[[], Any]) -> None:
    """A time-out that cannot be one is refused on every route, and no connection is made."""
    async with raw_server(whatever) as server, SigmicClient(KEY, server.url) as client:
        with pytest.raises(ConfigurationError, match=r"(timeout|silence) must be a finite number"):
            await call(client, make())
        assert server.connections == 0


@pytest.mark.parametrize(
    "make",
    each(
        5,
        HostileFloat(5),
        HostileInt(5),
        timedelta(seconds=5),
        timedelta.max,
        ForeignReal(5.0),
        1e300,
    ),
)
async def test_seconds(make: Callable[[], Any]) -> None:
    """A time-out that only looks odd bounds a request like any other."""
    async with client_of(whatever) as client:
        assert await client.create(CreateRequest(message="m"), timeout=make()) == "x"
        assert (await client.get("x", timeout=make())).status == "running"
        assert await client.delete("x", timeout=make())


async def test_what_a_timedelta_says_is_kept() -> None:
    """It is a time-out as short as it says."""

    async def silent(exchange: Exchange) -> None:
        await exchange.hung_up()

    async with client_of(silent) as client:
        with pytest.raises(ConnectionFailed, match=r"within 0\.05 seconds"):
            await client.get("x", timeout=timedelta(milliseconds=50))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["connections", "stream_connections"])
@pytest.mark.parametrize("make", each(-1, True, None, "5", 5.0, HostileInt(-1), Hostile()))
def test_no_number_of_connections(name: str, make: Callable[[], Any]) -> None:
    """It is a whole number, or the client is not made."""
    options: dict[str, Any] = {name: make()}
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number, at least 0"):
        SigmicClient(KEY, "http://h", **options)


@pytest.mark.parametrize(
    "options",
    each(
        {"base_url": Hostile()},
        {"base_url": b"http://h"},
        {"api_key": b"sigmic_x"},
        {"api_key": Hostile()},
        {"account": Hostile()},
        {"account": HostileStr("")},
        {"on_request": "print"},
        {"on_request": Hostile()},
    ),
)
def test_a_client_that_cannot_be_made(options: Callable[[], Any]) -> None:
    """Whatever else it is told is looked at as well."""
    with pytest.raises(ConfigurationError):
        SigmicClient(**{"api_key": KEY, "base_url": "http://h", **options()})


async def test_what_only_looks_odd() -> None:
    """Strings and numbers of a kind of their own are taken for what they are."""
    async with raw_server(whatever) as server:
        client = SigmicClient(
            HostileStr(KEY),
            HostileStr(server.url),
            account=HostileStr("a"),
            connections=HostileInt(1),
            stream_connections=ForeignWhole(0),  # type: ignore[arg-type]
        )
        async with client:
            assert type(client.base_url) is str
            assert (await client.get(HostileStr("x"), timeout=5)).id == "x"
            assert await client.delete(HostileStr("x"), timeout=5)
            assert await client.send(HostileStr("x"), HostileStr("m"), timeout=5) == "running"


@pytest.mark.parametrize("make", each(5, None, b"x", Hostile(), HostileStr("")))
async def test_no_id(make: Callable[[], Any]) -> None:
    """What can be no id is refused, whatever its methods would do."""
    async with raw_server(whatever) as server, SigmicClient(KEY, server.url) as client:
        for call in (client.get, client.delete):
            with pytest.raises(ConfigurationError, match="is no id"):
                await call(make(), timeout=5)
        with pytest.raises(ConfigurationError, match="is no id"):
            await client.stream(make(), timeout=5, silence=5)
        with pytest.raises(ConfigurationError, match="is no id"):
            await client.approve("x", make(), "cancel", timeout=5)
        assert server.connections == 0
