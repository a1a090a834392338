"""The admin page: what it shows and does, to whom, and to nobody else."""

from __future__ import annotations

import re
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from sigmic_guard import ConfigurationError, State, TaskCancelled
from sigmic_guard.integrations.admin import access, admin_app, app, pages, requests
from sigmic_guard.integrations.admin.listing import PAGE
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.testing import HANG, FakeSigmic
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.integrations.browser import HOST, Answer, Browser, ask
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Message

virtual = pytest.mark.backends(TRIO_VIRTUAL)

TOKEN = "correct-horse-battery-staple"
BEARER = ("authorization", f"Bearer {TOKEN}")
#: What a page must not hold as it stands, wherever it came from.
HOSTILE = "\"'><script>alert(1)</script>&lt;"


def page_of(supervisor: Any, **scope: Any) -> Browser:
    """A browser at the page of a supervisor; nobody has logged in."""
    return Browser(admin_app(SimpleNamespace(supervisor=supervisor), token=TOKEN), **scope)


async def logged_in(supervisor: Any, **scope: Any) -> Browser:
    browser = page_of(supervisor, **scope)
    assert (await browser.log_in(TOKEN)).status == 303
    return browser


# --- what it shows, and does ----------------------------------------------------------------------


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_a_task_is_listed_and_explained_and_cancelled() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("the message", timeout=100, key="the-key")
        browser = await logged_in(supervisor)
        listed = await browser.get()
        assert listed.status == 200
        assert {task.id, "running", "in 1m"} <= set(re.findall(r"in 1m|[\w-]+", listed.text))
        assert f"Cancel task {task.id}" in listed.html

        one = await browser.get("/task?task=" + task.record.intent_id)
        assert one.status == 200
        assert "it exists, and costs money" in one.text
        assert "the create went out to" in one.text
        for shown in (listed, one):
            assert "the message" not in shown.html
            assert "the-key" not in shown.html

        done = await browser.post("/cancel", **listed.fields("cancel"))
        after = await browser.follow(done)
        assert f"Task {task.id}: cancelled; the API has acknowledged it." in after.text
        assert "There are no tasks here." in after.text
        assert (await browser.get("/task?task=" + task.record.intent_id)).status == 404
    assert lab.finished == {("cancelled", "user"): 1}


@virtual
async def test_a_block_whose_task_is_cancelled_here_learns_why() -> None:
    async with Lab().open() as supervisor:
        browser = await logged_in(supervisor)
        with pytest.raises(TaskCancelled) as caught:
            async with supervisor.task("m"):
                fields = (await browser.get()).fields("cancel")
                await browser.post("/cancel", **fields)
                await anyio.sleep(1)
        assert caught.value.reason == "user"


@virtual
async def test_a_cancel_without_an_answer_is_waited_for_a_second_and_says_so() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        lab.fake.on("delete", HANG)
        await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        began = anyio.current_time()
        done = await browser.post("/cancel", **fields)
        assert anyio.current_time() - began == pytest.approx(app.CANCEL_SECONDS)
        after = await browser.follow(done)
        assert "no proof of its end yet" in after.text
        assert 'action="cancel"' not in after.html  # it is under way


@virtual
async def test_a_task_that_waits_for_capacity_can_be_cancelled() -> None:
    lab = Lab()

    async def waits() -> None:
        with pytest.raises(TaskCancelled):
            await supervisor.start("waits")

    async with lab.open(max_tasks=1) as supervisor, anyio.create_task_group() as group:
        await supervisor.start("m")
        group.start_soon(waits)
        await anyio.sleep(1)
        browser = await logged_in(supervisor)
        fields = (await browser.get("/?state=intent")).fields("cancel")
        after = await browser.follow(await browser.post("/cancel", **fields))
        assert "it was never created" in after.text
    assert lab.fake.count("create") == 1


@virtual
async def test_a_task_that_ended_meanwhile_is_said_to_have() -> None:
    lab = Lab(duration=1)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        await task.wait()
        after = await browser.follow(await browser.post("/cancel", **fields))
        assert "It is not live in this process any more; nothing was done." in after.text
        assert lab.deletes() == 0


@virtual
async def test_what_came_of_a_cancel_is_believed_of_this_session_only() -> None:
    """A link cannot make the page claim something."""
    async with Lab().open() as supervisor:
        await supervisor.start("m")
        browser, other = await logged_in(supervisor), await logged_in(supervisor)
        done = await browser.post("/cancel", **(await browser.get()).fields("cancel"))
        assert "autofocus>Task" in (await browser.follow(done)).html
        assert 'role="status"' not in (await other.follow(done)).html
        forged = done.headers["location"][1:].replace("acknowledged", "confirmed")
        assert 'role="status"' not in (await browser.get(forged)).html


@virtual
async def test_many_tasks_are_counted_first_and_shown_by_pages() -> None:
    lab = Lab()
    lab.fake.always("list", HANG)
    count = 2 * PAGE + 30
    async with lab.open() as supervisor:
        tasks = [await supervisor.start("m") for _ in range(count)]
        lab.fake.on("delete", *[HANG] * 3)
        for task in tasks[:3]:
            task.request_cancel()
        await anyio.sleep(0.1)
        browser = await logged_in(supervisor)
        first = await browser.get()
        assert f"all {count}" in first.text
        assert f"running {count - 3}" in first.text
        assert "cancelling 3" in first.text
        assert first.html.count("<tr>") == 1 + PAGE
        assert "Previous" not in first.html
        last = await browser.get("/?page=3")
        assert f"201 to {count} of {count} tasks" in last.text
        assert last.html.count("<tr>") == 1 + 30
        assert "Next" not in last.html
        few = await browser.get("/?state=cancelling")
        assert few.html.count("<tr>") == 1 + 3
        assert "1 to 3 of 3 tasks that are cancelling" in few.text
        beyond = await browser.get("/?page=99999999")
        assert "page=3" in beyond.html
        for odd in ("page=-1", "page=x", "page=0", "page=%C2%B2", "state=none", "page=" + "9" * 99):
            assert "1 to 100" in (await browser.get("/?" + odd)).text


@virtual
async def test_after_a_cancel_one_is_where_one_was() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        for _ in range(PAGE + 2):
            await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get("/?state=running&page=2")).fields("cancel")
        after = await browser.follow(await browser.post("/cancel", **fields))
        assert "101 to 101 of 101 tasks that are running" in after.text


# --- where there is no supervisor -----------------------------------------------------------------


async def test_a_supervisor_that_is_not_open_is_said_to_be_none() -> None:
    lab = Lab()
    never = await logged_in(lab.make())
    guard = Browser(admin_app(Guard(client=lab.fake, ledger="memory:"), token=TOKEN))
    await guard.log_in(TOKEN)
    for browser in (never, guard):
        for path in ("/", "/task?task=i"):
            answer = await browser.get(path)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "2"
            assert "The supervisor is not running" in answer.text
    assert (await page_of(lab.make()).get()).status == 401  # and only who may know is told


@virtual
async def test_while_it_drains_the_page_says_so_and_has_no_buttons() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        lab.fake.on("delete", HANG)
        await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.shutdown)
            await anyio.sleep(0.1)
            page = await browser.get()
            assert "The supervisor is shutting down" in page.text
            assert 'action="cancel"' not in page.html
            after = await browser.follow(await browser.post("/cancel", **fields))
            assert "nothing was done; the supervisor is shutting down" in after.text
    assert {reason for _, reason in lab.finished} == {"shutdown"}


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token, why",
    [
        ("", "at least 16 characters, and has 0"),
        ("fifteen-letters", "at least 16 characters, and has 15"),
        ("sixteen letters!", "visible ASCII"),
        ("sixteen-lettërs!", "visible ASCII"),
        (None, "must be a string"),
    ],
)
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(token: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        admin_app(SimpleNamespace(supervisor=object()), token=token)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if "sigmic_guard/" in frame.filename]
    assert ours
    assert not token or not [f for f in ours if token in str((f.locals or {}).values())]


def test_a_guard_without_a_supervisor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'guard' has none"):
        admin_app("guard", token=TOKEN)  # type: ignore[arg-type]


PATHS = ["/", "/task?task=i", "/nothing", "/../secret", "/%2e%2e/", "//", "/task/", "/login/x"]


@pytest.mark.parametrize("path", PATHS)
async def test_without_the_token_there_is_only_the_form_for_it(path: str) -> None:
    async with Lab().open() as supervisor:
        task = await supervisor.start("m")
        answer = await page_of(supervisor).get(path)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert '<label for="token">' in answer.html
        assert task.id not in answer.html


@pytest.mark.parametrize("path", ["/nothing", "/../secret", "/../", "//", "/task/", "/login/x"])
async def test_there_are_no_other_pages_and_each_leads_home(path: str) -> None:
    async with Lab().open() as supervisor:
        browser = await logged_in(supervisor, root_path="/admin")
        answer = await browser.get(path)
        assert answer.status == 404
        [link] = re.findall(r'href="([^"]*)"', answer.html)
        assert link == ("../" * (path.count("/") - 1) or "./")
        form = await page_of(supervisor, root_path="/admin").get(path)
        assert f'action="{link}login"' in form.html


GUESSES = [
    "",
    TOKEN[:-1],
    TOKEN + "x",
    TOKEN.upper(),
    TOKEN + "\x00",
    " " + TOKEN + "é",
    "x" * 3000,
    "\udce9",
]


@pytest.mark.parametrize("guess", GUESSES)
async def test_a_guess_is_refused(guess: str) -> None:
    async with Lab().open() as supervisor:
        browser = page_of(supervisor)
        answer = await browser.post("/login", token=guess.encode("utf-8", "replace").decode())
        assert answer.status == 401
        assert "That is not the token." in answer.text
        assert "set-cookie" not in answer.headers
        header = guess.encode("latin-1", "replace").decode("latin-1")
        answer = await browser.get("/", ("authorization", f"Bearer {header}"))
        assert answer.status == 401
        assert "invalid_token" in answer.headers["www-authenticate"]


async def test_a_cookie_that_we_did_not_make_is_none() -> None:
    async with Lab().open() as supervisor:
        browser = await logged_in(supervisor)
        assert browser.cookie is not None
        name, _, session = browser.cookie.partition("=")
        end, middle, signature = session.split(".")
        for forged in (
            "",
            "..",
            f"{int(end) + 1}.{middle}.{signature}",
            f"{end}.{middle}x.{signature}",
            f"{end}.{middle}.{signature[:-1]}",
            f"{end}.{middle}.",
            f"x.{middle}.{signature}",
            "9" * 5000 + ".x.y",
        ):
            browser.cookie = f"{name}={forged}"
            assert (await browser.get()).status == 401
        browser.cookie = f"{name}=forged; {name}={session}"  # a neighbour's beside it
        assert (await browser.get()).status == 200


def test_a_session_ends_and_another_token_ends_it() -> None:
    ours = access.Access(TOKEN)
    session = ours.new_session(1000.0)
    assert ours.is_session(session, 1000.0 + access.SESSION_SECONDS - 1)
    assert not ours.is_session(session, 1000.0 + access.SESSION_SECONDS)
    assert access.Access(TOKEN).is_session(session, 1000.0)  # another worker process
    assert not access.Access(TOKEN + "2").is_session(session, 1000.0)
    assert ours.sign("a", "bc") != ours.sign("ab", "c")


async def test_whoever_logs_out_is_out() -> None:
    async with Lab().open() as supervisor:
        browser = await logged_in(supervisor)
        answer = await browser.post("/logout", **(await browser.get()).fields("logout"))
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await browser.get()).status == 401


@virtual
async def test_curl_needs_the_token_and_nothing_else() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        curl = page_of(supervisor)
        assert task.id in (await curl.get("/", BEARER)).text
        intent_id = task.record.intent_id
        answer = await curl.post("/cancel", ("authorization", f"bearer {TOKEN}"), task=intent_id)
        assert answer.status == 303
        assert "the API has acknowledged it" in answer.html
        assert curl.cookie is None
    assert lab.finished == {("cancelled", "user"): 1}


async def test_a_proxy_s_own_log_in_stands_beside_ours() -> None:
    async with Lab().open() as supervisor:
        browser = await logged_in(supervisor)
        assert (await browser.get("/", ("authorization", "Basic b3BzOm9wcw=="))).status == 200


# --- other people's pages -------------------------------------------------------------------------


@virtual
async def test_a_form_without_the_session_s_own_signature_changes_nothing() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        browser, other = await logged_in(supervisor), await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        theirs = (await other.get()).fields("cancel")["csrf"]
        of_bearer = (await page_of(supervisor).get("/", BEARER)).fields("cancel")["csrf"]
        for csrf in ("", "x", theirs, of_bearer, fields["csrf"][:-1], fields["csrf"] + "é"):
            answer = await browser.post("/cancel", **{**fields, "csrf": csrf})
            assert answer.status == 403
        assert (await browser.post("/logout", csrf=theirs)).status == 403
        assert (await browser.post("/cancel", task=task.record.intent_id)).status == 403
        assert task.state is State.RUNNING
        assert lab.deletes() == 0


ORIGINS = [
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site")],
    [("sec-fetch-site", "cross-site"), ("origin", f"https://{HOST}")],
    [("origin", "https://evil.example")],
    [("origin", f"https://{HOST}.evil.example")],
    [("origin", f"https://{HOST}:8443")],
    [("origin", "")],
]


@virtual
@pytest.mark.parametrize("headers", ORIGINS)
async def test_a_form_of_another_site_changes_nothing(headers: list[tuple[str, str]]) -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        assert (await browser.post("/cancel", *headers, **fields)).status == 403
        assert (await browser.post("/login", *headers, token=TOKEN)).status == 403
        assert lab.deletes() == 0


@virtual
@pytest.mark.parametrize(
    "headers",
    [
        [("sec-fetch-site", "same-origin"), ("origin", "null")],
        [("origin", f"https://{HOST}")],
        [("origin", f"http://{HOST.upper()}")],  # behind a proxy that speaks TLS
        [("origin", "null")],  # an older browser, at a page without referrer
    ],
)
async def test_a_form_of_ours_is_taken(headers: list[tuple[str, str]]) -> None:
    async with Lab().open() as supervisor:
        await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        assert (await browser.post("/cancel", *headers, **fields)).status == 303


@virtual
async def test_without_the_signature_s_check_a_forged_form_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: nothing else stands between such a form and the task."""
    monkeypatch.setattr(access.Access, "is_signed", lambda *_: True)
    monkeypatch.setattr(app._Admin, "_notice", lambda *_: None)
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        browser = await logged_in(supervisor)
        assert (await browser.post("/cancel", task=task.record.intent_id)).status == 303
        assert lab.deletes() == 1


# --- hostile texts --------------------------------------------------------------------------------


async def hostile_pages() -> list[Answer]:
    """Every page, where ids, statuses and errors are somebody's who means harm."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        entry = task._entry
        record = entry.record
        fields = {
            "remote_id": HOSTILE,
            "last_error": HOSTILE + "\u202e" + "long" * 1000,
            "remote_status": HOSTILE,
            "namespace": HOSTILE,
            "base_url": HOSTILE,
        }
        changed = type(record)(
            **{name: getattr(record, name) for name in record.__struct_fields__} | fields
        )
        browser = await logged_in(supervisor)
        entry.record = changed
        try:
            answers = [
                await browser.get(),
                await browser.get("/task?task=" + record.intent_id),
                await browser.get("/task?task=" + HOSTILE.replace("&", "%26")),
                await browser.get("/?state=" + HOSTILE.replace("&", "%26")),
                await browser.get("/" + HOSTILE),
            ]
        finally:
            entry.record = record
    return answers


async def test_hostile_texts_are_shown_as_what_they_are() -> None:
    answers = await hostile_pages()
    assert [answer.status for answer in answers] == [200, 200, 404, 200, 404]
    for answer in answers:
        assert "<script" not in answer.html
        assert "\u202e" not in answer.html
        assert len(answer.body) < 20_000
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answers[0].html
    assert answers[1].html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


async def test_without_escaping_a_hostile_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    monkeypatch.setattr(pages, "escape", lambda text: text)
    assert any("<script" in answer.html for answer in await hostile_pages())


@pytest.mark.parametrize("path", ["/", "/task?task={}", "/nothing", "/cancel"])
async def test_a_page_brings_nothing_from_elsewhere_and_is_kept_nowhere(path: str) -> None:
    async with Lab().open() as supervisor:
        task = await supervisor.start("m")
        path = path.format(task.record.intent_id)
        in_, out = await logged_in(supervisor), page_of(supervisor)
        nonces = set()
        for answer in [await in_.get(path), await out.get(path)]:
            headers = answer.headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-type"] == "text/html; charset=utf-8"
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "form-action 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            [nonce] = re.findall(r"style-src 'nonce-([\w-]+)'", policy)
            assert f'<style nonce="{nonce}">' in answer.html
            nonces.add(nonce)
            brought = r'<script|<link|<img|="https?:|url\(|@import|\son\w+=| style='
            assert not re.findall(brought, answer.html)
        assert len(nonces) == 2


# --- methods, bodies, mounts ----------------------------------------------------------------------


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
        answer = await ask(app, "GET", "", root_path="/ops/live tasks")
        assert (answer.status, answer.headers["location"]) == (308, "live%20tasks/")
        # Some frameworks leave the mount out of the path.
        answer = await ask(app, "GET", "/", headers=[BEARER], last={"root_path": "/ops"})
        assert answer.status == 200


async def test_it_can_be_served_by_itself() -> None:
    app = page_of(object()).app
    sent: list[str] = []
    phases: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return phases.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_mounted_in_fastapi_beside_the_guard_s_own_requests() -> None:
    """As people write it: a redirect to the mount, a log-in, a cancel, and nothing left."""
    fake = FakeSigmic()
    guard = Guard(client=fake, ledger="memory:", registry=CollectorRegistry())
    service = FastAPI(lifespan=guard.lifespan)
    service.mount("/admin", admin_app(guard, token=TOKEN))
    guard.install(service)

    @service.get("/start")
    async def start() -> str:
        return (await guard.supervisor.start("m")).id

    with TestClient(service, base_url="https://testserver") as client:
        task_id = client.get("/start").json()
        assert client.get("/admin").status_code == 401  # at the form, past the redirect
        page = client.post("/admin/login", data={"token": TOKEN})
        assert page.url.path == "/admin/"
        assert task_id in page.text
        fields = Answer(200, {}, page.content).fields("cancel")
        page = client.post("/admin/cancel", data=fields)
        assert "the API has acknowledged it" in page.text
        assert not fake.live
