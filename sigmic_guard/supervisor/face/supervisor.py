"""The supervisor: what users enter, ask for tasks, and leave with none running."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Literal, Self, Unpack

import prometheus_client
from anyio import move_on_after

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle import TaskPolicy
from sigmic_guard.lifecycle.policy import check_policy
from sigmic_guard.lifecycle.values import check_flag, check_seconds, shown
from sigmic_guard.observe import Observers, RequestAnswered
from sigmic_guard.sigmic import SigmicClient, check_files, check_id
from sigmic_guard.sigmic.keyring import Keyring
from sigmic_guard.supervisor.face import watchdog as watchdogs
from sigmic_guard.supervisor.face.block import TaskBlock, run_block
from sigmic_guard.supervisor.face.group import RemoteTaskGroup
from sigmic_guard.supervisor.face.options import make_order, make_watch
from sigmic_guard.supervisor.face.session import Parts, Session, not_entered
from sigmic_guard.supervisor.face.signals import check_signals
from sigmic_guard.supervisor.face.task import Handles, handle_of
from sigmic_guard.supervisor.ground.results import Snapshot
from sigmic_guard.supervisor.ground.settings import (
    check_settings,
    choose_ledger,
    choose_observers,
)
from sigmic_guard.supervisor.work.wish import Wish

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.observe import Observer
    from sigmic_guard.sigmic import TaskApi, TransportKind
    from sigmic_guard.sigmic.keyring import ApiKey
    from sigmic_guard.supervisor.face.core import Core
    from sigmic_guard.supervisor.face.intake import Order
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
        are called as well, and put back at the end; what was ignored stays ignored. Where there
        was none, the process ends as it would have without us, after the drain:
        ``SystemExit(143)``, or ``KeyboardInterrupt``. Off the main thread there are no signals to
        be had, and a line in the log says so. ``"auto"`` listens where it can, without a word
        where it cannot; a process whom the signal would have killed dies of it after the drain,
        with no exception in the body.
    :param watchdog: start a small helper process, which ends our tasks at once when this process
        dies, even by ``kill -9``, and pursues further what a shutdown could not prove; default
        ``False``. Without it whoever starts next does.
    :param account: names whose tasks these are, so that rows can be reaped with another credential
        than they were made with; default: ``SIGMIC_ACCOUNT``, and then the (first) credential's
        fingerprint. Whoever is to reap them needs the same.
    :param transport: what carries all that are neither streams nor uploads: ``"wire"``, which is
        ours, or ``"aiohttp"``, which carries those two in either case.
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
        transport: TransportKind = "wire",
    ) -> None:
        try:
            if client is not None and (
                any(x is not None for x in (api_key, base_url, account)) or transport != "wire"
            ):
                raise ConfigurationError(
                    "give either client, or api_key, base_url, account and transport"
                )
            if client is not None and not callable(getattr(client, "create", None)):
                raise ConfigurationError(f"client must be a TaskApi, not {shown(client)}")
            settings = check_settings(
                grace=grace,
                max_tasks=max_tasks,
                max_cancels=max_cancels,
                create_timeout=create_timeout,
                namespace=namespace,
                marker=marker,
            )
            self._policy = TaskPolicy() if policy is None else check_policy(policy)
            watchdog, signals = check_flag("watchdog", watchdog), check_signals(signals)
            observer = Observers(choose_observers(registry, observers))
            keyring: Keyring | None = None
            own_client: SigmicClient | None = None
            if client is None:
                keyring = Keyring.of(api_key, account)
                client = own_client = SigmicClient(
                    keyring,
                    base_url,
                    on_request=lambda *answer: observer.observe(RequestAnswered(*answer)),
                    connections=settings.max_cancels + OTHER_CONNECTIONS,
                    transport=transport,
                )
            ledger = choose_ledger(ledger)
            helper: watchdogs.Watchdog | None = None
            if watchdog:
                if keyring is None:
                    raise ConfigurationError("a watchdog needs api_key and base_url, not client")
                helper = watchdogs.make_watchdog(keyring, client.base_url, ledger, settings)
            self._session = Session(
                Parts(
                    settings=settings,
                    observer=observer,
                    api=client,
                    ledger=ledger,
                    keyring=keyring,
                    own_client=own_client,
                    watchdog=helper,
                ),
                signals=signals,
            )
        finally:
            # A traceback that is printed with its locals must not show them.
            del api_key, ledger

    def __repr__(self) -> str:
        # A traceback with locals asks for it also where __init__ raised.
        core = self._core if "_session" in vars(self) else None
        if core is None:
            return "<Supervisor, not entered>"
        state = "closed" if core.lifetime.closed else "closing" if self.draining else "open"
        return f"<Supervisor, {state}, {len(core.roster.tasks)} tasks>"

    # --- tasks ----------------------------------------------------------------------------------

    def task(self, message: str, **options: Unpack[TaskOptions]) -> TaskBlock:
        """Return a block that owns a new task: ``async with supervisor.task("…") as task:``.

        However the block is left, the task is ended or, by ``on_exit``, waited for or let go. The
        block waits for the DELETE's acknowledgement at most ``cancel_wait`` seconds.

        Entering it raises :class:`~sigmic_guard.SigmicGuardError` where no task is to be had;
        leaving it raises ``TaskTimedOut``, ``TaskCancelled`` or ``SupervisorShutdown`` where that
        is why the body was cancelled. A body's own exception goes on unchanged.

        :raises ConfigurationError: an option makes no sense, or the supervisor was never entered.
            Nothing was begun.
        :raises SupervisorShutdown: the supervisor is closing, or closed.
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
        return await run_block(self._block(wish))

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
        order = self._order(wish)
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
        entry = await core.intake.adopt(check_id("task_id", task_id), self._watch(wish))
        return handle_of(core, entry)

    @property
    def tasks(self) -> Mapping[str, RemoteTask]:
        """The handles of the live tasks by remote id; a view that changes as they do."""
        core = self._core
        return {} if core is None else Handles(core)

    def find(self, intent_id: str) -> RemoteTask | None:
        """Return the handle of a live task by its intent id, which a task has before its own.

        :param intent_id: as in the rows of :meth:`snapshot`.
        """
        core = self._core
        entry = None if core is None else core.roster.tasks.get(intent_id)
        return None if core is None or entry is None else handle_of(core, entry)

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
        with move_on_after(
            core.ground.settings.create_timeout
        ):  # a ledger that hangs tells no more
            await core.outbox.flush()
        return report

    def group(self) -> RemoteTaskGroup:
        """Return an owner of several tasks: ``async with supervisor.group() as group:``.

        What one request, job or session begins with ``group.task``, ``group.run`` and
        ``group.start``, or takes on with ``group.adopt``, ends with the group, whatever became of
        the code that began it.

        :raises SupervisorShutdown: the supervisor is not open.
        """
        return RemoteTaskGroup(self._open(), self._order, self._watch)

    # --- the end --------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether a shutdown has begun, or is over: no task is taken on any more."""
        return self._core is not None and self._core.lifetime.closing

    def on_drain(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have ``callback()`` called once as the drain begins, before any body is cancelled.

        It is a plain call in the supervisor's event loop: it decides, and leaves work to others.
        One that raises is logged, and keeps nobody from anything. While a drain is under way it is
        called soon; once that is over it is not called.

        Returns a function that forgets the callback.

        :raises ConfigurationError: the supervisor was never entered.
        """
        return self._session.on_drain(callback)

    def request_shutdown(self) -> None:
        """Begin to shut down, and go on. A plain call: safe in a signal handler or another thread.

        No task is taken on any more; the drain begins as soon as the event loop gets its turn.
        """
        self._session.request_shutdown()

    async def shutdown(self, grace: float | timedelta | None = None) -> ShutdownReport:
        """Shut down now, wait for the end of it, and return what it did.

        :param grace: seconds it may take; default: the supervisor's. Can only make a shutdown that
            is under way shorter.
        :raises ConfigurationError: ``grace`` is no number of seconds, or the supervisor was never
            entered.
        """
        seconds = None if grace is None else check_seconds("grace", grace)
        core = self._core
        if core is None:
            raise not_entered()
        core.ground.check_here()
        drain = self._session.begin_drain(seconds)
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
        await self._session.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Shut down. The body's exception goes on, unless it was only how we ended the body.

        :raises ConfigurationError: this is another event loop than the one that entered it, or a
            forked child; nothing was done. Or another asyncio task than one that entered it and
            goes on; the shutdown is over.
        """
        await self._session.close(exc)

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _core(self) -> Core | None:
        return self._session.core

    def _block(self, wish: Wish) -> TaskBlock:
        core = self._open()
        return TaskBlock(core, self._order(wish))

    def _order(self, wish: Wish) -> Order:
        return make_order(wish, self._policy, marker=self._session.parts.settings.marker)

    def _watch(self, wish: Wish) -> Order:
        return make_watch(wish, self._policy)

    def _open(self, *, closing: bool = False) -> Core:
        core = self._core
        if core is None:
            raise not_entered()
        if not closing:
            core.ground.inbox.flush()
            core.ground.check_open()
        return core
