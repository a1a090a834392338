"""One supervisor from its entering to its end: what is opened, how it goes down, what is closed.

The drain begins with the first of these: the block is left, somebody asks for it, a signal comes, a
worker meets a bug. It is carried out by a worker. Who leaves the block waits for it, and for all
that is closed after it, whatever hits him meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Literal

from anyio import CancelScope, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import ConfigurationError, SupervisorShutdown, TaskCancelled
from sigmic_guard.lifecycle import CancelReason
from sigmic_guard.observe import WorkerFailed
from sigmic_guard.supervisor.face.core import Core
from sigmic_guard.supervisor.face.draining import CLOSING_SECONDS, LAST_WRITES, Drain
from sigmic_guard.supervisor.face.host import Host
from sigmic_guard.supervisor.face.signals import SignalHandlers
from sigmic_guard.supervisor.ground.inbox import Inbox
from sigmic_guard.supervisor.ground.lifetime import Phase
from sigmic_guard.supervisor.ground.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.observe import Observers
    from sigmic_guard.sigmic import SigmicClient, TaskApi
    from sigmic_guard.sigmic.keyring import Keyring
    from sigmic_guard.supervisor.face.watchdog import Watchdog
    from sigmic_guard.supervisor.ground.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Parts:
    """What a supervisor was given, or has made for itself; nothing of it is open yet."""

    settings: Settings
    observer: Observers
    api: TaskApi
    ledger: Ledger
    #: Those of the client that we have made, and therefore close.
    keyring: Keyring | None
    own_client: SigmicClient | None
    watchdog: Watchdog | None


class Session:
    """Opens one supervisor, ends it, and closes it. It is entered once.

    :param signals: as of :class:`~sigmic_guard.Supervisor`.
    """

    def __init__(self, parts: Parts, *, signals: bool | Literal["auto"]) -> None:
        self.parts = parts
        #: From its opening on.
        self.core: Core | None = None
        self.inbox: Inbox | None = None
        self.drain: Drain | None = None
        self.workers: Workers
        self._group: TaskGroup
        self._host: Host
        self._handlers = (
            SignalHandlers(self._signalled, yielding=signals == "auto") if signals else None
        )
        #: The first of those that took it down.
        self._bug: Exception | None = None
        #: What is to be called as the drain begins, in the order in which it was left.
        self._on_drain: dict[int, Callable[[], object]] = {}
        self._numbers = count()

    # --- the beginning --------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the ledger, and start the watchdog and the workers.

        :raises LedgerError: the ledger cannot be opened.
        :raises ConfigurationError: the watchdog cannot be started; a callable ``api_key`` gave no
            credential; opened before.
        """
        if self.core is not None:
            raise ConfigurationError("a supervisor is entered once: make another one")
        parts = self.parts
        inbox = self.inbox = Inbox()  # a shutdown that is asked for meanwhile counts
        try:
            if parts.own_client is not None:
                await parts.own_client.authenticate()
            group = create_task_group()
            workers = Workers(group, self._crashed, self._tell_bug)
            core = Core(parts.settings, workers, parts.api, parts.ledger, parts.observer, inbox)
            self._host = Host()
            await self._prepare(core.ground.owner_id)
        except BaseException:
            self.inbox = None
            if parts.keyring is not None:
                parts.keyring.stop()
            inbox.close()
            raise
        self._group, self.workers, self.core = group, workers, core
        if self._handlers is not None:
            self._handlers.install()
        await group.__aenter__()
        core.hire()
        workers.start("inbox", inbox.deliver)
        inbox.flush()

    async def _prepare(self, owner_id: str) -> None:
        """Open what has to be closed again if one of the others cannot be opened."""
        ledger, watchdog = self.parts.ledger, self.parts.watchdog
        await ledger.open(owner_id)
        try:
            if watchdog is not None:
                await watchdog.start(owner_id)
        except BaseException:
            with move_on_after(CLOSING_SECONDS, shield=True):
                if watchdog is not None:
                    await watchdog.close(clean=True)
                await ledger.aclose()
            raise

    # --- the drain ------------------------------------------------------------------------------

    def request_shutdown(self) -> None:
        """Have the drain begin soon. A plain call."""
        if self.core is not None:
            self.core.lifetime.advance(Phase.CLOSING)
        if self.inbox is not None:
            self.inbox.leave(self.begin_drain)

    def begin_drain(self, grace: float | None = None) -> Drain:
        """Begin the drain, unless it has begun, and return it; in the supervisor's event loop.

        :param grace: seconds that it may take; only makes one shorter that has begun.
        """
        assert self.core is not None
        self.core.lifetime.advance(Phase.CLOSING)
        if self.drain is None:
            self.drain = Drain(self.core)
            if grace is not None:
                self.drain.allow(grace)
            self._tell_of_drain()
            self.workers.start("drain", self.drain.carry_out)
        elif grace is not None:
            self.drain.shorten(grace)
        return self.drain

    def on_drain(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have ``callback()`` called as the drain begins; return what forgets it.

        :raises ConfigurationError: it was never opened.
        """
        if self.inbox is None:
            raise not_entered()
        callbacks, number = self._on_drain, next(self._numbers)
        callbacks[number] = callback
        if self.drain is not None:
            self.inbox.leave(self._tell_of_drain)
        return lambda: callbacks.pop(number, None) and None

    def _tell_of_drain(self) -> None:
        while self._on_drain:
            callback = self._on_drain.pop(next(iter(self._on_drain)))
            try:
                callback()
            except Exception as bug:  # noqa: BLE001 - whatever it is, the drain goes on
                self._tell_bug("on_drain", bug)

    def _signalled(self) -> None:
        if self.core is not None:
            self.core.lifetime.advance(Phase.FORCED)
        self.request_shutdown()
        if self.inbox is not None:
            self.inbox.leave(self._obey)

    def _obey(self) -> None:
        drain, handlers = self.begin_drain(), self._handlers
        assert handlers is not None
        if handlers.impatient:
            drain.hurry()
        if handlers.pending_exception is not None or handlers.pending_signal is not None:
            self.workers.start("end of the program", self._end_the_program)

    async def _end_the_program(self) -> None:
        """End it as the signal would have, only after the drain."""
        drain, handlers = self.begin_drain(), self._handlers
        assert handlers is not None
        if handlers.pending_exception is not None:  # it comes out of the block: so end the body
            await drain.marked.wait()  # or the bodies' blocks would give a reason of their own
            self._group.cancel_scope.cancel()
        else:
            await drain.done.wait()
            handlers.drained()

    def _tell_bug(self, worker: str, error: Exception) -> None:
        self.parts.observer.observe(WorkerFailed(worker, error))

    def _crashed(self, worker: str, error: Exception) -> None:
        """Go down loudly after a bug, but not before the DELETEs are sent."""
        self._tell_bug(worker, error)
        self._bug = self._bug or error
        assert self.core is not None
        self.core.lifetime.advance(Phase.FORCED)
        drain = self.begin_drain()
        if worker == "drain":
            drain.abort()
        elif worker == LAST_WRITES:
            drain.end()
        self._group.cancel_scope.cancel()

    # --- the end --------------------------------------------------------------------------------

    async def close(self, exc: BaseException | None) -> None:
        """Drain, and close everything; then raise what is to be raised instead of ``exc``, if any.

        :param exc: what the body raised. It goes on, unless it was only how we ended the body.
        :raises ConfigurationError: this is another event loop than the one that opened it, or a
            forked child; nothing was done. Or another asyncio task than one that entered it and
            goes on; the shutdown is over.
        """
        assert self.core is not None
        self.core.ground.check_here()
        native = await self._close_all()
        end = native or (exc if isinstance(exc, get_cancelled_exc_class()) else None)
        swallowed = await self._leave_group(end)
        if native is not None and not swallowed:
            raise native
        ours = exc is None or swallowed or _only_shutdowns(exc)
        if self._bug is not None and (ours or isinstance(exc, Exception)):
            raise self._bug  # in the context of the body's own error, if it had one
        if ours and self._handlers is not None:
            self._handlers.raise_pending()
        if swallowed and isinstance(exc, get_cancelled_exc_class()):
            # Nobody cancelled the body but the group, and with it us: that is no cancellation.
            raise SupervisorShutdown(
                "the supervisor shut down: something cancelled its own asyncio tasks"
            ) from None
        if swallowed is None and exc is None and not self._host.has_ended:
            raise self._host.explain(
                "the supervisor was left, and is closed",
                instead="or await supervisor.shutdown() from wherever you are",
            )

    async def _close_all(self) -> BaseException | None:
        """Drain, and close what is open; return a native cancellation that came meanwhile."""
        assert self.core is not None
        assert self.inbox is not None
        parts, drain = self.parts, self.begin_drain()
        native = await self._wait_out(drain.done.wait)
        self.workers.stop()
        native = await self._wait_out(self.workers.gone) or native
        if self._bug is not None:  # it may have kept the drain from this, and we would live on
            native = await self._wait_out(self.core.roster.close) or native
            native = await self._wait_out(self._close_ledger) or native
        self.inbox.close()
        if parts.own_client is not None:
            native = await self._wait_out(self._close_client) or native
        if parts.watchdog is not None:
            # What is not proven, or not written, the helper sees to, and what nobody asks for that
            # was handed over: our lock is gone by now.
            report = drain.report
            clean = report is not None and report.clean and not report.unwritten
            clean = clean and not drain.handed_over
            native = await self._wait_out(partial(parts.watchdog.close, clean=clean)) or native
        if self._handlers is not None:
            self._handlers.drained()
        return native

    async def _wait_out(self, wait: Callable[[], Awaitable[object]]) -> BaseException | None:
        """Wait whatever comes; return the native cancellation that came meanwhile, if any.

        What is waited for has a bound of its own, and leaving it would only leave it unwatched.
        """
        hit: BaseException | None = None
        while True:
            try:
                with CancelScope(shield=True):
                    await checkpoint()
                    self.workers.revive()  # whoever was to begin has begun by now
                    await wait()
            except get_cancelled_exc_class() as error:
                hit = error
            else:
                return hit

    async def _leave_group(self, end: BaseException | None) -> bool | None:
        """Return whether ``end`` was our own cancellation; ``None`` where we cannot leave here."""
        try:
            if not self._host.is_current:
                return None  # no worker is left in it
            kind, traceback = (None, None) if end is None else (type(end), end.__traceback__)
            return await self._group.__aexit__(kind, end, traceback)
        except RuntimeError:  # so say anyio and trio where something inside was never left
            return None
        except BaseException as error:
            # Raised again it would get itself as its context in an AsyncExitStack, and the next
            # stack around that would follow it for ever: who leaves a block lets it go on.
            if error is end:
                return False
            raise
        finally:
            self.workers.bury()

    async def _close_ledger(self) -> None:
        with move_on_after(CLOSING_SECONDS):
            await self.parts.ledger.aclose()

    async def _close_client(self) -> None:
        with move_on_after(CLOSING_SECONDS):
            await self.parts.api.aclose()


def not_entered() -> ConfigurationError:
    """Return the error for whoever asks something of a supervisor that nobody has entered."""
    return ConfigurationError("enter the supervisor first: async with Supervisor() as s:")


def _only_shutdowns(error: BaseException) -> bool:
    """Whether a shutdown is all that the error tells."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_shutdowns, error.exceptions))
    if isinstance(error, TaskCancelled):
        return error.reason is CancelReason.SHUTDOWN
    return isinstance(error, SupervisorShutdown)
