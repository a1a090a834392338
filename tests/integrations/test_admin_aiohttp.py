"""The admin page within a service of aiohttp.web, over a socket."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from sigmic_guard import Supervisor
from sigmic_guard.integrations import aiohttp_web
from sigmic_guard.integrations.admin import admin_subapp, requests
from sigmic_guard.integrations.aiohttp_web import tasks_of
from sigmic_guard.testing import FakeSigmic
from tests.integrations.browser import TOKEN, Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse, ClientSession

MOUNT = "/admin/tasks"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def start(request: web.Request) -> web.Response:
    return web.Response(text=(await tasks_of(request).start("m")).id)


def make(fake: FakeSigmic, *middlewares: Any) -> web.Application:
    """A service as people write it."""
    app = web.Application(middlewares=middlewares)
    aiohttp_web.setup(app, client=fake, ledger="memory:", registry=None)
    app.router.add_get("/start", start)
    app.add_subapp(MOUNT, admin_subapp(token=TOKEN))
    return app


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[ClientSession]:
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        jar = aiohttp.CookieJar(unsafe=True)  # of an address that is a number
        async with aiohttp.ClientSession(f"http://{host}:{port}", cookie_jar=jar) as session:
            with anyio.fail_after(30):
                yield session
    finally:
        await runner.cleanup()


async def answer_of(response: ClientResponse) -> Answer:
    headers = {name.lower(): text for name, text in response.headers.items()}
    return Answer(response.status, headers, await response.read())


async def test_a_task_is_cancelled_by_its_button() -> None:
    """From the mount without its slash to the log-in, and to the notice of what came of it."""
    fake = FakeSigmic()
    async with served(make(fake)) as session:
        task_id = await (await session.get("/start")).text()
        assert (await session.get(MOUNT)).status == 401  # at the form, past the redirect
        page = await answer_of(await session.post(f"{MOUNT}/login", data={"token": TOKEN}))
        assert task_id in page.text
        forged = {**page.fields("cancel"), "csrf": "x"}
        assert (await session.post(f"{MOUNT}/cancel", data=forged)).status == 403
        evil = {"Sec-Fetch-Site": "cross-site"}
        fields = page.fields("cancel")
        assert (await session.post(f"{MOUNT}/cancel", data=fields, headers=evil)).status == 403
        assert len(fake.live) == 1
        response = await session.post(f"{MOUNT}/cancel", data=fields)
        assert response.url.path == f"{MOUNT}/"
        assert "the API has acknowledged it" in await response.text()
        assert not fake.live
        response = await session.get(f"{MOUNT}/nothing%2Felse/")
        assert response.status == 404
        assert 'href="../../"' in await response.text()


async def test_head_and_what_else_a_handler_does_not_send_itself() -> None:
    async with served(make(FakeSigmic())) as session:
        got = await answer_of(await session.get(f"{MOUNT}/", headers=BEARER))
        assert got.headers["content-length"] == str(len(got.body))
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        head = await answer_of(await session.head(f"{MOUNT}/", headers=BEARER))
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
        refused = await session.put(f"{MOUNT}/", headers=BEARER)
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_a_form_that_is_too_large_closes_the_connection() -> None:
    form = b"token=" + b"x" * requests.MAX_FORM
    async with served(make(FakeSigmic())) as session:
        response = await session.post(f"{MOUNT}/login", data=form)
        assert response.status == 413
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "headers, body",
    [
        (b"Content-Length: 100", b"token="),
        (b"Transfer-Encoding: chunked", b"6\r\ntoken=\r\n"),
    ],
)
async def test_who_hangs_up_amid_a_form_is_answered_nothing(
    headers: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The page goes on serving, and logs no error."""
    async with served(make(FakeSigmic())) as session:
        base = str(session._base_url)
        port = int(base.rstrip("/").rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            head = b"POST %b/login HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (MOUNT.encode(), headers)
            await stream.send(head + body)
        assert (await session.get(f"{MOUNT}/", headers=BEARER)).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_behind_a_proxy_that_speaks_tls() -> None:
    """Somebody says that it does, as the page in `docs/` shows."""

    @web.middleware
    async def believe_proxy(request: web.Request, handler: Any) -> Any:
        return await handler(request.clone(scheme=request.headers["X-Forwarded-Proto"]))

    async with served(make(FakeSigmic(), believe_proxy)) as session:
        for scheme, secure in ("https", True), ("http", False):
            response = await session.post(
                f"{MOUNT}/login",
                data={"token": TOKEN},
                headers={"X-Forwarded-Proto": scheme},
                allow_redirects=False,
            )
            cookie = response.headers["set-cookie"]
            assert f"Path={MOUNT};" in cookie
            assert cookie.endswith("; Secure") is secure


async def test_without_setup_it_says_so_to_who_may_know() -> None:
    app = web.Application()
    app.add_subapp(MOUNT, admin_subapp(token=TOKEN))
    async with served(app) as session:
        assert (await session.get(f"{MOUNT}/")).status == 401
        page = await answer_of(await session.get(f"{MOUNT}/", headers=BEARER))
        assert page.status == 503
        assert "setup(app) was not called" in page.text


async def test_a_supervisor_of_one_s_own() -> None:
    """Served by itself, without a mount."""
    fake = FakeSigmic()
    async with Supervisor(client=fake, ledger="memory:", registry=None) as supervisor:
        task = await supervisor.start("m")
        app = admin_subapp(SimpleNamespace(supervisor=supervisor), token=TOKEN)
        async with served(app) as session:
            page = await answer_of(await session.get("/", headers=BEARER))
            assert task.id in page.text
            cookie = (await session.post("/login", data={"token": TOKEN})).history[0]
            assert "Path=/;" in cookie.headers["set-cookie"]
