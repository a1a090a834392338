"""A client that speaks plain HTTP to an emulator, and knows the API no better than its document."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest
from yarl import URL

from sigmic_guard.emulator import Emulator, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Start = Callable[..., AbstractAsyncContextManager["Api"]]


class Api:
    """An emulator and one credential's client for it."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and decoded body of a request; the path is sent as it is."""
        url = URL(self.emulator.url + path, encoded=True)
        async with self.session.request(method, url, **options) as response:
            return response.status, await response.json()

    async def create(self, message: str = "hello", **fields: Any) -> str:
        """The id of a new task."""
        status, body = await self.call("POST", "/api/v1/tasks", json={"message": message, **fields})
        assert status == 200, body
        return str(body["data"]["id"])

    async def get(self, task_id: str) -> Any:
        """A task."""
        status, body = await self.call("GET", f"/api/v1/tasks/{task_id}")
        assert status == 200, body
        return body["data"]

    async def cancel(self, task_id: str) -> tuple[int, Any]:
        """Status and body of a DELETE."""
        return await self.call("DELETE", f"/api/v1/tasks/{task_id}")

    def stream(self, task_id: str) -> Stream:
        """The open event stream of a task."""
        return Stream(self.session.get(f"{self.emulator.url}/api/v1/tasks/{task_id}/stream"))

    async def events(self, task_id: str) -> list[tuple[str, Any]]:
        """All events of a task's stream, until it ends."""
        async with self.stream(task_id) as stream:
            return [event async for event in stream]


class Stream:
    """Events of a stream as (type, data); a comment is (":", its text)."""

    def __init__(self, opening: Any) -> None:
        self._opening = opening

    async def __aenter__(self) -> Self:
        self.response: aiohttp.ClientResponse = await self._opening
        assert self.response.status == 200
        assert self.response.content_type == "text/event-stream"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.response.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        kind = ""
        while line := await self.response.content.readline():
            text = line.decode().removesuffix("\n")
            if text.startswith(":"):
                return ":", text[1:]
            name, _, value = text.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                return kind, json.loads(value)
        raise StopAsyncIteration

    async def until(self, kind: str) -> Any:
        """The data of the next event of this kind."""
        async for found, data in self:
            if found == kind:
                return data
        raise AssertionError(f"the stream ended without {kind}")


@pytest.fixture
def start() -> Start:
    """Start an emulator with these options and a client with this credential."""

    @asynccontextmanager
    async def started(credential: str = "sigmic_test", **options: Any) -> AsyncIterator[Api]:
        headers = {"Authorization": f"Bearer {credential}"}
        async with Emulator(**options) as emulator, aiohttp.ClientSession(headers=headers) as http:
            yield Api(emulator, http)

    return started


@pytest.fixture
async def api(start: Start) -> AsyncIterator[Api]:
    """An emulator whose tasks run until they are pushed or cancelled."""
    async with start(script=Script(duration=0.0, hold=True)) as found:
        yield found
