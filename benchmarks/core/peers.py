"""What one would write by hand, over aiohttp and httpx: shared by the rows that speak HTTP.

None of it has deadlines, retries, a ledger or metrics, and all of it forgets its tasks when it
dies. *naive* is what the API's own documentation suggests, on a session as it comes; *tuned* is
what one gets to who measures: as many connections as callers, answers read as bytes, no time-out
objects.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.core.site import HEADERS, Unsound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import aiohttp

    from benchmarks.core.site import Site

#: DELETEs, or lifecycles, that a tuned client has under way at once, where nobody says otherwise.
AT_ONCE: Final = 64
_BODY: Final = {"message": "bench", "env": {"A": "b"}}


@asynccontextmanager
async def aiohttp_session(connections: int | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session as it comes, or one that is tuned for so many callers."""
    import aiohttp

    if connections is None:
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            yield session
        return
    connector = aiohttp.TCPConnector(limit=connections)
    patience = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        headers=HEADERS,
        connector=connector,
        timeout=patience,
        cookie_jar=aiohttp.DummyCookieJar(),
        json_serialize=lambda body: msgspec.json.encode(body).decode(),
    ) as session:
        yield session


def _check(success: object) -> None:
    if not success:
        raise Unsound("a request was not answered as it should be")


async def delete_by_hand(session: aiohttp.ClientSession, url: str) -> None:
    """Delete a task."""
    async with session.delete(url) as answer:
        _check((await answer.json())["success"])


async def delete_tuned(session: aiohttp.ClientSession, url: str) -> None:
    """Delete a task, reading no more than one has to."""
    async with session.delete(url, allow_redirects=False) as answer:
        _check(answer.status == 200)
        await answer.read()


class _Created(msgspec.Struct):
    id: str


class _Answer(msgspec.Struct):
    data: _Created


_decode: Final = msgspec.json.Decoder(_Answer).decode


def lifecycle_by_hand(session: aiohttp.ClientSession, site: Site) -> Callable[[], Awaitable[None]]:
    """Return what creates a task and deletes it."""
    url = site.tasks

    async def one() -> None:
        async with session.post(url, json=_BODY) as answer:
            name = (await answer.json())["data"]["id"]
        await delete_by_hand(session, f"{url}/{name}")

    return one


def lifecycle_tuned(session: aiohttp.ClientSession, site: Site) -> Callable[[], Awaitable[None]]:
    """Return the same, reading no more than one has to."""
    url = site.tasks

    async def one() -> None:
        async with session.post(url, json=_BODY, allow_redirects=False) as answer:
            name = _decode(await answer.read()).data.id
        await delete_tuned(session, f"{url}/{name}")

    return one


@asynccontextmanager
async def httpx_client(connections: int) -> AsyncIterator[Any]:
    """Open a client of httpx for so many callers."""
    import ssl

    import httpx

    forever = httpx.Timeout(None)
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    trusted = ssl.create_default_context()
    async with httpx.AsyncClient(
        headers=HEADERS, limits=limits, timeout=forever, trust_env=False, verify=trusted
    ) as client:
        yield client


def lifecycle_httpx(client: Any, site: Site) -> Callable[[], Awaitable[None]]:
    """Return what creates a task and deletes it."""
    url = site.tasks

    async def one() -> None:
        name = (await client.post(url, json=_BODY)).json()["data"]["id"]
        _check((await client.delete(f"{url}/{name}")).json()["success"])

    return one
