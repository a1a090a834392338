"""Random schedules: what befalls the processes, in which order; and how all ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st
from trio.testing import MockClock

from sigmic_guard.lifecycle import TaskPolicy
from sigmic_guard.testing import SWAPPED
from tests.schedules.freezing import Freezing
from tests.schedules.outside import Handle
from tests.schedules.truth import HOUR, Truth
from tests.schedules.world import Process, World, virtual
from tests.supervisor import places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Event: TypeAlias = tuple[Any, ...]


class Slot(NamedTuple):
    """Where one process after the other runs."""

    credential: str
    namespace: str


#: The first three are equals, the others' tasks are none of their business.
SLOTS: Final = (Slot("A", "n"), Slot("A", "n"), Slot("A", "n"), Slot("B", "n"), Slot("A", "m"))
#: Seconds before an event: none, enough to settle, and up to more than two rounds of a reaper.
PAUSES: Final = (0.0, 0.1, 0.1, 0.1, 3.0, 12.0, 50.0, 130.0)
ORDERS: Final[dict[str, tuple[TaskPolicy, str | None]]] = {
    "plain": (TaskPolicy(), None),
    "late": (TaskPolicy(timeout=10), None),
    "keyed": (TaskPolicy(), "k"),
    "claimable": (TaskPolicy(on_crash="reattach", reattach_within=100), "k"),
    "claimable late": (TaskPolicy(on_crash="reattach", reattach_within=100, timeout=60), "l"),
    "handed over": (TaskPolicy(on_shutdown="reattach", reattach_within=100), "k"),
    "handed over late": (
        TaskPolicy(on_shutdown="reattach", reattach_within=100, timeout=60),
        "m",
    ),
    "kept": (
        TaskPolicy(on_shutdown="reattach", on_crash="reattach", reattach_within=100),
        "k",
    ),
    "nameless": (TaskPolicy(on_crash="reattach"), None),
    "abandoned": (TaskPolicy(on_crash="abandon"), None),
}
#: Simple ones first: that is where a counterexample shrinks to.
EVENTS: Final[Sequence[Event]] = (
    *[("create", slot, "plain") for slot in range(len(SLOTS))],
    *[("create", slot, order) for slot in (0, 1, 2) for order in ORDERS],
    *[("create", slot, order) for slot in (0, 1, 2, 3, 4) for order in ("claimable", "abandoned")],
    *[("kill", slot) for slot in (0, 1, 2)] * 4,
    *[("kill", slot) for slot in (3, 4)],
    *[("pause", slot) for slot in (0, 1, 2)] * 2,
    *[("resume", slot) for slot in (0, 1, 2)],
    *[("die with tasks", slot) for slot in (0, 1, 2, 2, 3, 4)],
    *[("die creating", slot) for slot in (0, 1, 2)],
    *[("deploy", slot) for slot in (0, 1, 2)],
    *[(what,) for what in ("boot all", "reap all", "claim all")] * 3,
    *[("drain", slot) for slot in range(len(SLOTS))],
    *[("slow", slot, latency) for slot in (0, 1, 2) for latency in (0.0, 0.3, 9.0, 80.0)],
    *[("cancel", slot, 0, place) for slot in (0, 1) for place in ("coroutine", "thread")],
    *[("cancel", 0, 1, place) for place in ("callback", "done_callback", "signal_handler")],
    *[("read", slot, 0, place) for slot in (0, 1) for place in ("callback", "thread")],
    *[("complete", number) for number in (0, 1)],
    *[("api", fault) for fault in (None, "refuse", "swallow", "lose", "fail")],
    *[("api", fault) for fault in ("page", "page in its place")],
    *[("ledger", fault) for fault in (False, True)],
    *[("lag", seconds) for seconds in (0.4, 2.0, 0.0)],
    ("swap",),
    *[("clock", slot, ahead) for slot in (0, 1, 2) for ahead in (-HOUR, 0.0, HOUR)],
)
#: From where plain calls are made, by name.
PLACES: Final = {place.__name__: place for place in places.PLACES}
Step: TypeAlias = tuple[float, Event]
STEPS: Final = st.tuples(st.sampled_from(PAUSES), st.sampled_from(EVENTS))
SCHEDULES: Final = st.lists(STEPS, min_size=2, max_size=12)
#: Virtual seconds within which one healthy supervisor ends what is to be ended.
ENOUGH: Final = 900.0


class Run:
    """One schedule, carried out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.slots: list[Process | None] = [None] * len(SLOTS)
        self._used: set[Slot] = set()
        #: By how many seconds the wall clock is ahead there, from one process to the next.
        self._ahead = [0.0] * len(SLOTS)

    def at(self, slot: int) -> Process:
        """Return the process that runs there; a new one where there is none."""
        process = self.slots[slot]
        if process is None or process.dead or process.life.draining or process.gone.is_set():
            self._used.add(SLOTS[slot])
            process = self.slots[slot] = self.world.boot(*SLOTS[slot], ahead=self._ahead[slot])
        return process

    def there(self, slot: int) -> Process | None:
        """Return the process that runs there."""
        process = self.slots[slot]
        return None if process is None or process.dead or process.gone.is_set() else process

    async def do(self, step: Step) -> None:
        """Let something happen."""
        pause, event = step
        await (anyio.sleep(pause) if pause else checkpoint())
        match event:
            case ("boot all",):
                for slot in (0, 1, 2):
                    self.at(slot)
            case ("reap all",):
                for slot in (0, 1, 2):
                    if (process := self.there(slot)) is not None:
                        process.reap()
            case ("claim all",):
                for slot in (0, 1, 2):
                    self.at(slot).create(*ORDERS["claimable"])
            case "create", slot, order:
                self.at(slot).create(*ORDERS[order])
            case "die with tasks", slot:
                process = self.at(slot)
                for order in ORDERS.values():
                    process.create(*order)
                await anyio.sleep(0.2)
                process.kill()
            case "deploy", slot:
                process = self.at(slot)
                process.create(*ORDERS["handed over"])
                process.create(*ORDERS["handed over late"])
                await anyio.sleep(0.2)
                process.drain()
            case "die creating", slot:
                process = self.at(slot)
                await anyio.sleep(0.1)
                process.latency = 80.0
                process.create(*ORDERS["plain"])
                await anyio.sleep(10.0)  # the intent takes 9 of them; the POST arrives much later
                process.kill()
            case "complete", number:
                if live := sorted(self.world.fake.live):
                    self.world.fake.complete(live[number % len(live)])
            case "api", fault:
                self.world.api_fault = fault
            case "lag", seconds:
                self.world.fake.read_lag = seconds
            case ("swap",):
                self.world.fake.on("get", *[SWAPPED] * 3)
            case "clock", slot, ahead:
                self._ahead[slot] = ahead
                if (process := self.there(slot)) is not None:
                    process.set_clock(ahead)
            case "ledger", fault:
                self.world.ledger_fault = fault
            case what, slot, *how:
                if (process := self.there(slot)) is not None:
                    befall(process, what, *how)

    async def heal(self) -> None:
        """See that one supervisor that is well is enough; and then end everything."""
        world = self.world
        world.api_fault, world.ledger_fault, world.fake.read_lag = None, False, 0.0
        for process in world.processes:
            process.latency = 0.0
        if not any(self._is_well(process) for process in world.processes):
            world.boot(*SLOTS[0])
        await self._until_no_orphans({SLOTS[0]})
        for process in world.processes:
            process.thaw()
        await anyio.sleep(1.0)
        await self._until_all_is_told()
        await self._drain()
        left = {slot for slot in self._used if world.truth.orphans({slot}, finished=True)}
        if left or world.in_flight:
            for slot in left or self._used:
                world.boot(*slot)
            await self._until_no_orphans(self._used, finished=True)
            await self._drain()

    async def _drain(self) -> None:
        for process in self.world.processes:
            process.drain()
        for process in self.world.processes:
            await process.gone.wait()

    async def abort(self) -> None:
        """Let all processes vanish."""
        for process in self.world.processes:
            if not process.gone.is_set():
                process.kill()

    def _is_well(self, process: Process) -> bool:
        life = process.life
        here = (life.credential, life.namespace) == SLOTS[0]
        return here and life.alive and not (process.frozen or life.draining)

    async def _until_no_orphans(self, groups: set[Slot], *, finished: bool = False) -> None:
        await anyio.sleep(0.1)
        await self._until_none(lambda: self.world.truth.orphans({*groups}, finished=finished))

    async def _until_all_is_told(self) -> None:
        here = [process for process in self.world.processes if process.life.alive]
        unread = ["a stream is open that nobody reads"]

        def left() -> list[str]:
            told = [told for process in here for told in process.unaware()]
            return told + unread * (self.world.fake.open_streams > 0)

        await self._until_none(left)

    async def _until_none(self, find: Callable[[], list[str]]) -> None:
        truth, pause, until = self.world.truth, 0.5, anyio.current_time() + ENOUGH
        while (left := find()) or self.world.in_flight:
            if truth.crimes:
                return
            if anyio.current_time() > until:
                for crime in left:
                    truth.accuse(crime)
                return
            await anyio.sleep(pause)
            pause = min(2 * pause, 20.0)


def befall(process: Process, what: str, *how: Any) -> None:
    """Let something happen to a process that runs."""
    match what:
        case "kill":
            process.kill()
        case "pause":
            process.freeze()
        case "resume":
            process.thaw()
        case "drain":
            process.drain()
        case "slow":
            process.latency = how[0]
        case "cancel":
            process.cancel(how[0], PLACES[how[1]])
        case "read":
            process.read(how[0], PLACES[how[1]])
        case _:
            raise ValueError(what)


async def _live_through(schedule: Sequence[Step], handle: type[Handle]) -> Truth:
    async with anyio.create_task_group() as group:
        world = World(group, handle)
        run = Run(world)
        for step in schedule:
            await run.do(step)
            if world.truth.crimes:
                break
        else:
            with anyio.move_on_after(10 * ENOUGH) as bound:
                await run.heal()
            if bound.cancelled_caught:
                world.truth.accuse("it does not come to an end")
        await run.abort()
    return world.truth


def live_through(schedule: Sequence[Step], handle: type[Handle] = Handle) -> Truth:
    """Carry a schedule out, and return the judge."""
    clock = MockClock(autojump_threshold=0)
    with virtual():
        return anyio.run(
            _live_through,
            schedule,
            handle,
            backend="trio",
            backend_options={"clock": clock, "instruments": [Freezing()]},
        )
