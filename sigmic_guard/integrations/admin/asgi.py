"""The page as an ASGI application: :func:`admin_app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sigmic_guard.integrations.admin.app import Admin, HasSupervisor, supervisor_of
from sigmic_guard.integrations.admin.requests import HungUp, Request
from sigmic_guard.integrations.standalone import serve_other

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Application, Receive, Scope, Send


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
        find, admin = supervisor_of(guard), Admin(token)
    finally:
        del token  # a traceback that is printed with its locals must not show it

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await serve_other(scope, receive, send)
            return
        request = _request_of(scope, receive)
        try:
            response = await admin.respond(request, find)
        except HungUp:
            return
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        body = b"" if request.method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})

    return app


def _request_of(scope: Scope, receive: Receive) -> Request:
    mount: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    # The path that an application is called with has the mount in it, in most frameworks.
    below = path == mount or path.startswith(mount + "/")
    at_end = False

    async def read() -> bytes | None:
        nonlocal at_end
        if at_end:
            return None
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        at_end = not message.get("more_body")
        piece: bytes = message.get("body", b"")
        return piece

    return Request(
        method=scope["method"],
        mount=mount,
        route=path[len(mount) :] if below else path,
        query=scope.get("query_string", b""),
        headers=scope["headers"],
        secure=scope.get("scheme") == "https",
        http1=scope.get("http_version", "1.1").startswith("1"),
        read=read,
    )
