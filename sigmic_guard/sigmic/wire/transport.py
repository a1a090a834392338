"""One call, from its arguments to its answer.

Failures come up as results, and are raised here, outside of any ``except``: so that no traceback,
printed with its locals, shows a request. A cancellation passes with its traceback cut off here.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from time import perf_counter
from typing import TYPE_CHECKING

from sigmic_guard.sigmic import failures
from sigmic_guard.sigmic.control import tell
from sigmic_guard.sigmic.responses import Answer
from sigmic_guard.sigmic.wire.connection import Connection
from sigmic_guard.sigmic.wire.deadlines import End
from sigmic_guard.sigmic.wire.pool import Pool
from sigmic_guard.sigmic.wire.writing import RequestWriter

if TYPE_CHECKING:
    from sigmic_guard.errors import SigmicGuardError
    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.control import OnRequest
    from sigmic_guard.sigmic.credentials import Credential

__all__ = ["WireTransport"]


class WireTransport:
    """See :class:`~sigmic_guard.sigmic.control.ControlTransport`.

    :param base_url: where the API is, without a trailing slash.
    :param credential: ``None`` until :meth:`use` is called.
    :param connections: how many there may be at once; 0 for no limit. Further calls wait, within
        their time-outs, and in their order.
    :param on_request: called with method, route, status and seconds after each call.
    """

    def __init__(
        self,
        base_url: str,
        credential: Credential | None,
        *,
        connections: int,
        on_request: OnRequest | None = None,
    ) -> None:
        self._base_url = base_url
        self._connections = connections
        self._on_request = on_request
        self._requests = RequestWriter(base_url, credential)
        self._pool: Pool | None = None
        self._context = copy_context()
        self.closed = False

    def use(self, credential: Credential) -> None:
        """Send another credential from the next request on."""
        self._requests.use(credential)

    async def call(
        self, method: str, route: str, path: str, *, timeout: float, body: Body | None = None
    ) -> Answer:
        """Send a request, once, and return its answer. See :class:`ControlTransport`."""
        if self.closed:
            raise failures.closed()
        outcome = "cancelled"
        started = perf_counter() if self._on_request else 0.0
        try:
            result = await self._exchange(method, path, timeout, body)
            if type(result) is Answer:
                outcome = str(result.status)
                return result
            assert not isinstance(result, Answer)
            timed_out = getattr(result, "timed_out", False)
            outcome = "timeout" if timed_out else "connection"
        except asyncio.CancelledError as exc:
            # Unchanged, but for the frames below: they hold the request.
            raise exc.with_traceback(None)  # noqa: B904
        finally:
            if self._on_request:
                tell(self._on_request, method, route, outcome, perf_counter() - started)
        try:
            raise result
        finally:
            del result  # or its own traceback would hold it, and only the collector free it

    async def _exchange(
        self, method: str, path: str, timeout: float, body: Body | None
    ) -> Answer | SigmicGuardError:
        """Return the answer, or what is to be raised in its place."""
        pool = self._pool
        if pool is None:
            pool = self._pool = Pool(self._base_url, self._connections, self._context)
        elif pool.loop is not asyncio.get_running_loop():
            raise failures.another_loop()
        until = pool.loop.time() + timeout
        if not pool.enter():
            end = await pool.wait(until)
            if end is not None:
                return _failure(end, timeout, sent=False)
        connection = None
        try:
            connection = pool.draw()
            if connection is None:
                made = await pool.dial(until)
                if isinstance(made, End):
                    return _failure(made, timeout, sent=False)
                if not isinstance(made, Connection):
                    return made
                connection = made
            if not connection.open:
                if self.closed:
                    return failures.closed_under_way(sent=False)
                return failures.hung_up(pool.where)
            answer = connection.send(self._requests.write(method, path, body))
            pool.deadlines.add(answer, until)
            try:
                end = await answer
            finally:
                pool.deadlines.discard(answer, until)
            return connection.take() if end is None else _failure(end, timeout, sent=True)
        finally:
            pool.leave(connection)

    async def aclose(self) -> None:
        """Close every connection, within a second. Calls under way fail; so does any later one."""
        self.closed = True
        if self._pool is not None:
            await self._pool.aclose()


def _failure(end: End, timeout: float, *, sent: bool) -> SigmicGuardError:
    """Return what it means that a call did not wait any longer."""
    if end is End.CLOSED:
        return failures.closed_under_way(sent=sent)
    return failures.too_slow(timeout, sent=sent)
