"""Who may use the admin page, and what nobody else can do there."""

from __future__ import annotations

import re
import traceback
from types import SimpleNamespace
from typing import Any

import pytest

from sigmic_guard import ConfigurationError, State
from sigmic_guard.integrations.admin import access, app, requests
from tests.backends import TRIO_VIRTUAL
from tests.integrations.browser import BEARER, HOST, TOKEN, door, logged_in, make_page, page_of
from tests.supervisor.lab import Lab

__all__ = ["door"]

pytestmark = pytest.mark.usefixtures("door")
virtual = pytest.mark.backends(TRIO_VIRTUAL)


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
        make_page(SimpleNamespace(supervisor=object()), token)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if "sigmic_guard/" in frame.filename]
    assert ours
    assert not token or not [f for f in ours if token in str((f.locals or {}).values())]


def test_a_guard_without_a_supervisor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'guard' has none"):
        make_page("guard")


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
    monkeypatch.setattr(app.Admin, "_notice", lambda *_: None)
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        browser = await logged_in(supervisor)
        assert (await browser.post("/cancel", task=task.record.intent_id)).status == 303
        assert lab.deletes() == 1


@virtual
async def test_without_the_look_at_the_origin_another_site_s_form_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control."""
    monkeypatch.setattr(requests.Request, "cross_site", False)
    async with Lab().open() as supervisor:
        browser = page_of(supervisor)
        evil = ("origin", "https://evil.example")
        assert (await browser.post("/login", evil, token=TOKEN)).status == 303
