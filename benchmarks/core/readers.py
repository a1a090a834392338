"""Readers of event streams, ours and others': each gives the texts of an answer as they come."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.core import peers
from benchmarks.core.books import task_id
from benchmarks.core.site import HEADERS, KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.core.site import Site


def url(site: Site, index: int = 0) -> str:
    return f"{site.tasks}/{task_id(index)}/stream"


@asynccontextmanager
async def our_texts(site: Site) -> AsyncIterator[AsyncIterator[str]]:
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor

    site.script(events=site["events"], size=site["size"])
    async with (
        Supervisor(
            api_key=KEY, base_url=site.base, ledger="memory:", registry=CollectorRegistry()
        ) as supervisor,
        supervisor.task("bench") as task,
    ):
        yield (event.text async for event in task.events())


@asynccontextmanager
async def httpx_texts(site: Site) -> AsyncIterator[AsyncIterator[str]]:
    from httpx_sse import aconnect_sse

    site.script(seed=1, events=site["events"], size=site["size"])
    async with (
        peers.httpx_client(1) as client,
        aconnect_sse(client, "GET", url(site)) as source,
    ):
        yield (
            json.loads(event.data)["text"]
            async for event in source.aiter_sse()
            if event.event == "content"
        )


@asynccontextmanager
async def aiohttp_texts(site: Site) -> AsyncIterator[AsyncIterator[str]]:
    site.script(seed=1, events=site["events"], size=site["size"])

    async def read(content: Any) -> AsyncIterator[str]:
        kind = b""
        async for line in content:
            if line.startswith(b"event: "):
                kind = line[7:-1]
            elif line.startswith(b"data: ") and kind == b"content":
                yield json.loads(line[6:])["text"]

    import aiohttp

    async with (
        aiohttp.ClientSession(headers=HEADERS, read_bufsize=2**22) as session,
        session.get(url(site)) as answer,
    ):
        yield read(answer.content)
