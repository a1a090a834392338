"""What an application holds: :class:`Guard`."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal

from anyio import create_task_group

from sigmic_guard import ConfigurationError, Supervisor
from sigmic_guard.integrations.asgi.middleware import GuardMiddleware
from sigmic_guard.integrations.requests import OnDisconnect, check_on_disconnect
from sigmic_guard.lifecycle.values import check_seconds, shown
from sigmic_guard.supervisor.face.signals import SignalHandlers, check_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import timedelta
    from types import TracebackType

    from anyio.abc import TaskGroup

    #: What frameworks take: called with the application.
    Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

_OPTIONS = frozenset(inspect.signature(Supervisor).parameters) - {"signals"}


class Guard:
    """Binds the tasks of an ASGI application to its requests, and to its process.

    Making one opens nothing: the supervisor is entered when the application starts, and left when
    it stops. One guard serves one application at a time.

    :param supervisor: one that is entered already, and is left by whoever entered it; default: one
        of the guard's own, made of ``supervisor_options`` anew at each start.
    :param on_disconnect: what becomes of a request's tasks when its client hangs up: ``"cancel"``
        (default), ``"keep"``, or a number of seconds for which they may go on.
    :param retry_after: seconds; told to clients that are refused, or whose stream ends, because of
        the shutdown; default 2.
    :param signals: as for :class:`~sigmic_guard.Supervisor`; default ``"auto"``: the drain begins
        on SIGTERM and SIGINT, beside the host's own handlers, and before the host waits for open
        responses.
    :raises ConfigurationError: an argument cannot be right.
    """

    def __init__(
        self,
        supervisor: Supervisor | None = None,
        *,
        on_disconnect: OnDisconnect = "cancel",
        retry_after: float | timedelta = 2,
        signals: bool | Literal["auto"] = "auto",
        **supervisor_options: Any,
    ) -> None:
        if supervisor is not None and supervisor_options:
            raise ConfigurationError("give either a supervisor or the options of one")
        if supervisor is not None and not isinstance(supervisor, Supervisor):
            raise ConfigurationError(f"supervisor must be a Supervisor, not {shown(supervisor)}")
        if unknown := supervisor_options.keys() - _OPTIONS:
            raise ConfigurationError(f"a supervisor has no option {', '.join(sorted(unknown))}")
        self._given = supervisor
        self._options = supervisor_options
        self._signals = check_signals(signals)
        self.on_disconnect = check_on_disconnect(on_disconnect)
        self.retry_after = check_seconds("retry_after", retry_after)
        self._running: Running | None = None
        #: A plain ASGI middleware class: ``app = guard.middleware(app)``.
        self.middleware: type[GuardMiddleware] = type(
            "GuardMiddleware", (GuardMiddleware,), {"guard": self}
        )

    def __repr__(self) -> str:
        return f"<Guard, {'not running' if self._running is None else 'running'}>"

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor, while the application runs.

        :raises ConfigurationError: it does not, or the guard's lifespan was not given to it.
        """
        if self._running is None:
            raise ConfigurationError(
                "the guard's lifespan is not running: give it to the application, as in "
                "FastAPI(lifespan=guard.lifespan). An application that is mounted in another one "
                "gets no lifespan: give it to the outermost one, and install the guard there"
            )
        return self._running.supervisor

    @property
    def draining(self) -> bool:
        """Whether the shutdown has begun."""
        return self._running is not None and self._running.supervisor.draining

    def find_supervisor(self) -> Supervisor:
        """Return :attr:`supervisor`."""
        return self.supervisor

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """Return what enters the supervisor at the start, and leaves it at the end.

        For ``Starlette(lifespan=guard.lifespan)``, or by hand:
        ``async with guard.lifespan(app):``.

        Entering raises what entering a :class:`~sigmic_guard.Supervisor` does, and
        ``ConfigurationError`` where the guard runs already.
        """
        return _Entered(self)

    def around(self, lifespan: Lifespan) -> Lifespan:
        """Return a lifespan around another one, which may use the supervisor from its start on."""
        return lambda app: _Around(self.lifespan(app), lifespan(app))

    def install(self, app: Any) -> None:
        """Make the guard the outermost middleware of a Starlette or FastAPI application.

        To be called after whatever else adds middleware: each comes to stand around those before.

        :raises ConfigurationError: it is another kind of application, which takes
            ``guard.middleware`` in its own way.
        """
        add = getattr(app, "add_middleware", None)
        if not callable(add):
            raise ConfigurationError(
                f"{shown(app)} has no add_middleware(): use app = guard.middleware(app), or give "
                "guard.middleware to its list of middleware"
            )
        add(self.middleware)

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run something beside the requests, until the application stops; ``False`` if it has."""
        return self._running is not None and self._running.spawn(run)

    async def start(self) -> None:
        """Enter the supervisor, unless it is another's, and listen to signals."""
        if self._running is not None:
            raise ConfigurationError("the guard runs already: each application has its own")
        self._running = running = Running(self._given, self._signals, self._options)
        try:
            await running.__aenter__()
        except BaseException:
            self._running = None
            raise

    async def stop(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the supervisor: whatever is live is ended."""
        running = self._running
        assert running is not None
        try:
            await running.__aexit__(exc_type, exc, traceback)
        finally:
            self._running = None


class Running:
    """A guard's supervisor, from the start of its application to its end."""

    def __init__(
        self,
        given: Supervisor | None,
        signals: bool | Literal["auto"],  # noqa: FBT001
        options: Mapping[str, Any],
    ) -> None:
        self.supervisor = given or Supervisor(signals=signals, **options)
        self._handlers: SignalHandlers | None = None
        if given is not None and signals:
            # Who runs a server inside of his supervisor's block has its handlers set after ours.
            self._handlers = SignalHandlers(given.request_shutdown, yielding=signals == "auto")
        self._own = given is None
        self._stack = AsyncExitStack()
        #: What listens for hang-ups.
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> None:
        async with AsyncExitStack() as stack:
            if self._own:
                await stack.enter_async_context(self.supervisor)
            self._group = create_task_group()
            await self._group.__aenter__()
            stack.push_async_callback(self._leave_group)
            if not self._own:  # which also refuses one that was never entered
                stack.callback(self.supervisor.on_drain(self._drain_begins))
            if self._handlers is not None:
                stack.callback(self._handlers.restore)
                self._handlers.install()
            self._stack = stack.pop_all()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def _leave_group(self) -> None:
        """Leave it without the application's error, which it would put into an exception group."""
        group, self._group = self._group, None
        assert group is not None
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run something until the application stops."""
        if self._group is None:
            return False
        self._group.start_soon(run)
        return True

    def _drain_begins(self) -> None:
        if self._handlers is not None:
            self.spawn(self._obey)

    async def _obey(self) -> None:
        """End the program as the signal would have at once, where the host does not."""
        assert self._handlers is not None
        await self.supervisor.shutdown()
        self._handlers.drained()
        self._handlers.raise_pending()


class _Entered(AbstractAsyncContextManager[None]):
    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def __aenter__(self) -> None:
        await self._guard.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._guard.stop(exc_type, exc, traceback)


class _Around(AbstractAsyncContextManager[Any]):
    def __init__(
        self, outer: AbstractAsyncContextManager[Any], inner: AbstractAsyncContextManager[Any]
    ) -> None:
        self._outer, self._inner = outer, inner
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Any:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._outer)
            state = await stack.enter_async_context(self._inner)
            self._stack = stack.pop_all()
        return state

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(exc_type, exc, traceback)
