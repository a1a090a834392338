"""A browser in memory, for the admin page: it keeps a cookie, and fills in forms.

What asks for the fixture ``door`` runs twice, against the page for ASGI and that for aiohttp.web.
"""

from __future__ import annotations

import re
import sys
from html import unescape
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from sigmic_guard.integrations import aiohttp_web
from sigmic_guard.integrations.admin import admin_app, admin_subapp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sigmic_guard.integrations.asgi.protocol import Application, Message, Receive, Scope, Send

HOST = "ops.example"
TOKEN = "correct-horse-battery-staple"
BEARER = ("authorization", f"Bearer {TOKEN}")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", self.html, flags=re.DOTALL))

    @property
    def html(self) -> str:
        return self.body.decode()

    def fields(self, action: str, nth: int = 0) -> dict[str, str]:
        """The hidden fields of the nth form that is sent there."""
        form = rf'<form method="post" action="{action}">(.*?)</form>'
        forms = re.findall(form, self.html, re.DOTALL)
        found = re.findall(r'type="hidden" name="(\w+)"\s+value="([^"]*)"', forms[nth])
        return {name: unescape(value) for name, value in found}


async def ask(
    app: Application,
    method: str,
    path: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    messages: Iterable[Message] = (),
    last: dict[str, Any] | None = None,
    **scope: Any,
) -> Answer:
    """Send one request, and return its answer."""
    path, _, query = path.partition("?")
    waiting = list(messages) or [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    base = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": scope.get("root_path", "").rstrip("/") + path,
        "query_string": query.encode(),
        "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers],
    }
    await app({**base, **scope, **(last or {})}, receive, send)
    if not sent:
        return Answer(0, {}, b"")
    start, *rest = sent
    names = [name for name, _ in start["headers"]]
    assert len(names) == len(set(names))
    headers_sent = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers_sent, b"".join(message["body"] for message in rest))


class Browser:
    """One person at the pages of an application."""

    def __init__(self, app: Application, **scope: Any) -> None:
        self.app = app
        self.scope = scope
        self.cookie: str | None = None

    async def get(self, path: str = "/", *headers: tuple[str, str]) -> Answer:
        return await self._ask("GET", path, headers)

    async def post(self, path: str, *headers: tuple[str, str], **fields: str) -> Answer:
        body = urlencode(fields).encode()
        message = {"type": "http.request", "body": body, "more_body": False}
        return await self._ask("POST", path, headers, [message])

    async def follow(self, answer: Answer) -> Answer:
        assert answer.status == 303, answer
        location = answer.headers["location"]
        assert location.startswith("./")
        return await self.get(location[1:])

    async def log_in(self, token: str) -> Answer:
        return await self.post("/login", token=token)

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        messages: Iterable[Message] = (),
    ) -> Answer:
        own = [("host", HOST)]
        if self.cookie is not None:
            own.append(("cookie", f"theme=dark; {self.cookie}"))
        answer = await ask(
            self.app, method, path, headers=[*own, *headers], messages=messages, **self.scope
        )
        if (cookie := answer.headers.get("set-cookie")) is not None:
            self.cookie = cookie.partition(";")[0]
        return answer


class Body:
    """What an application of aiohttp's reads of a request."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._at_end = False

    async def readany(self) -> bytes:
        piece = b""
        while not piece and not self._at_end:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            piece = message["body"]
            self._at_end = not message.get("more_body")
        return piece


def as_asgi(make: Callable[[], web.Application]) -> Application:
    """Call an application of aiohttp's in memory: without a server, on any event loop.

    :param make: called for each request, for aiohttp binds an application to where it is mounted.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        mounted = make()
        if mount := scope.get("root_path", "").rstrip("/"):
            outer = web.Application()
            outer.add_subapp(mount, mounted)
            mounted = outer
        query = scope.get("query_string", b"").decode()
        request = make_mocked_request(
            scope["method"],
            "/",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
            app=mounted,
            payload=Body(receive),  # type: ignore[arg-type]
        ).clone(
            rel_url=URL.build(path=scope["path"], query_string=query),
            scheme=scope.get("scheme", "https"),
        )
        found = await mounted.router.resolve(request)
        request._match_info = found  # as Application._handle does, which needs asyncio
        response = await found.handler(request)
        assert isinstance(response, web.Response)
        if response.status == aiohttp_web.HUNG_UP:
            return
        assert isinstance(response.body, bytes)
        headers = {name.lower().encode(): text.encode() for name, text in response.headers.items()}
        headers[b"content-length"] = b"%d" % len(response.body)
        start = {"status": response.status, "headers": list(headers.items())}
        await send({"type": "http.response.start", **start})
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})

    return app


def for_asgi(guard: Any, token: Any) -> Application:
    return admin_app(guard, token=token)


def for_aiohttp(guard: Any, token: Any) -> Application:
    admin_subapp(guard, token=token)
    return as_asgi(lambda: admin_subapp(guard, token=token))


_doors = [for_asgi]


@pytest.fixture(params=[for_asgi, for_aiohttp], ids=["asgi", "aiohttp"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What :func:`make_page` makes the page with."""
    monkeypatch.setattr(sys.modules[__name__], "_doors", [request.param])


def make_page(guard: Any, token: Any = TOKEN) -> Application:
    return _doors[0](guard, token)


def page_of(supervisor: Any, **scope: Any) -> Browser:
    """A browser at the page of a supervisor; nobody has logged in."""
    return Browser(make_page(SimpleNamespace(supervisor=supervisor)), **scope)


async def logged_in(supervisor: Any, **scope: Any) -> Browser:
    browser = page_of(supervisor, **scope)
    assert (await browser.log_in(TOKEN)).status == 303
    return browser
