"""A browser in memory, for the admin page: it keeps a cookie, and fills in forms."""

from __future__ import annotations

import re
from html import unescape
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from sigmic_guard.integrations.admin import admin_app

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigmic_guard.integrations.asgi.protocol import Application, Message

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


def page_of(supervisor: Any, **scope: Any) -> Browser:
    """A browser at the page of a supervisor; nobody has logged in."""
    return Browser(admin_app(SimpleNamespace(supervisor=supervisor), token=TOKEN), **scope)


async def logged_in(supervisor: Any, **scope: Any) -> Browser:
    browser = page_of(supervisor, **scope)
    assert (await browser.log_in(TOKEN)).status == 303
    return browser
