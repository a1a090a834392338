"""What is swept: a program dies at one of its steps, perhaps its heir does too, and one lives on.

After that the remote system and the ledger have to agree that nothing is left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
import trio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.errors import ProtocolError
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.lifecycle import State
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.testing import FakeSigmic
from tests.crash.life import Life, MortalLedger, bury, throw_away
from tests.crash.network import Late, MortalApi, Network
from tests.crash.program import DEPLOYED, KEY, Program
from tests.crash.worlds import PLAIN, World, clock_of
from tests.observe.sums import sums

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.testing.fake_task import FakeTask

#: Makes a handle on the store of one story.
Handles = Callable[[], "Ledger"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long things take, in seconds."""

    unit: float
    create_timeout: float
    patience: float
    look_every: float


#: Where time costs nothing, and where it does.
VIRTUAL = Pace(unit=0.1, create_timeout=5.0, patience=300.0, look_every=2.0)
REAL = Pace(unit=0.004, create_timeout=0.3, patience=20.0, look_every=0.02)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What happens in a story."""

    #: The step of its life at which each process dies; one more comes after them, and lives on.
    deaths: tuple[int, ...] = (10**9,)
    late: Late = Late.AT_ONCE
    #: Whether the last process asks for the key, or leaves it to the reaper.
    claims: bool = False
    seed: int = 0
    pace: Pace = VIRTUAL
    world: World = PLAIN

    def but(self, **changes: Any) -> Plot:
        """Return the same plot with something changed."""
        return replace(self, **changes)


@dataclass
class Story:
    """What happened."""

    plot: Plot
    lives: list[Life] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        dead = [life.steps for life in self.lives if not life.alive]
        ends = [f"at step {len(steps) - 1} ({steps[-1]})" for steps in dead]
        return f"{self.plot}: died {' and '.join(ends)}: {'; '.join(self.problems)}"


async def tell(plot: Plot, handles: Handles | None = None) -> Story:
    """Let it happen, and look at what is left.

    On trio a plot makes much the same story each time; who wakes first of several that wait for one
    thing is left to chance.
    """
    random.seed(plot.seed)
    trio._core._run._r.seed(plot.seed)  # Hypothesis, once imported, has trio go by nothing else
    if handles is None:
        store = MemoryStore()
        handles = lambda: MemoryLedger(store)  # noqa: E731
    teller = _Teller(plot, handles)
    async with anyio.create_task_group() as group:
        with anyio.fail_after(4 * plot.pace.patience):
            await teller.run(group)
        group.cancel_scope.cancel()
    return teller.story


class _Teller:
    def __init__(self, plot: Plot, handles: Handles) -> None:
        self.plot = plot
        self.story = Story(plot)
        self._handles = handles
        chance = random.Random(plot.seed)
        unit = plot.pace.unit
        self._delay = lambda: chance.random() * unit / 3
        self.fake = FakeSigmic()
        #: All rows that were ever written, as they are now.
        self.books: dict[str, Record] = {}
        self.registry = CollectorRegistry()
        self.network: Network
        self.program: Program
        #: The rows as they were when the last but one died.
        self.rows_at_death: dict[str, Record] = {}
        #: The ids of the tasks that the last process got, by key.
        self.claimed: dict[str, str | None] = {}

    async def run(self, group: TaskGroup) -> None:
        plot = self.plot
        timeout = plot.pace.create_timeout
        self.network = Network(self.fake, group, self._delay, plot.late, timeout, plot.world)
        clocks = (*plot.world.clocks, *[(0.0, 0.0)] * (len(plot.deaths) + 1))
        self.observer = self._handles()
        await self.observer.open("observer")
        for number, dies_at in enumerate([*plot.deaths, None]):
            life = Life(dies_at)
            self.story.lives.append(life)
            plot.world.begin(self.fake)
            with clock_of(life, clocks[number]):
                if number == 0:
                    stranger = self.fake.add("adopted")
                    self.program = Program(
                        self.fake, life, stranger, unit=plot.pace.unit, ways=plot.world.ways
                    )
                    await self._live(life, self.program.run)
                else:
                    self.rows_at_death = dict(self.books)
                    await self._live(life, self._recover)
        self.story.problems = list(self._problems())
        await self.observer.aclose()

    async def _live(self, life: Life, program: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Run a process until it ends, or dies."""
        ledger = self._handles()
        self.registry = CollectorRegistry()
        supervisor = Supervisor(
            client=MortalApi(self.network, life),
            ledger=MortalLedger(ledger, life, self._delay, self.books),
            create_timeout=self.plot.pace.create_timeout,
            registry=self.registry,
        )
        ended = anyio.Event()

        async def process() -> None:
            try:
                await program(supervisor)
            except Exception:
                if life.alive:
                    raise
            finally:
                ended.set()

        async def reports_death() -> None:
            await life.died.wait()
            ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(process)
            group.start_soon(reports_death)
            await ended.wait()
            if not life.alive:
                throw_away(supervisor)
            group.cancel_scope.cancel()
        await bury(ledger)
        await self._read_up()

    async def _read_up(self) -> None:
        """Correct the books by the store: a thread may have done a commit of the dead."""
        rows = [await self.observer.get(intent_id) for intent_id in self.books]
        rows += await self.observer.unfinished()
        self.books |= {row.intent_id: row for row in rows if row is not None}

    # --- the heir -------------------------------------------------------------------------------

    async def _recover(self, supervisor: Supervisor) -> None:
        async with supervisor:
            if self.plot.claims:
                for key in (KEY, DEPLOYED):
                    said = f"claimed by {key} in life {len(self.story.lives)}"
                    self.claimed[key] = None
                    with suppress(ProtocolError):  # a gateway answered its create
                        task = await supervisor.start(said, key=key, on_crash="reattach")
                        self.claimed[key] = task.id
                        await task.cancel()
            await supervisor.reap()
            with anyio.move_on_after(self.plot.pace.patience):
                while any(self._nothing_is_left()):
                    await anyio.sleep(self.plot.pace.look_every)

    # --- what has to hold -----------------------------------------------------------------------

    def _problems(self) -> Iterator[str]:
        if self.story.lives[0].alive and not self.program.done:
            yield "nobody died, and the program did not come to its end"
        yield from self._nothing_is_left()
        yield from self._nothing_came_twice()
        yield from self._the_rows_are_right()
        yield from self._the_wanted_are_spared()
        yield from self._the_claim_came_through()
        totals = sums(self.registry)
        if totals.started != totals.finished or totals.live or totals.least:
            yield f"the metrics do not add up: {totals}"

    def _may_live(self, task: FakeTask) -> bool:
        if task.message in {"detached", "abandoned"}:
            return True
        if task.id == self.program.stranger:  # it became ours with its row
            return not any(row.remote_id == task.id for row in self.books.values())
        return False

    def _nothing_is_left(self) -> Iterator[str]:
        for task_id in self.fake.live:
            task = self.fake.tasks[task_id]
            if not self._may_live(task):
                yield f"{task.message!r} is live"
        if self.network.starting:
            yield "a create is under way"
        for row in self.books.values():
            if row.finished_at is None:
                yield f"a row is left {row.state}"

    def _nothing_came_twice(self) -> Iterator[str]:
        for message, count in self.network.arrived.items():
            if count > 1:
                yield f"{count} creates of {message!r} arrived"
        for intent_id, count in self.network.sent.items():
            if count > 1:
                yield f"the create of {intent_id} was sent {count} times"
        marks = Counter(task.env.get(MARKER) for task in self.fake.tasks.values())
        for mark, count in marks.items():
            if mark is not None and count > 1:
                yield f"{count} tasks were created for {mark}"

    def _the_rows_are_right(self) -> Iterator[str]:
        marked = self._marked()
        for row in self.books.values():
            task = marked.get(row.intent_id)
            if row.state is State.NEVER_CREATED and self.plot.late is Late.AFTER_THE_PROOF:
                continue
            if row.remote_id is not None:
                task = self.fake.tasks[row.remote_id]
            status = task.status if task is not None else "never_created"
            if row.state not in {status, State.DETACHED} or task is None != row.remote_id is None:
                message = task.message if task is not None else "?"
                yield f"{message!r} is {status}, and its row says {row.state}"

    def _the_wanted_are_spared(self) -> Iterator[str]:
        for row in self.rows_at_death.values():
            if row.remote_id is None:
                continue
            message = self.fake.tasks[row.remote_id].message
            free = message == "abandoned" and row.reason is None
            let_go = message == "detached" and row.state is State.DETACHED
            asked = (self.story.lives[-1], row.remote_id) in self.network.deletes
            if asked and (free or let_go):
                yield f"{message!r} was cancelled, and was to run on"

    def _the_claim_came_through(self) -> Iterator[str]:
        """A task that still runs is taken over by who asks for its key, and not created again."""
        marked = self._marked()
        for row in self.rows_at_death.values():
            task = marked.get(row.intent_id)
            key = row.key or ""
            kept = key == KEY or row.state is State.HANDED_OVER
            if not kept or row.finished_at or row.reason or task is None:
                continue
            late = self.plot.late is Late.AFTER_THE_PROOF
            if self.plot.claims and self.claimed[key] != task.id and not late:
                yield "the key led to another task"

    def _marked(self) -> dict[str | None, FakeTask]:
        return {task.env.get(MARKER): task for task in self.fake.tasks.values()}
