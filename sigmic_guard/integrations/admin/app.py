"""The application: which request is answered with what, and who may ask."""

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
from sigmic_guard.integrations.admin.requests import HungUp, Refused, Request
from sigmic_guard.integrations.standalone import serve_other
from sigmic_guard.lifecycle.values import shown

if TYPE_CHECKING:
    from sigmic_guard import Supervisor
    from sigmic_guard.integrations.asgi.protocol import Application, Receive, Scope, Send

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


def admin_app(guard: HasSupervisor, *, token: str) -> Application:
    """Return an ASGI application that shows the live tasks of this process, and cancels them.

    ``app.mount("/admin/tasks", admin_app(guard, token=os.environ["ADMIN_TOKEN"]))``. A browser logs
    in with the token, for eight hours; other clients send ``Authorization: Bearer``. It shows ids,
    states, times and errors; no message, no answer and no key. It is to be served by the event loop
    in which the supervisor runs, and over TLS.

    :param guard: whose ``supervisor`` is shown: a ``Guard``, or something else that has one.
    :param token: whoever has it sees and cancels all tasks: at least 16 visible ASCII characters.
    :raises ConfigurationError: the token is too short, or cannot be one; ``guard`` has no
        supervisor.
    """
    try:
        if inspect.getattr_static(guard, "supervisor", None) is None:
            raise ConfigurationError(
                f"guard must have a supervisor, as a Guard does: {shown(guard)} has none"
            )
        access = Access(token)
    finally:
        del token  # a traceback that is printed with its locals must not show it
    admin = _Admin(guard, access)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await serve_other(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await admin.respond(request)
        except HungUp:
            return
        body = b"" if request.method == "HEAD" else response.body
        await send(
            {"type": "http.response.start", "status": response.status, "headers": response.headers}
        )
        await send({"type": "http.response.body", "body": body})

    return app


class _Response(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Admin:
    """The pages over one supervisor."""

    def __init__(self, guard: HasSupervisor, access: Access) -> None:
        self._guard = guard
        self._access = access

    async def respond(self, request: Request) -> _Response:
        """Return what a request is answered with.

        :raises HungUp: with nothing.
        """
        try:
            return await self._respond(request)
        except Refused as refused:
            return _message(request, refused.status, refused.sentence, *refused.headers)
        except (ConfigurationError, SupervisorShutdown) as error:
            # There is no supervisor, or it is another loop's. Only who has logged in comes here.
            headers = (b"retry-after", b"%d" % RETRY_AFTER)
            return _message(request, 503, f"{error}.", headers)

    async def _respond(self, request: Request) -> _Response:
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
            return await self._cancel(session, form)
        return await self._show(request, session)

    def _session_of(self, request: Request) -> str | None:
        """Return the session, an empty one for who presents the token itself; ``None``: neither."""
        if request.bearer is not None:
            return "" if self._access.has_token(request.bearer) else None
        now = time.time()
        return next(filter(lambda it: self._access.is_session(it, now), request.sessions()), None)

    async def _log_in(self, request: Request) -> _Response:
        form = await request.form()
        if not self._access.has_token(form.get("token", "")):
            return _ask_for_token(request, refused=True)
        session = self._access.new_session(time.time())
        return _redirect("./", request.cookie(session, SESSION_SECONDS))

    async def _show(self, request: Request, session: str) -> _Response:
        query = request.query
        supervisor = self._guard.supervisor
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

    async def _cancel(self, session: str, form: dict[str, str]) -> _Response:
        supervisor = self._guard.supervisor
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


def _ask_for_token(request: Request, *, refused: bool) -> _Response:
    challenge = b'Bearer error="invalid_token"' if refused else b"Bearer"
    headers = (b"www-authenticate", challenge)
    return _page(401, "Log in", pages.log_in(request.home, refused=refused), headers)


def _message(
    request: Request, status: int, sentence: str, *headers: tuple[bytes, bytes]
) -> _Response:
    return _page(
        status, _TITLES[status], pages.message(_TITLES[status], sentence, request.home), *headers
    )


def _page(status: int, title: str, body: pages.Html, *headers: tuple[bytes, bytes]) -> _Response:
    nonce = token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    security = (b"content-security-policy", policy.encode())
    return _answer(status, "text/html", pages.page(title, body, nonce), security, *headers)


def _redirect(
    location: str, *headers: tuple[bytes, bytes], status: int = 303, text: str = ""
) -> _Response:
    where = (b"location", location.encode())
    return _answer(status, "text/plain", f"{text}\n".encode(), where, *headers)


def _answer(status: int, kind: str, body: bytes, *headers: tuple[bytes, bytes]) -> _Response:
    always = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]
    return _Response(status, [*always, *headers], body)
