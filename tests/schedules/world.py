"""Virtual processes with whole supervisors, one remote system, one ledger, and what befalls them.

Everything a process does outside of itself goes through its line to the remote system and its
handle on the ledger, which can be slow, cut off, and end with it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.errors import SigmicGuardError
from sigmic_guard.ledger import MemoryStore
from sigmic_guard.lifecycle import TaskPolicy
from sigmic_guard.testing import FakeSigmic
from tests.schedules.freezing import PROCESS, Freezer
from tests.schedules.outside import EPOCH, Handle, Line
from tests.schedules.truth import Life, Truth, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from anyio.abc import TaskGroup

    from sigmic_guard import RemoteTask
    from sigmic_guard.sigmic.api import EventStream

    #: Where a plain call is made: one of tests.supervisor.places.
    Place: TypeAlias = Callable[[Callable[[], object]], None]

#: One for all: what is counted plays no part here, and a new one costs milliseconds.
REGISTRY: Final = CollectorRegistry()


class World:
    """Where processes live and die. Use it in trio's virtual time, under :func:`virtual`.

    :param handle: what they keep their rows with.
    """

    def __init__(self, group: TaskGroup, handle: type[Handle] = Handle) -> None:
        self.group = group
        self.fake = FakeSigmic()
        self.store = MemoryStore()
        self.truth = Truth(self.fake, anyio.current_time, self.store.seen_dead)
        self.make_handle = handle
        #: How the remote system is out of reach: "refuse", "swallow", "lose" or "fail".
        self.api_fault: str | None = None
        self.ledger_fault = False
        #: Requests that were sent and have not arrived.
        self.in_flight = 0
        self.processes: list[Process] = []

    def boot(self, credential: str = "A", namespace: str = "n", *, ahead: float = 0.0) -> Process:
        """Start a process, whose wall clock is ``ahead``."""
        name = f"P{len(self.processes) + 1}"
        process = Process(self, Life(name, credential, namespace, seen_at=anyio.current_time()))
        process.set_clock(ahead)
        self.processes.append(process)
        process.spawn(process.run)
        return process

    def name_wish(self) -> str:
        """Return a message of its own."""
        return f"task {len(self.truth.wishes) + 1}"


class Process(Freezer):
    """One boot of one process that holds a supervisor."""

    def __init__(self, world: World, life: Life) -> None:
        super().__init__()
        self.world = world
        self.life = life
        #: Seconds that each of its requests and ledger calls takes.
        self.latency = 0.0
        self.tasks: list[tuple[Wish, RemoteTask]] = []
        #: The streams that it opened; they end with it.
        self.connections: list[EventStream] = []
        #: It was killed: nothing of what still moves here reaches the outside.
        self.dead = False
        self.gone = anyio.Event()
        self._ready = anyio.Event()
        self._stop = anyio.Event()
        self._supervisor: Supervisor | None = None

    def spawn(self, function: Any, *args: Any) -> None:
        """Start a task of this process."""
        token = PROCESS.set(self)
        self.world.group.start_soon(function, *args)
        PROCESS.reset(token)

    async def run(self) -> None:
        """Be a program that holds a supervisor until it is told to end."""
        supervisor = Supervisor(
            client=Line(self),
            ledger=self.world.make_handle(self),
            registry=REGISTRY,
            namespace=self.life.namespace,
        )
        try:
            async with supervisor:
                self._supervisor = supervisor
                self._ready.set()
                await self._stop.wait()
        except SigmicGuardError:
            pass  # the ledger is out of reach: it could not even start
        finally:
            self.bury()
            self._ready.set()
            self.gone.set()

    def bury(self) -> None:
        """Count it among the dead: its lock is gone, or it is."""
        if self.life.alive:
            self.life.alive = False
            self.life.died_at = anyio.current_time()
        for stream in self.connections:
            stream.close()

    # --- what befalls it ----------------------------------------------------------------------

    def create(self, policy: TaskPolicy, key: str | None = None) -> None:
        """Have a background task created."""
        self.spawn(self._create, policy, key)

    async def _create(self, policy: TaskPolicy, key: str | None) -> None:
        await self._ready.wait()
        if self._supervisor is None:
            return
        truth = self.world.truth
        wish = Wish(self.world.name_wish(), self.life, policy, key, anyio.current_time())
        truth.wishes[wish.message] = wish
        truth.asking.append(wish)
        try:
            task = await self._supervisor.start(
                wish.message,
                key=key,
                timeout=policy.timeout,
                on_crash=policy.on_crash,
                on_shutdown=policy.on_shutdown,
                reattach_within=policy.reattach_within,
            )
        except SigmicGuardError:
            if not self.dead:  # a ghost is told many things
                wish.over = True
        else:
            self.tasks.append((wish, task))
            truth.given(task.id or "", wish)
        finally:
            truth.asking.remove(wish)

    def cancel(self, number: int, place: Place) -> None:
        """Have one of its tasks cancelled, by a plain call from there."""
        if self.tasks and not self.dead:
            wish, task = self.tasks[number % len(self.tasks)]
            self.spawn(self._cancel, wish, task, place)

    async def _cancel(self, wish: Wish, task: RemoteTask, place: Place) -> None:
        wish.over = True
        place(task.request_cancel)

    def read(self, number: int, place: Place) -> None:
        """Have somebody read an event of one of its tasks, and leave the iterator to there."""
        if self.tasks and not self.dead:
            self.spawn(self._read, self.tasks[number % len(self.tasks)][1], place)

    async def _read(self, task: RemoteTask, place: Place) -> None:
        kept = [task.events()]
        with anyio.move_on_after(30.0), suppress(SigmicGuardError, StopAsyncIteration):
            await anext(kept[0])
        place(kept.clear)

    def unaware(self) -> list[str]:
        """Tell of those of its tasks that are over, or should be, and it does not know."""
        live = self.world.fake.live
        waiting = [(wish, task.id in live) for wish, task in self.tasks if task.outcome is None]
        return [
            f"{self.life} does not {'end' if lives else 'know the end of'} {wish.message}"
            for wish, lives in waiting
            if wish.over or not lives
        ]

    def reap(self) -> None:
        """Have it look for orphans."""
        self.spawn(self._reap)

    async def _reap(self) -> None:
        await self._ready.wait()
        if self._supervisor is not None:
            with suppress(SigmicGuardError):
                await self._supervisor.reap()

    def kill(self) -> None:
        """SIGKILL: the kernel drops its lock, and it reaches nothing any more."""
        self.bury()
        self.dead = True
        self.world.store.owners.discard(self.life.owner_id)
        self.thaw()  # a ghost, who only has to find the exit
        self._stop.set()
        self.world.group.start_soon(self._vanish)

    async def _vanish(self) -> None:
        await self._ready.wait()
        if self._supervisor is not None:
            await self._supervisor.shutdown(grace=0)

    def set_clock(self, ahead: float) -> None:
        """Have its wall clock tell so many seconds too much."""
        self.ahead = ahead
        self.world.truth.clocks.add(ahead)

    def drain(self) -> None:
        """SIGTERM."""
        self.life.draining = True
        self._stop.set()


def wall_time() -> float:
    """Return the seconds since the epoch, by the clock of the process that asks."""
    process = PROCESS.get()
    return EPOCH + anyio.current_time() + (0.0 if process is None else process.ahead)


@contextmanager
def virtual() -> Iterator[None]:
    """Give supervisors the virtual clock alone, and a wall clock that can be set.

    And let them watch their own tasks less often, which plays no part and takes most of the time.
    """
    clock = SimpleNamespace(time=wall_time, monotonic=anyio.current_time)
    room = "sigmic_guard.supervisor"
    watched_rarely = patch.multiple(
        f"{room}.work.watcher", MIN_PAUSE_SECONDS=6.0, MAX_PAUSE_SECONDS=20
    )
    with patch(f"{room}.ground.clock.time", clock), watched_rarely:
        yield
