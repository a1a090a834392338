"""The sweep: one run for each step of the caller, and what has to hold after every single one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal

import sniffio
from anyio import Event, create_task_group, fail_after
from prometheus_client import CollectorRegistry

from sigmic_guard import SupervisorShutdown
from tests.injection.injections import CANCELLATIONS, NATIVE, Injection, drive
from tests.injection.uses import CANCEL, WAIT, Run, Stage, Use, alone
from tests.observe.sums import sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.injection.injections import Ending
    from tests.injection.stepper import Moment
    from tests.injection.worlds import World

#: How a use is done: within a supervisor that is open, or with its block.
Program = Callable[[Use, Run], Awaitable[None]]

#: Seconds that one run may take, the supervisor's end included.
MAX_SECONDS = 20.0


@dataclass(frozen=True)
class Case:
    """What is swept."""

    use: Use
    injection: Injection
    #: Where in a step; or the steps are the turns of the loop, whoever has them.
    moment: Moment | Literal["turn"] = "suspended"
    program: Program = alone

    def __str__(self) -> str:
        return f"{self.use}-{self.injection}-{self.moment}-{self.program.__name__}"


@dataclass
class Swept:
    """What came of a sweep."""

    #: How often each stage was hit.
    hits: Counter[Stage] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many steps were hit."""
        return self.hits.total()


async def sweep(world: World, case: Case) -> Swept:
    """Inject at step 0, 1, 2, … until the caller has no such step."""
    swept = Swept()
    for at in count():
        run, ending, problems = await _run_once(world, case, at)
        where = run.hit.name if run.hit is not None else "nothing hit"
        swept.failures += [f"{case} at step {at} ({where}): {problem}" for problem in problems]
        if not ending.fired:
            return swept
        assert run.hit is not None
        swept.hits[run.hit] += 1
    raise AssertionError("count() ends never")


async def _run_once(world: World, case: Case, at: int) -> tuple[Run, Ending, list[str]]:
    world.begin()
    registry = CollectorRegistry()
    # A create that is torn apart is looked for until its time is up: short, where that happens.
    create_timeout = world.short if case.injection is Injection.EVERY_TASK else 30.0
    run = Run(world, world.supervisor(registry, create_timeout), Event())
    async with create_task_group() as group:
        if case.use.push_on is not None:
            waited_for = run.waiting.wait
            if case.use.push_on == "stream":
                waited_for = world.stream_opened
            group.start_soon(_complete_once, run, waited_for)
        spared = _tasks_of_this_loop()
        program = _as_coroutine(case, run)
        with fail_after(MAX_SECONDS):
            if case.program is alone:
                async with run.supervisor:
                    run.enter(Stage.OPEN)
                    ending = await drive(
                        program, run, case.injection, at=at, moment=case.moment, spared=spared
                    )
            else:
                ending = await drive(
                    program, run, case.injection, at=at, moment=case.moment, spared=spared
                )
        group.cancel_scope.cancel()
    return run, ending, list(_problems(case, run, ending, registry))


async def _as_coroutine(case: Case, run: Run) -> None:
    await case.program(case.use, run)


async def _complete_once(run: Run, waited_for: Callable[[], Awaitable[None]]) -> None:
    await waited_for()
    run.push()


def _tasks_of_this_loop() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() if sniffio.current_async_library() == "asyncio" else set()


# --- what has to hold --------------------------------------------------------------------------


def _problems(case: Case, run: Run, ending: Ending, registry: CollectorRegistry) -> Iterator[str]:
    yield from _nothing_is_left(case, run, registry)
    yield from _it_came_out(case, run, ending)
    yield from _the_reason_is_right(case, run, registry)


def _nothing_is_left(case: Case, run: Run, registry: CollectorRegistry) -> Iterator[str]:
    world, totals = run.world, sums(registry)
    if world.live:
        yield f"{world.live} live tasks"
    if run.live_after_block and not _may_leave_early(case, run):
        yield f"{run.live_after_block} live tasks when the block had been left"
    if world.posted > 1 or len(world.statuses) > 1:
        yield f"{world.posted} POSTs created {len(world.statuses)} tasks"
    if totals.started != totals.finished or totals.live or totals.least:
        yield f"the metrics do not add up: {totals}"
    if not len(world.statuses) <= totals.started <= 1:
        yield f"{totals.started} tasks started, {len(world.statuses)} created"


def _may_leave_early(case: Case, run: Run) -> bool:
    """Whether a native cancellation hit the wait for the DELETE itself, which goes on without us.

    A second one in a row always does; a single one only where the block was being left already.
    """
    twice = {Injection.NATIVE_TWICE, Injection.NATIVE_BOTH_AT_ONCE}
    return case.injection in twice or (case.injection in NATIVE and run.hit is Stage.LEAVING)


def _it_came_out(case: Case, run: Run, ending: Ending) -> Iterator[str]:
    if not ending.fired:
        if not ending.returned or (not run.finished and case.use is not CANCEL):
            yield f"with nothing in its way it {ending}"
        return
    assert run.hit is not None
    if run.hit is Stage.DONE:  # too late: only the loop's turns come to that
        if not ending.returned:
            yield f"it was done already, and {ending}"
    elif case.injection in CANCELLATIONS:
        if not ending.cancelled or ending.error is not None:
            yield f"it was cancelled, and {ending}"
        # wait() and start() may return what they have got; the next checkpoint raises.
        native = case.injection in NATIVE
        if run.hit <= Stage.LEAVING and Stage.BACK in run.visited and (native or case.use.scoped):
            yield "it was cancelled, and went on behind the block"
    elif ending.error is not None:
        if not isinstance(ending.error, SupervisorShutdown):
            yield f"upon the shutdown it {ending}"
        if not case.use.scoped and Stage.BODY in run.visited:
            yield "the handle of a task in the background raised for the shutdown"
    elif not ending.returned or not (
        run.finished
        or run.hit in {Stage.OUTSIDE, Stage.CLOSING}
        or (Stage.BODY in run.visited and not case.use.scoped)
    ):
        yield f"upon the shutdown it {ending}"


def _the_reason_is_right(case: Case, run: Run, registry: CollectorRegistry) -> Iterator[str]:
    told = [
        (sample.labels["outcome"], sample.labels["reason"])
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "sigmic_guard_tasks_finished_total" and sample.value
    ]
    if not told:
        if run.hit is None or run.hit > Stage.ENTERING:
            yield "no task was counted"
        return
    (outcome, reason), *more = told
    status = next(iter(run.world.statuses), "cancelled")  # none: withdrawn before the POST
    if case.injection is Injection.EVERY_TASK and not run.world.statuses and outcome == "failed":
        return  # its worker was struck before the POST, and before the caller could want its end
    allowed = _reasons(case, run) | ({"none"} if status == "completed" else set())
    if more or outcome != status or reason not in allowed:
        yield f"the task is {status}, and was counted as {told}; reasons can be {sorted(allowed)}"


def _reasons(case: Case, run: Run) -> set[str]:
    """What may have been the first cause of the cancellation, if the task was cancelled."""
    own_end = {CANCEL: "user", WAIT: "none"}.get(case.use, "scope")
    if run.hit is None or run.hit > Stage.LEAVING:
        return {own_end}
    if case.injection is Injection.SHUTDOWN:
        late = run.finished or run.hit is Stage.LEAVING or case.use is CANCEL
        return {"shutdown", own_end} if late else {"shutdown"}
    if case.use.scoped:
        return {"scope"}
    # A task in the background is not bound to its caller: it ends with the supervisor.
    on_its_own = {"shutdown"} if own_end == "none" else {"shutdown", own_end}
    if run.hit >= Stage.BODY:
        return on_its_own
    late = case.injection is Injection.SCOPE and case.moment == "resuming"
    return on_its_own | {"scope"} if late else {"scope"}
