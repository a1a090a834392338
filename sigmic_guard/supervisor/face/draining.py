"""The drain: what happens within a shutdown's budget, in order, and what is said of it.

It runs in a worker of the supervisor, so that whatever hits those who wait for it does not hit it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, current_time, move_on_after

from sigmic_guard.lifecycle import CancelReason, Outcome, Record, State
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.lifecycle.states import ENDED, SETTLED, TO_BE_ENDED
from sigmic_guard.observe import ShutdownBegun, ShutdownFinished
from sigmic_guard.supervisor.ground.lifetime import Phase
from sigmic_guard.supervisor.ground.results import ShutdownReport, Snapshot, Span
from sigmic_guard.supervisor.ground.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sigmic_guard.supervisor.face.core import Core
    from sigmic_guard.supervisor.ground.entry import Entry

#: Seconds, beyond the budget, to write down what is left and to close connections.
CLOSING_SECONDS: Final = 0.4
#: The worker that ends a drain that was aborted.
LAST_WRITES: Final = "last writes"
#: Seconds of the budget that are kept for each task to be named, if it comes to that.
NAMING_SECONDS: Final = 60e-6
#: Whatever the policy says: it does not exist, or its end has been decided on before.
_TO_CANCEL: Final = TO_BE_ENDED | {State.INTENT}
#: What has an id by now, and whose end has not been decided on.
_FOUND: Final = frozenset({State.RUNNING, State.TAKEN_OVER})
#: What is left of the budget when somebody is in a hurry: time for the DELETEs that are under way.
HURRY_SECONDS: Final = 0.5


class Drain:
    """One shutdown. :meth:`carry_out` is done once, by a worker; the rest are plain calls."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ground = core.ground
        self._began = current_time()
        self._end = self._began + self._ground.settings.grace
        self._budget: CancelScope | None = None
        #: Around the last writes.
        self._writing: CancelScope | None = None
        self._aborted = False
        self._tasks: list[Entry] | None = None
        #: The unconfirmed that are asked for once more, and the version they had before.
        self._asked_again: list[tuple[Entry, int]] = []
        self.report: ShutdownReport | None = None
        #: Whether tasks are left to whoever asks for their key.
        self.handed_over = False
        #: Every task has its reason.
        self.marked = Event()
        self.done = Event()

    @property
    def grace(self) -> float:
        """Seconds that it is allowed in all."""
        return max(self._end - self._began, 0.0)

    def allow(self, grace: float) -> None:
        """Allow ``grace`` seconds instead of the supervisor's; before :meth:`carry_out`."""
        self._end = self._began + grace

    def shorten(self, grace: float) -> None:
        """Allow no more than ``grace`` seconds from now."""
        self._end = min(self._end, current_time() + grace)
        self._core.canceller.budget_end = self._end
        self._core.reconciler.hurry(by=self._end)
        if self._budget is not None:
            self._budget.deadline = self._stop()
        if self._writing is not None:
            self._writing.deadline = min(self._writing.deadline, self._end + CLOSING_SECONDS)
            self._core.outbox.hasten(self._writing.deadline)

    def _stop(self) -> float:
        """When to stop trying, so that all tasks can be named in what is left."""
        naming = NAMING_SECONDS * len(self._tasks or ())
        return self._end - min(naming, self.grace / 2) if naming > 0.1 else self._end

    def hurry(self) -> None:
        """Spend the rest of the budget at once."""
        self.shorten(HURRY_SECONDS)

    def abort(self) -> None:
        """End without having drained: there is a bug in here. Every task is named.

        What is known by now is written down first, as far as there is time for it.
        """
        if self._aborted:
            return
        self._aborted = True
        core = self._core
        core.lifetime.advance(Phase.CLOSED)
        core.caller_requests.close()
        core.reaper.close()
        for task in list(core.roster.tasks.values()):
            task.wake()
        self.marked.set()
        if self._ground.workers.stopping:
            self.end()
        else:
            self._ground.workers.start(LAST_WRITES, self._end_aborted)

    def end(self, unwritten: int = 0) -> None:
        """Let nobody wait any more for a drain that was aborted."""
        left = [_spanned(task) for task in self._core.roster.tasks.values()]
        self.report = self.report or self._report({}, 0, left, unwritten)
        self.done.set()

    async def _end_aborted(self) -> None:
        self.end(await self._write_last())

    async def carry_out(self) -> None:
        """Drain, write the report, and close everything. May be begun again in the middle."""
        if self._aborted:
            return
        core = self._core
        core.canceller.budget_end = self._end
        core.creator.hold()
        core.reaper.hold()
        core.reconciler.hurry(by=self._end)
        if self._tasks is None:
            self._tasks = list(core.roster.tasks.values())
            self._ground.observer.observe(ShutdownBegun(len(self._tasks), self.grace))
        tasks = self._tasks
        with CancelScope(deadline=self._stop()) as self._budget:
            await self._mark(tasks)
            await self._wait(tasks)
        self.marked.set()
        await self._give_up(tasks)
        await self._close()
        unwritten = await self._write_last()
        self.report = report = await self._tell(tasks, unwritten)
        await self._close_ledger()
        self._ground.observer.observe(
            ShutdownFinished(len(report.unconfirmed), report.unwritten, report.seconds)
        )
        self.done.set()

    async def _mark(self, tasks: list[Entry]) -> None:
        """Want every task ended, all in one transaction, and only then let the DELETEs go out."""
        core, slices = self._core, Slices()
        core.canceller.hold()
        try:
            await core.triage.release_adopted()
            for task in tasks:
                self._want_ended(task)
                await slices.yield_if_due()
            self.marked.set()
            await core.canceller.clear_all(tasks, self.grace)
        finally:
            core.canceller.release()
            core.canceller.hasten()

    def _want_ended(self, task: Entry) -> None:
        core, state, how = self._core, task.record.state, task.record.on_shutdown
        if state is State.COMPLETED:
            core.roster.apply(task, Happening.CLOSE)  # no follow-up is taken any more
            task.interrupt(CancelReason.SHUTDOWN)
        elif task.record.orphan:
            core.triage.end_now(task)  # without another look
        elif how == "cancel" or state in _TO_CANCEL:
            if state is State.UNCONFIRMED:
                self._asked_again.append((task, task.record.version))
            core.decider.cancel(task, CancelReason.SHUTDOWN)
        else:
            task.note_interruption(CancelReason.SHUTDOWN)  # first: who waits for it learns this
            if state not in ENDED:
                reattach = how == "reattach"
                core.roster.apply(task, Happening.HAND_OVER if reattach else Happening.DETACH)
                self.handed_over = self.handed_over or reattach

    async def _wait(self, tasks: list[Entry]) -> None:
        """Wait until nobody here works on any of them."""
        slices = Slices()
        for task in tasks:
            while task.pursued:
                await task.until(_awake)
                if task.record.state in _FOUND:  # its create came through just now
                    self._want_ended(task)
            await slices.yield_if_due()
        for task, version in self._asked_again:
            await task.until_changed(version)

    async def _give_up(self, tasks: list[Entry]) -> None:
        for worker in ("create", "claim"):
            self._ground.workers.dismiss(worker)
        slices = Slices()
        with move_on_after(CLOSING_SECONDS):
            await self._ground.workers.gone("claim")  # one may hold a row that it took just now
            for task in tasks:
                await task.until(lambda task: task.record.state is not State.CREATING)
                await slices.yield_if_due()
        for task in tasks:
            state = task.record.state
            undecided = state is State.TAKEN_OVER or task.record.reason is None
            if state is State.COMPLETED or (state not in SETTLED and undecided):
                # Its create came through at the last, or the budget ran out before it was marked.
                self._want_ended(task)
            if task.record.state not in SETTLED:
                why = task.record.last_error or "the shutdown's budget ran out"
                self._core.canceller.give_up(task, why)
            await slices.yield_if_due()

    async def _tell(self, tasks: list[Entry], unwritten: int) -> ShutdownReport:
        outcomes: Counter[Outcome] = Counter()
        never_created, unproven, slices = 0, list[tuple[Record, Span]](), Slices()
        for task in tasks:
            record = task.record
            outcome = record.outcome
            if record.state is State.NEVER_CREATED:
                never_created += 1
            elif outcome is None or record.state is State.UNCONFIRMED:
                unproven.append(_spanned(task))
            else:
                outcomes[outcome] += 1
            await slices.yield_if_due()
        return self._report(outcomes, never_created, unproven, unwritten)

    def _report(
        self,
        outcomes: Mapping[Outcome, int],
        never_created: int,
        unproven: list[tuple[Record, Span]],
        unwritten: int,
    ) -> ShutdownReport:
        count = Counter(outcomes)
        records, spans = [record for record, _ in unproven], [span for _, span in unproven]
        return ShutdownReport(
            cancelled=count[Outcome.CANCELLED] + count[Outcome.TIMED_OUT],
            finished=count[Outcome.COMPLETED] + count[Outcome.FAILED],
            detached=count[Outcome.DETACHED],
            never_created=never_created,
            unconfirmed=Snapshot(records, spans, self._core.lifetime.now(), current_time()),
            unwritten=unwritten,
            seconds=current_time() - self._began,
            grace=self.grace,
        )

    async def _close(self) -> None:
        core = self._core
        core.lifetime.advance(Phase.CLOSED)
        core.caller_requests.close()
        core.reaper.close()
        slices = Slices()
        for task in list(core.roster.tasks.values()):
            task.wake()
            await slices.yield_if_due()

    async def _write_last(self) -> int:
        """Write down what is left, until the time is over; return how many ends could not be."""
        core, now = self._core, current_time()
        ends_at = max(self._end, now - CLOSING_SECONDS / 2) + CLOSING_SECONDS
        core.outbox.hasten(ends_at)
        with CancelScope(deadline=ends_at) as self._writing:
            await core.outbox.empty()
        for worker in ("ledger", "reap", "reconcile"):
            self._ground.workers.dismiss(worker)
        core.outbox.close()
        return await core.outbox.unwritten()

    async def _close_ledger(self) -> None:
        """Close it within the budget, or a moment beyond; one that hangs gets no second."""
        await self._core.roster.close()  # from here on somebody else may take the tasks over
        now = current_time()
        ends_at = max(now + CLOSING_SECONDS / 2, min(self._end, now + 2 * CLOSING_SECONDS))
        with CancelScope(deadline=ends_at):
            await self._ground.ledger.aclose()


def _spanned(task: Entry) -> tuple[Record, Span]:
    return task.record, Span(task.begun_at, task.deadline)


def _awake(task: Entry) -> bool:
    return not task.pursued or task.record.state in _FOUND
