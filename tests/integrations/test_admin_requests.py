"""What the admin page makes of odd requests: methods, bodies, mounts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard.integrations.admin import requests
from tests.backends import TRIO_VIRTUAL
from tests.integrations.browser import BEARER, TOKEN, ask, door, for_asgi, page_of
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Message


__all__ = ["door"]

pytestmark = pytest.mark.usefixtures("door")
virtual = pytest.mark.backends(TRIO_VIRTUAL)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/task", "/cancel", "/login"])
async def test_other_methods_are_refused(method: str, path: str) -> None:
    async with Lab().open() as supervisor:
        answer = await ask(page_of(supervisor).app, method, path, headers=[BEARER])
        assert answer.status == 405
        assert answer.headers["allow"] in {"GET, HEAD", "POST"}


@pytest.mark.parametrize("method, path", [("POST", "/"), ("GET", "/cancel"), ("HEAD", "/logout")])
async def test_only_a_post_changes_anything_and_only_where_it_is_meant(
    method: str, path: str
) -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        where = f"{path}?task={task.record.intent_id}"
        answer = await ask(page_of(supervisor).app, method, where, headers=[BEARER])
        assert answer.status == 405
        assert lab.deletes() == 0


@pytest.mark.parametrize("path", ["/", "/nothing"])
@pytest.mark.parametrize("headers", [[BEARER], []])
async def test_head_is_get_without_the_body(path: str, headers: list[tuple[str, str]]) -> None:
    async with Lab().open() as supervisor:
        browser = page_of(supervisor)
        got = await ask(browser.app, "GET", path, headers=headers)
        head = await ask(browser.app, "HEAD", path, headers=headers)
        assert head.body == b""
        assert (head.status, head.headers["content-length"]) == (got.status, str(len(got.body)))


def endless(piece: bytes) -> list[Message]:
    return [{"type": "http.request", "body": piece, "more_body": True}] * 50


@pytest.mark.parametrize("path", ["/login", "/cancel"])
async def test_a_body_without_end_is_read_to_its_bound(path: str) -> None:
    async with Lab().open() as supervisor:
        app = page_of(supervisor).app
        messages = endless(b"x" * (requests.MAX_FORM // 10))
        answer = await ask(app, "POST", path, headers=[BEARER], messages=messages)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        fields = "&".join(f"f{i}=" for i in range(requests.MAX_FIELDS + 1)).encode()
        message = {"type": "http.request", "body": fields}
        answer = await ask(app, "POST", path, headers=[BEARER], messages=[message])
        assert answer.status == 400


async def test_without_the_token_a_cancel_s_body_is_not_even_read() -> None:
    async with Lab().open() as supervisor:
        answer = await ask(page_of(supervisor).app, "POST", "/cancel", messages=endless(b"x" * 999))
        assert answer.status == 401


@virtual
async def test_a_body_that_does_not_come_is_waited_for_within_a_bound() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with Lab().open() as supervisor:
        app = page_of(supervisor).app
        scope = {"type": "http", "method": "POST", "path": "/login", "headers": []}
        began = anyio.current_time()
        await app(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        assert anyio.current_time() - began == pytest.approx(requests.FORM_TIMEOUT)
    assert sent[0]["status"] == 408


async def test_who_hangs_up_amid_a_form_is_answered_nothing() -> None:
    async with Lab().open() as supervisor:
        messages: list[Message] = [
            {"type": "http.request", "body": b"token=", "more_body": True},
            {"type": "http.disconnect"},
        ]
        answer = await ask(page_of(supervisor).app, "POST", "/login", messages=messages)
        assert answer.status == 0


@pytest.mark.parametrize(
    "scope, told",
    [
        ({"root_path": "/ops/tasks"}, "Path=/ops/tasks; {}; Secure"),
        ({"root_path": "/ops/", "scheme": "http"}, "Path=/ops; {}"),
        ({}, "Path=/; {}; Secure"),
        ({"root_path": "/a;b"}, "Path=/a%3Bb; {}; Secure"),
    ],
)
async def test_the_cookie_is_of_the_mount_and_no_script_s(scope: dict[str, str], told: str) -> None:
    async with Lab().open() as supervisor:
        answer = await page_of(supervisor, **scope).log_in(TOKEN)
        assert answer.headers["set-cookie"].partition("; ")[2] == told.format(
            "Max-Age=28800; HttpOnly; SameSite=Strict"
        )
        assert TOKEN not in str(answer)


async def test_a_mount_without_its_slash_leads_to_it() -> None:
    async with Lab().open() as supervisor:
        app = page_of(supervisor).app
        answer = await ask(app, "GET", "", root_path="/ops/tasks")
        assert (answer.status, answer.headers["location"]) == (308, "tasks/")
        app = for_asgi(SimpleNamespace(supervisor=supervisor), TOKEN)
        answer = await ask(app, "GET", "", root_path="/ops/live tasks")  # aiohttp finds no such one
        assert (answer.status, answer.headers["location"]) == (308, "live%20tasks/")


async def test_some_frameworks_leave_the_mount_out_of_the_path() -> None:
    async with Lab().open() as supervisor:
        app = for_asgi(SimpleNamespace(supervisor=supervisor), TOKEN)
        answer = await ask(app, "GET", "/", headers=[BEARER], last={"root_path": "/ops"})
        assert answer.status == 200


async def test_it_can_be_served_by_itself() -> None:
    app = for_asgi(SimpleNamespace(supervisor=object()), TOKEN)
    sent: list[str] = []
    phases: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return phases.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
