"""Requests of the wire transport: to which address they go, and what is in their heads."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import ConfigurationError, ConnectionFailed
from sigmic_guard.sigmic import SigmicClient, trace_headers
from sigmic_guard.sigmic.wire import dialing
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import KEY, Exchange, answering, client_of, raw_server, success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP)


def task(task_id: str) -> bytes:
    return success({"id": task_id, "status": "running"})


class TestNames:
    """How a host's addresses are had."""

    @pytest.fixture
    def lookups(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        asked: list[str] = []

        def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            if len(asked) == 1 and host == "fails.invalid":
                raise socket.gaierror(socket.EAI_AGAIN, "x")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    async def test_asked_for_once(self, lookups: list[str]) -> None:
        """Who needs them at the same time, and for a while after it, shares the answer."""
        async with raw_server(answering(task("x"))) as server:
            url = server.url.replace("127.0.0.1", "api.invalid")
            async with SigmicClient(KEY, url) as client:
                calls = [asyncio.create_task(client.get("x", timeout=60)) for _ in range(9)]
                await asyncio.sleep(0)
                calls[0].cancel()  # who asked first does not take it with him
                await asyncio.wait(calls)
                assert all(call.result().id == "x" for call in calls[1:])
                await client.get("x", timeout=60)
        assert lookups == ["api.invalid"]

    async def test_a_failure_is_not_kept(self, lookups: list[str]) -> None:
        async with raw_server(answering(task("x"))) as server:
            url = server.url.replace("127.0.0.1", "fails.invalid")
            async with SigmicClient(KEY, url) as client:
                with pytest.raises(ConnectionFailed, match="no such name"):
                    await client.get("x", timeout=60)
                assert (await client.get("x", timeout=60)).id == "x"

    async def test_addresses_are_no_names(self, lookups: list[str]) -> None:
        async with client_of(answering(task("x"))) as client:
            await client.get("x", timeout=60)
        assert lookups == []

    async def test_the_next_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where one address refuses, another one is tried."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            refusing = bound.getsockname()
            async with raw_server(answering(task("x"))) as server:
                port = int(server.url.rpartition(":")[2])
                found = [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", where)
                    for where in (refusing, ("127.0.0.1", port))
                ]
                monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
                async with SigmicClient(KEY, "http://two.invalid") as client:
                    assert (await client.get("x", timeout=60)).id == "x"

    def test_ipv6(self) -> None:
        [(family, *_, where)] = dialing._literal("::1", 80)
        assert (family, where) == (socket.AF_INET6, ("::1", 80, 0, 0))
        assert not dialing._literal("fe80::1%eth0", 80)


class TestHeads:
    """What is written is looked at, wherever else it was before."""

    @pytest.fixture
    def seen(self) -> list[bytes]:
        return []

    @pytest.fixture
    def script(self, seen: list[bytes]) -> Callable[[Exchange], Awaitable[None]]:
        async def script(exchange: Exchange) -> None:
            while request := await exchange.request():
                seen.append(request)
                await exchange.send(task("x"))

        return script

    async def test_a_trace(self, seen: list[bytes], script: Any) -> None:
        async with client_of(script) as client:
            token = trace_headers.set({"traceparent": "00-a-b-01"})
            await client.get("x", timeout=5)
            trace_headers.reset(token)
            await client.get("x", timeout=5)
        assert [b"\r\ntraceparent: 00-a-b-01\r\n" in request for request in seen] == [True, False]

    @pytest.mark.parametrize(
        "headers",
        [
            {"traceparent": "x\r\nX-Evil: y"},
            {"traceparent": "x\n"},
            {"traceparent": "x\0"},
            {"traceparent": "\u00fc"},
            {"trace\r\nparent": "x"},
            {"trace parent": "x"},
            {"": "x"},
        ],
    )
    async def test_no_trace(self, headers: dict[str, str], seen: list[bytes], script: Any) -> None:
        """What would be another header, or none, is refused before anything is sent."""
        async with client_of(script) as client:
            token = trace_headers.set(headers)
            with pytest.raises(ConfigurationError, match="cannot be sent"):
                await client.get("x", timeout=5)
            trace_headers.reset(token)
            assert (await client.get("x", timeout=5)).id == "x"
        assert len(seen) == 1

    async def test_no_path(self, seen: list[bytes], script: Any) -> None:
        """Were an id not encoded, it would be found here."""
        async with client_of(script) as client:
            for path in ("/a b", "/a\r\nX: y", "/\u00fc", "/a\0"):
                with pytest.raises(ConfigurationError, match="cannot be sent"):
                    await client._control.call("GET", "/", path, timeout=5)
        assert seen == []

    async def test_the_host(self, seen: list[bytes], script: Any) -> None:
        """It is told as the URL has it, with the port unless that is the scheme's own."""
        async with client_of(script) as client:
            await client.get("x", timeout=5)
            host = client.base_url.partition("://")[2].encode()
        assert b"\r\nHost: " + host + b"\r\n" in seen[0]
