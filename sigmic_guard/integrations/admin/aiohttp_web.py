"""The page as a sub-application of aiohttp.web: :func:`admin_subapp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from aiohttp import web

from sigmic_guard.integrations.admin.app import Admin, HasSupervisor, supervisor_of
from sigmic_guard.integrations.admin.requests import HungUp, Request
from sigmic_guard.integrations.aiohttp_web import HUNG_UP, tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard import Supervisor
    from sigmic_guard.integrations.admin.app import Response

_ROUTE: Final = "/{route:.*}"


def admin_subapp(guard: HasSupervisor | None = None, *, token: str) -> web.Application:
    """Return an application that shows the live tasks of this process, and cancels them.

    ``app.add_subapp("/admin/tasks", admin_subapp(token=os.environ["ADMIN_TOKEN"]))``. It is the
    page of :func:`admin_app`, by the same rules.

    :param guard: whose ``supervisor`` is shown. Default: that of ``aiohttp_web.setup``, of an
        application around this one.
    :param token: whoever has it sees and cancels all tasks: at least 16 visible ASCII characters.
    :raises ConfigurationError: the token is too short, or cannot be one; ``guard`` has no
        supervisor.
    """
    try:
        find = None if guard is None else supervisor_of(guard)
        admin = Admin(token)
    finally:
        del token  # a traceback that is printed with its locals must not show it

    async def serve(request: web.Request) -> web.Response:
        try:
            response = await admin.respond(_request_of(request), find or _finder(request))
        except HungUp:
            return web.Response(status=HUNG_UP)
        return _written(response)

    app = web.Application()
    app.router.add_route("*", "", serve)  # the mount without its slash
    app.router.add_route("*", _ROUTE, serve)
    return app


def _finder(request: web.Request) -> Callable[[], Supervisor]:
    return lambda: tasks_of(request).supervisor


def _request_of(request: web.Request) -> Request:
    async def read() -> bytes | None:
        try:
            return await request.content.readany() or None
        except (OSError, web.RequestPayloadError):
            raise HungUp from None

    resource = request.match_info.route.resource
    assert resource is not None
    mount = unquote(resource.canonical.removesuffix("/{route}")).rstrip("/")
    known = request.match_info.get("route", "")
    # Without a mount aiohttp makes "/" of the first of the two routes.
    at_mount = "route" not in request.match_info and mount
    return Request(
        method=request.method,
        mount=mount,
        route="" if at_mount else f"/{known}",
        query=request.rel_url.raw_query_string.encode("utf-8", "surrogateescape"),
        headers=[(name.lower(), value) for name, value in request.raw_headers],
        secure=request.secure,
        http1=True,
        read=read,
    )


def _written(response: Response) -> web.Response:
    headers = [(name.decode(), value.decode("latin-1")) for name, value in response.headers]
    written = web.Response(status=response.status, headers=dict(headers), body=response.body)
    if ("connection", "close") in headers:
        written.force_close()
    return written
