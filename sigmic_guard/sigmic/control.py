"""What carries the short calls, of JSON to JSON: the protocol, and what both of its kinds share.

There are two: :mod:`sigmic_guard.sigmic.wire`, and aiohttp
(:class:`~sigmic_guard.sigmic.transport.AiohttpTransport`), which has uploads and streams as well.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.credentials import Credential
    from sigmic_guard.sigmic.responses import Answer

    #: Method, route, status (or "timeout", "connection", "cancelled"), seconds.
    OnRequest = Callable[[str, str, str, float], None]

__all__ = ["USER_AGENT", "ControlTransport", "TransportKind", "tell", "trace_headers"]

#: What the short calls may be carried by.
TransportKind: TypeAlias = Literal["wire", "aiohttp"]

USER_AGENT: Final = "sigmic-guard"

#: ``traceparent`` and ``tracestate`` of the requests that are sent in this context, if they belong
#: to a trace; they go beside the client's own headers.
trace_headers: Final[ContextVar[Mapping[str, str] | None]] = ContextVar(
    "sigmic_guard_trace_headers", default=None
)


class ControlTransport(Protocol):
    """Connections to one API. It belongs to the event loop of its first request."""

    def use(self, credential: Credential) -> None:
        """Send another credential from the next request on."""

    async def call(
        self, method: str, route: str, path: str, *, timeout: float, body: Body | None = None
    ) -> Answer:
        """Send a request, once, and return its answer, whatever its status.

        :param route: the path with placeholders, for ``on_request``.
        :param path: below the base URL, and encoded.
        :param timeout: seconds for all of it.
        :raises ConnectionFailed: no complete answer came. The connection is dropped.
        :raises ProtocolError: what came was not HTTP. The connection is dropped.
        """

    async def aclose(self) -> None:
        """Close every connection, within a second. Calls under way fail; so does any later one."""


def tell(on_request: OnRequest, method: str, route: str, status: str, seconds: float) -> None:
    """Call somebody else's function, which must not decide what becomes of a request."""
    try:
        on_request(method, route, status, seconds)
    except Exception as exc:  # noqa: BLE001 - a user's
        asyncio.get_running_loop().call_exception_handler(
            {"message": "on_request raised", "exception": exc}
        )
