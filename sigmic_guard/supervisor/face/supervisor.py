"""The supervisor: what users enter, ask for tasks, and leave with none running."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, Self, Unpack

import prometheus_client
from anyio import CancelScope, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import ConfigurationError, SupervisorShutdown, TaskCancelled, TaskError
from sigmic_guard.lifecycle import CancelReason, Outcome, TaskPolicy
from sigmic_guard.lifecycle.policy import check_policy
from sigmic_guard.lifecycle.values import check_flag, check_seconds, shown
from sigmic_guard.observe import Observers, RequestAnswered, WorkerFailed
from sigmic_guard.sigmic import SigmicClient, check_files, check_id
from sigmic_guard.sigmic.keyring import Keyring
from sigmic_guard.supervisor.face import watchdog as watchdogs
from sigmic_guard.supervisor.face.block import TaskBlock
from sigmic_guard.supervisor.face.core import Core
from sigmic_guard.supervisor.face.draining import CLOSING_SECONDS, LAST_WRITES, Drain
from sigmic_guard.supervisor.face.host import Host
from sigmic_guard.supervisor.face.options import make_order, make_watch
from sigmic_guard.supervisor.face.signals import SignalHandlers
from sigmic_guard.supervisor.face.task import Handles, handle_of
from sigmic_guard.supervisor.ground.inbox import Inbox
from sigmic_guard.supervisor.ground.lifetime import Phase
from sigmic_guard.supervisor.ground.results import Snapshot
from sigmic_guard.supervisor.ground.settings import (
    check_settings,
    check_signals,
    choose_ledger,
    choose_observers,
)
from sigmic_guard.supervisor.ground.workers import Workers
from sigmic_guard.supervisor.work.wish import Wish

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType

    from anyio.abc import TaskGroup

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.observe import Observer
    from sigmic_guard.sigmic import TaskApi
    from sigmic_guard.sigmic.keyring import ApiKey
    from sigmic_guard.supervisor.face.options import TaskOptions, Watch
    from sigmic_guard.supervisor.face.task import RemoteTask
    from sigmic_guard.supervisor.ground.results import ReapReport, ShutdownReport, TaskResult

#: Connections for what is not a DELETE: creates, looks, lists, and what callers ask for.
OTHER_CONNECTIONS = 128


_record = attrgetter("record")


class Supervisor:
    """Binds remote tasks to the code that started them: ``async with Supervisor() as supervisor:``.

    Leaving the block shuts down: every task that is live is ended, within ``grace`` seconds.

    :param api_key: a Sigmic credential, or a callable, plain or async, that gives one: asked when
        the supervisor is entered, and again when the API answers 401 in its own words, at most
        every 5 seconds, for 10 seconds. Default: the environment's ``SIGMIC_API_KEY``.
    :param base_url: default: ``SIGMIC_BASE_URL``, and then the public API.
    :param client: something else that implements :class:`~sigmic_guard.sigmic.TaskApi`, instead of
        the two before. It is yours to close.
    :param ledger: a URL, the path of a SQLite file, or a :class:`~sigmic_guard.ledger.Ledger`;
        default: ``SIGMIC_GUARD_LEDGER`` and then a SQLite file in the user's state directory.
        ``"memory:"`` opts out of crash survival.
    :param policy: what holds for every task that does not say otherwise.
    :param grace: seconds (a number, or a ``timedelta``) that a shutdown may take; default 8, less
        than the 10 that Docker gives.
    :param max_tasks: remote tasks alive at once; further ones wait for a place. Default: no limit.
    :param max_cancels: DELETEs under way at once; default 64.
    :param create_timeout: seconds that a create may take; default 30.
    :param namespace: whose tasks these are, in a ledger that several share.
    :param marker: put the intent id into the ``env`` of creates without files (default), so that a
        create whose answer was lost can be found.
    :param registry: where the metrics go; default: prometheus_client's own. ``None`` exports none.
    :param observers: further observers (:class:`~sigmic_guard.observe.Observer`) of all that
        happens; one that raises is reported once, and breaks nothing.
    :param signals: shut down on SIGTERM and SIGINT; default ``False``. Handlers that stood before
        are called as well, and put back at the end. Where there was none, the process ends as it
        would have without us, after the drain: ``SystemExit(143)``, or ``KeyboardInterrupt``. Off
        the main thread there are no signals to be had, and a line in the log says so. ``"auto"``
        listens where it can, without a word where it cannot; what was ignored stays ignored, and
        a process whom the signal would have killed dies of it after the drain, with no exception
        in the body.
    :param watchdog: start a small helper process, which ends our tasks at once when this process
        dies, even by ``kill -9``, and pursues further what a shutdown could not prove; default
        ``False``. Without it whoever starts next does.
    :param account: names whose tasks these are, so that rows can be reaped with another credential
        than they were made with; default: ``SIGMIC_ACCOUNT``, and then the (first) credential's
        fingerprint. Whoever is to reap them needs the same.
    :raises ConfigurationError: an argument cannot be right.
    """

    def __init__(
        self,
        *,
        api_key: ApiKey | Keyring | None = None,
        base_url: str | None = None,
        client: TaskApi | None = None,
        ledger: str | os.PathLike[str] | Ledger | None = None,
        policy: TaskPolicy | None = None,
        grace: float | timedelta = 8.0,
        max_tasks: int | None = None,
        max_cancels: int = 64,
        create_timeout: float | timedelta = 30.0,
        namespace: str = "default",
        marker: bool = True,
        registry: prometheus_client.CollectorRegistry | None = prometheus_client.REGISTRY,
        observers: Iterable[Observer] = (),
        signals: bool | Literal["auto"] = False,
        watchdog: bool = False,
        account: str | None = None,
    ) -> None:
        self._core: Core | None = None
        self._drain: Drain | None = None
        self._bug: Exception | None = None
        self._group: TaskGroup
        self._workers: Workers
        self._host: Host
        self._inbox: Inbox | None = None
        try:
            if client is not None and any(x is not None for x in (api_key, base_url, account)):
                raise ConfigurationError("give either client, or api_key, base_url and account")
            if client is not None and not callable(getattr(client, "create", None)):
                raise ConfigurationError(f"client must be a TaskApi, not {shown(client)}")
            self._settings = settings = check_settings(
                grace=grace,
                max_tasks=max_tasks,
                max_cancels=max_cancels,
                create_timeout=create_timeout,
                namespace=namespace,
                marker=marker,
            )
            self._policy = TaskPolicy() if policy is None else check_policy(policy)
            watchdog, signals = check_flag("watchdog", watchdog), check_signals(signals)
            observer = self._observer = Observers(choose_observers(registry, observers))
            self._keyring: Keyring | None = None
            self._own_client: SigmicClient | None = None
            if client is None:
                self._keyring = Keyring.of(api_key, account)
                client = self._own_client = SigmicClient(
                    self._keyring,
                    base_url,
                    on_request=lambda *answer: observer.observe(RequestAnswered(*answer)),
                    connections=settings.max_cancels + OTHER_CONNECTIONS,
                )
            self._api: TaskApi = client
            self._ledger = choose_ledger(ledger)
            self._watchdog: watchdogs.Watchdog | None = None
            if watchdog:
                if self._keyring is None:
                    raise ConfigurationError("a watchdog needs api_key and base_url, not client")
                self._watchdog = watchdogs.make_watchdog(
                    self._keyring, self._api.base_url, self._ledger, settings
                )
            self._handlers = (
                SignalHandlers(self._signalled, yielding=signals == "auto") if signals else None
            )
        finally:
            # A traceback that is printed with its locals must not show them.
            del api_key, ledger

    def __repr__(self) -> str:
        if self._core is None:
            return "<Supervisor, not entered>"
        lifetime = self._core.lifetime
        state = "closed" if lifetime.closed else "closing" if lifetime.closing else "open"
        return f"<Supervisor, {state}, {len(self._core.roster.tasks)} tasks>"

    # --- tasks ----------------------------------------------------------------------------------

    def task(self, message: str, **options: Unpack[TaskOptions]) -> TaskBlock:
        """Return a block that owns a new task: ``async with supervisor.task("…") as task:``.

        However the block is left, the task is ended or, by ``on_exit``, waited for or let go. The
        block waits for the DELETE's acknowledgement at most ``cancel_wait`` seconds.

        Entering it raises :class:`~sigmic_guard.SigmicGuardError` where no task is to be had;
        leaving it raises ``TaskTimedOut``, ``TaskCancelled`` or ``SupervisorShutdown`` where that
        is why the body was cancelled. A body's own exception goes on unchanged.

        :raises ConfigurationError: an option makes no sense. Nothing was begun.
        :raises SupervisorShutdown: the supervisor is not open.
        """
        wish = Wish(message, options)
        del message, options
        return self._block(wish)

    async def run(self, message: str, **options: Unpack[TaskOptions]) -> TaskResult:
        """Create a task, wait for its end, and return its result.

        :raises TaskFailed: the agent failed.
        :raises TaskTimedOut: the deadline passed. The task was cancelled.
        :raises TaskCancelled: somebody else cancelled it.
        :raises SupervisorShutdown: the supervisor shut down. The task was cancelled.
        :raises SigmicGuardError: there was no task to be had.
        """
        wish = Wish(message, options)
        del message, options
        try:
            async with self._block(wish) as task:
                return await task.result()
        except TaskError as error:
            if error.result is not None and error.result.outcome is Outcome.COMPLETED:
                won: TaskResult = error.result  # it completed before the DELETE reached it
                return won
            raise

    async def start(self, message: str, **options: Unpack[TaskOptions]) -> RemoteTask:
        """Create a task in the background, and return its handle once its id is known.

        It is supervised until it ends, its deadline, or the shutdown. If the caller is cancelled
        meanwhile, the task is cancelled.

        :raises SigmicGuardError: there is no task to be had.
        """
        wish = Wish(message, options)
        del message, options
        core = self._open()
        core.ground.check_here()
        order = make_order(wish, self._policy, marker=self._settings.marker)
        if order.request.files:
            await check_files(order.request.files)
        return handle_of(core, await core.intake.start(order))

    async def adopt(self, task_id: str, **options: Unpack[Watch]) -> RemoteTask:
        """Take on a task that something else created, as if :meth:`start` had.

        A completed one can be asked again with :meth:`RemoteTask.send`. Until this returns, the
        task is not ours: a caller who is cancelled meanwhile leaves it as it was.

        Two processes may have one task, where they share a ledger. A shutdown of one of them, or
        its death, leaves the task to the other. Its deadline, its block's end and its ``cancel()``
        end the task for both.

        :raises TaskNotFound: there is no such task for this credential.
        :raises ConfigurationError: the id cannot be one, or is supervised already.
        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        wish = Wish("", options)
        del options
        core = self._open()
        core.ground.check_here()
        order = make_watch(wish, self._policy)
        return handle_of(core, await core.intake.adopt(check_id("task_id", task_id), order))

    @property
    def tasks(self) -> Mapping[str, RemoteTask]:
        """The handles of the live tasks by remote id; a view that changes as they do."""
        return Handles(self._core) if self._core is not None else {}

    def snapshot(self) -> Snapshot:
        """Return all live tasks as they are now, in immutable rows."""
        core = self._open(closing=True)
        tasks = list(core.roster.tasks.values())
        return Snapshot(
            list(map(_record, tasks)), tasks, core.lifetime.now(), core.lifetime.moment()
        )

    async def reap(self) -> ReapReport:
        """Look now for tasks whose owner is dead, end them, and tell what came of it.

        The supervisor does this by itself, when it is entered and then about every 30 seconds; here
        one waits for it. It may take long where the API or the ledger does not answer: bound it
        with ``anyio.move_on_after``; the work goes on.

        :raises LedgerError: the ledger could not be read or written; it is tried again by itself.
        :raises SupervisorShutdown: the supervisor is not open.
        """
        core = self._open()
        core.ground.check_here()
        report = await core.reaper.reap()
        with move_on_after(self._settings.create_timeout):  # a ledger that hangs tells nothing more
            await core.outbox.flush()
        return report

    # --- the end --------------------------------------------------------------------------------

    def request_shutdown(self) -> None:
        """Begin to shut down, and go on. A plain call: safe in a signal handler or another thread.

        No task is taken on any more; the drain begins as soon as the event loop gets its turn.
        """
        if self._core is not None:
            self._core.lifetime.advance(Phase.CLOSING)
        if self._inbox is not None:
            self._inbox.leave(self._begin_drain)

    async def shutdown(self, grace: float | timedelta | None = None) -> ShutdownReport:
        """Shut down now, wait for the end of it, and return what it did.

        :param grace: seconds it may take; default: the supervisor's. Can only make a shutdown that
            is under way shorter.
        :raises ConfigurationError: ``grace`` is no number of seconds, or the supervisor was never
            entered.
        """
        seconds = None if grace is None else check_seconds("grace", grace)
        if self._core is None:
            raise ConfigurationError("enter the supervisor first: async with Supervisor() as s:")
        self._core.ground.check_here()
        drain = self._begin_drain(seconds)
        await drain.done.wait()
        assert drain.report is not None
        return drain.report

    async def __aenter__(self) -> Self:
        """Open the ledger, and start the workers.

        It waits for the ledger to open; ours give up after some seconds. Whoever brings one that
        may hang bounds that with ``anyio.fail_after``.

        :raises LedgerError: the ledger cannot be opened.
        :raises ConfigurationError: the watchdog cannot be started; a callable ``api_key`` gave no
            credential; entered before.
        """
        if self._core is not None:
            raise ConfigurationError("a supervisor is entered once: make another one")
        inbox = self._inbox = Inbox()  # a shutdown that is asked for meanwhile counts
        try:
            if self._own_client is not None:
                await self._own_client.authenticate()
            group = create_task_group()
            workers = Workers(group, self._crashed, self._tell_bug)
            core = Core(self._settings, workers, self._api, self._ledger, self._observer, inbox)
            self._host = Host()
            await self._prepare(core.ground.owner_id)
        except BaseException:
            self._inbox = None
            if self._keyring is not None:
                self._keyring.stop()
            inbox.close()
            raise
        self._group, self._workers, self._core = group, workers, core
        if self._handlers is not None:
            self._handlers.install()
        await group.__aenter__()
        core.hire()
        workers.start("inbox", inbox.deliver)
        inbox.flush()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Shut down. The body's exception goes on, unless it was only how we ended the body.

        :raises ConfigurationError: this is another event loop than the one that entered it, or a
            forked child; nothing was done. Or another asyncio task; the shutdown is over.
        """
        assert self._core is not None
        self._core.ground.check_here()
        drain = self._begin_drain()
        native = await self._wait_out(drain.done.wait)
        self._workers.stop()
        native = await self._wait_out(self._workers.gone) or native
        if self._bug is not None:  # it may have kept the drain from this, and we would live on
            assert self._core is not None
            native = await self._wait_out(self._core.roster.close) or native
            native = await self._wait_out(self._close_ledger) or native
        assert self._inbox is not None
        self._inbox.close()
        if self._own_client is not None:
            native = await self._wait_out(self._close_client) or native
        if self._watchdog is not None:
            # What is not proven, or not written, the helper sees to, and what nobody asks for that
            # was handed over: our lock is gone by now.
            report = drain.report
            clean = report is not None and report.clean and not report.unwritten
            clean = clean and not drain.handed_over
            native = await self._wait_out(partial(self._watchdog.close, clean=clean)) or native
        if self._handlers is not None:
            self._handlers.drained()
        end = native or (exc if isinstance(exc, get_cancelled_exc_class()) else None)
        swallowed = await self._leave_group(end)
        if native is not None and not swallowed:
            raise native
        ours = exc is None or swallowed or _only_shutdowns(exc)
        if self._bug is not None and (ours or isinstance(exc, Exception)):
            raise self._bug  # in the context of the body's own error, if it had one
        if ours and self._handlers is not None:
            self._handlers.pay()
        if swallowed and isinstance(exc, get_cancelled_exc_class()):
            # Nobody cancelled the body but the group, and with it us: that is no cancellation.
            raise SupervisorShutdown(
                "the supervisor shut down: something cancelled its own asyncio tasks"
            ) from None
        if swallowed is None and exc is None:
            raise self._host.explain(
                "the supervisor was left, and is closed",
                instead="or await supervisor.shutdown() from wherever you are",
            )

    # --- inside ---------------------------------------------------------------------------------

    def _block(self, wish: Wish) -> TaskBlock:
        core = self._open()
        return TaskBlock(core, make_order(wish, self._policy, marker=self._settings.marker))

    def _open(self, *, closing: bool = False) -> Core:
        if self._core is None:
            raise SupervisorShutdown("enter the supervisor first: async with Supervisor() as s:")
        if not closing:
            self._core.ground.inbox.flush()
            self._core.ground.check_open()
        return self._core

    def _begin_drain(self, grace: float | None = None) -> Drain:
        assert self._core is not None
        self._core.lifetime.advance(Phase.CLOSING)
        if self._drain is None:
            self._drain = Drain(self._core)
            if grace is not None:
                self._drain.allow(grace)
            self._workers.start("drain", self._drain.carry_out)
        elif grace is not None:
            self._drain.shorten(grace)
        return self._drain

    async def _wait_out(self, wait: Callable[[], Awaitable[object]]) -> BaseException | None:
        """Wait whatever comes; return the native cancellation that came meanwhile, if any.

        What is waited for has a bound of its own, and leaving it would only leave it unwatched.
        """
        hit: BaseException | None = None
        while True:
            try:
                with CancelScope(shield=True):
                    await checkpoint()
                    self._workers.revive()  # whoever was to begin has begun by now
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
        finally:
            self._workers.bury()

    async def _prepare(self, owner_id: str) -> None:
        """Open what has to be closed again if one of the others cannot be opened."""
        await self._ledger.open(owner_id)
        try:
            if self._watchdog is not None:
                await self._watchdog.start(owner_id)
        except BaseException:
            with move_on_after(CLOSING_SECONDS, shield=True):
                if self._watchdog is not None:
                    await self._watchdog.close(clean=True)
                await self._ledger.aclose()
            raise

    async def _close_ledger(self) -> None:
        with move_on_after(CLOSING_SECONDS):
            await self._ledger.aclose()

    async def _close_client(self) -> None:
        with move_on_after(CLOSING_SECONDS):
            await self._api.aclose()

    def _signalled(self) -> None:
        if self._core is not None:
            self._core.lifetime.advance(Phase.FORCED)
        self.request_shutdown()
        if self._inbox is not None:
            self._inbox.leave(self._obey)

    def _obey(self) -> None:
        drain = self._begin_drain()
        handlers = self._handlers
        assert handlers is not None
        if handlers.impatient:
            drain.hurry()
        if handlers.owed is not None or handlers.fatal is not None:
            self._workers.start("end of the program", self._end_the_program)

    async def _end_the_program(self) -> None:
        """End it as the signal would have, only after the drain."""
        drain, handlers = self._begin_drain(), self._handlers
        assert handlers is not None
        if handlers.owed is not None:  # an exception of ours, out of the block: so end the body
            await drain.marked.wait()  # or the bodies' blocks would give a reason of their own
            self._group.cancel_scope.cancel()
        else:
            await drain.done.wait()
            handlers.drained()

    def _tell_bug(self, worker: str, error: Exception) -> None:
        self._observer.observe(WorkerFailed(worker, error))

    def _crashed(self, worker: str, error: Exception) -> None:
        """Go down loudly after a bug, but not before the DELETEs are sent."""
        self._tell_bug(worker, error)
        self._bug = self._bug or error
        assert self._core is not None
        self._core.lifetime.advance(Phase.FORCED)
        drain = self._begin_drain()
        if worker == "drain":
            drain.abort()
        elif worker == LAST_WRITES:
            drain.end()
        self._group.cancel_scope.cancel()


def _only_shutdowns(error: BaseException) -> bool:
    """Whether a shutdown is all that the error tells."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_shutdowns, error.exceptions))
    if isinstance(error, TaskCancelled):
        return error.reason is CancelReason.SHUTDOWN
    return isinstance(error, SupervisorShutdown)
