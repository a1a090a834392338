"""The pages: which request is answered with what, and who may ask.

Nothing here knows what a request came over; :mod:`.asgi` and :mod:`.aiohttp_web` do.
"""

from __future__ import annotations

import inspect
import time
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from anyio import move_on_after

from sigmic_guard import ConfigurationError, State, SupervisorShutdown
from sigmic_guard.integrations.admin import pages
from sigmic_guard.integrations.admin.access import SESSION_SECONDS, Access
from sigmic_guard.integrations.admin.listing import list_tasks
from sigmic_guard.integrations.admin.requests import Refused
from sigmic_guard.lifecycle.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard import Supervisor
    from sigmic_guard.integrations.admin.requests import Request

#: Seconds that a request waits for what comes of a cancel.
CANCEL_SECONDS: Final = 1.0
#: Seconds after which one may ask again, where the supervisor does not run.
RETRY_AFTER: Final = 2

_READS: Final = ("GET", "HEAD")
_ROUTES: Final = {
    "/": _READS,
    "/task": _READS,
    "/cancel": ("POST",),
    "/login": ("POST",),
    "/logout": ("POST",),
}
_TITLES: Final = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    413: "Too large",
    503: "The supervisor is not running",
}


class HasSupervisor(Protocol):
    """A :class:`~sigmic_guard.integrations.asgi.Guard`, or anything with a supervisor."""

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor, as long as it runs."""


def supervisor_of(guard: HasSupervisor) -> Callable[[], Supervisor]:
    """Return what finds the supervisor of a guard.

    :raises ConfigurationError: it has none.
    """
    if inspect.getattr_static(guard, "supervisor", None) is None:
        raise ConfigurationError(
            f"guard must have a supervisor, as a Guard does: {shown(guard)} has none"
        )
    return lambda: guard.supervisor


class Response(NamedTuple):
    """An answer. The length of its body is for whoever sends it to say."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Admin:
    """The pages over one supervisor.

    :param token: whoever has it sees and cancels all tasks.
    :raises ConfigurationError: the token is too short, or cannot be one.
    """

    def __init__(self, token: str) -> None:
        try:
            self._access = Access(token)
        finally:
            del token  # a traceback that is printed with its locals must not show it

    async def respond(self, request: Request, find: Callable[[], Supervisor]) -> Response:
        """Return what a request is answered with.

        :param find: returns the supervisor; only called for who has the token.
        :raises HungUp: with nothing.
        """
        try:
            return await self._respond(request, find)
        except Refused as refused:
            return _message(request, refused.status, refused.sentence, *refused.headers)
        except (ConfigurationError, SupervisorShutdown) as error:
            # There is no supervisor, or it is another loop's. Only who has logged in comes here.
            headers = (b"retry-after", b"%d" % RETRY_AFTER)
            return _message(request, 503, f"{error}.", headers)

    async def _respond(self, request: Request, find: Callable[[], Supervisor]) -> Response:
        if not request.route:  # else the links of the page would lead beside it
            return _redirect(quote(request.mount.rpartition("/")[2]) + "/", status=308)
        methods = _ROUTES.get(request.route)
        if methods is not None and request.method not in methods:
            allowed = ", ".join(methods)
            headers = (b"allow", allowed.encode())
            raise Refused(405, f"Here one may use {allowed} only.", headers)
        if request.method == "POST" and request.cross_site:
            raise Refused(403, "The form was sent by a page of another site.")
        if request.route == "/login":
            return await self._log_in(request)
        session = self._session_of(request)
        if session is None:
            return _ask_for_token(request, refused=request.bearer is not None)
        if methods is None:
            raise Refused(404, "There is no such page.")
        if request.method == "POST":
            form = await request.form()
            csrf = form.get("csrf", "")
            if request.bearer is None and not self._access.is_signed(csrf, "csrf", session):
                raise Refused(403, "The form is not of this session. Load its page again.")
            if request.route == "/logout":
                return _redirect("./", request.cookie("", 0))
            return await self._cancel(find(), session, form)
        return await self._show(find(), request, session)

    def _session_of(self, request: Request) -> str | None:
        """Return the session, an empty one for who presents the token itself; ``None``: neither."""
        if request.bearer is not None:
            return "" if self._access.has_token(request.bearer) else None
        now = time.time()
        return next(filter(lambda it: self._access.is_session(it, now), request.sessions()), None)

    async def _log_in(self, request: Request) -> Response:
        form = await request.form()
        if not self._access.has_token(form.get("token", "")):
            return _ask_for_token(request, refused=True)
        session = self._access.new_session(time.time())
        return _redirect("./", request.cookie(session, SESSION_SECONDS))

    async def _show(self, supervisor: Supervisor, request: Request, session: str) -> Response:
        query = request.query
        snapshot = supervisor.snapshot()
        view = pages.View(
            csrf=self._access.sign("csrf", session),
            notice=self._notice(session, query),
            draining=supervisor.draining,
        )
        if request.route == "/":
            listing = await list_tasks(snapshot, *_where(query))
            return _page(200, "Live tasks", pages.task_list(listing, view))
        task = supervisor.find(query.get("task", ""))
        if task is None:
            raise Refused(404, "It is no live task of this process: it has ended, or is another's.")
        return _page(200, "Task", pages.task_page(task, snapshot.taken_at, view))

    async def _cancel(self, supervisor: Supervisor, session: str, form: dict[str, str]) -> Response:
        task = supervisor.find(form.get("task", ""))
        if supervisor.draining:
            result = "draining"
        elif task is None:
            result = "gone"
        else:
            result = "unconfirmed"
            with move_on_after(CANCEL_SECONDS):
                result = str((await task.cancel()).result)
            if task.state is State.NEVER_CREATED:
                result = "withdrawn"
        name = "" if task is None else pages.name_of(task.record.remote_id)
        state, page = _where(form)
        told = {
            "result": result,
            "task": name,
            "signature": self._access.sign("notice", session, result, name),
            "state": state or "",
            "page": page,
        }
        return _redirect("./?" + urlencode(told), text=pages.notice(result, name))

    def _notice(self, session: str, query: dict[str, str]) -> str | None:
        """Return what came of a cancel, where it was this session's: a link may claim anything."""
        result, name = query.get("result", ""), query.get("task", "")
        signature = query.get("signature", "")
        signed = self._access.is_signed(signature, "notice", session, result, name)
        return pages.notice(result, name) if signed else None


def _where(fields: dict[str, str]) -> tuple[State | None, int]:
    """Return which tasks are listed, and which page of them."""
    state, page = fields.get("state", ""), fields.get("page", "")
    known = state in State._value2member_map_
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 9 else 1
    return State(state) if known else None, max(1, number)


def _ask_for_token(request: Request, *, refused: bool) -> Response:
    challenge = b'Bearer error="invalid_token"' if refused else b"Bearer"
    headers = (b"www-authenticate", challenge)
    return _page(401, "Log in", pages.log_in(request.home, refused=refused), headers)


def _message(
    request: Request, status: int, sentence: str, *headers: tuple[bytes, bytes]
) -> Response:
    return _page(
        status, _TITLES[status], pages.message(_TITLES[status], sentence, request.home), *headers
    )


def _page(status: int, title: str, body: pages.Html, *headers: tuple[bytes, bytes]) -> Response:
    nonce = token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    security = (b"content-security-policy", policy.encode())
    return _answer(status, "text/html", pages.page(title, body, nonce), security, *headers)


def _redirect(
    location: str, *headers: tuple[bytes, bytes], status: int = 303, text: str = ""
) -> Response:
    where = (b"location", location.encode())
    return _answer(status, "text/plain", f"{text}\n".encode(), where, *headers)


def _answer(status: int, kind: str, body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    always = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]
    return Response(status, [*always, *headers], body)
