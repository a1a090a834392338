"""What the emulator believes to be the truth: tasks, their statuses, their order by activity.

Pure: no network, no timer, no clock; `now` is an argument, in seconds of whichever clock, and
`next_due` says when to come back. Every change of a status goes through one funnel, `_move`, which
validates before it mutates.
A task that ends is kept, until `reset`.
"""

import collections
import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping

from sigmic_guard.emulator import turn as turns
from sigmic_guard.emulator.script import Script
from sigmic_guard.emulator.turn import Data, Status, Step, Turn

STATUSES: tuple[Status, ...] = (
    "pending",
    "running",
    "awaiting_approval",
    "completed",
    "failed",
    "cancelled",
)
TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
MOVES: Mapping[Status, frozenset[Status]] = {
    "pending": frozenset({"running", "cancelled"}),
    "running": frozenset({"awaiting_approval", "completed", "failed", "cancelled"}),
    "awaiting_approval": frozenset({"running", "cancelled"}),
    "completed": frozenset({"running"}),
    "failed": frozenset({"running"}),
    "cancelled": frozenset(),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """What a create asks for. `files` are pairs of name and size in bytes; secrets are not kept."""

    message: str
    system_prompt: str | None = None
    show_in_history: bool = True
    auto_execute: bool = True
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A saved message of the history."""

    role: str
    content: str
    created_at: float


@dataclasses.dataclass(slots=True, eq=False)
class Task:
    """A task as the server knows it; only `World` changes it. Times are seconds of its clock."""

    id: str
    owner: str
    draft: Draft
    script: Script
    created_at: float
    turn: Turn
    turn_begun: float
    status: Status = "pending"
    error: str | None = None
    started_at: float | None = None
    completed_at: float | None = None
    activity_at: float = 0.0
    turn_number: int = 1
    earlier: tuple[tuple[Step, ...], ...] = ()
    """What was said in each turn before this one."""
    messages: list[Message] = dataclasses.field(default_factory=list)
    asked: Data | None = None
    """The tool call that the task waits for; set exactly while it awaits approval."""
    change: int | None = None
    """Index in the turn of the next step that changes the status."""
    due: float = math.inf
    """When that step comes. An entry of the heap with another time is stale."""

    @property
    def message(self) -> str:
        """The instruction that it was created with."""
        return self.draft.message

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that it was created with, secrets left out."""
        return self.draft.env

    @property
    def live(self) -> bool:
        """Whether it still runs, that is, costs money."""
        return self.status not in TERMINAL

    def steps(self, now: float, turn_number: int | None = None) -> tuple[Step, ...]:
        """The steps of a turn, by default the current one, that lie behind."""
        if turn_number is not None and turn_number != self.turn_number:
            return self.earlier[turn_number - 1]
        return self.turn.steps[: self.passed(now)]

    def passed(self, now: float) -> int:
        """How many steps of the current turn lie behind; a task that ended says no more."""
        end = now if self.completed_at is None else min(now, self.completed_at)
        return self.turn.passed(self.turn_begun, end)

    def updated_at(self, passed: int) -> float:
        """When the last of that many steps of the current turn was made."""
        return self.turn_begun + self.turn.offsets[passed - 1] if passed else self.turn_begun

    def said(self, now: float) -> str:
        """What it said in the current turn so far."""
        return turns.said(self.steps(now))


class World:
    """All tasks of all credentials. `changed` is called after every change, with the task."""

    def __init__(self, changed: Callable[[Task], object] = lambda _: None) -> None:
        """Begin with nothing."""
        self.tasks: dict[str, Task] = {}
        self.live: dict[str, Task] = {}
        self.counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)
        self.messages: collections.Counter[str] = collections.Counter()
        self.duplicates: dict[str, int] = {}
        self._changed = changed
        self._heap: list[tuple[float, int, Task]] = []
        self._serial = itertools.count()
        # Per credential, oldest activity first: an active task is put back at the end.
        self._activity: dict[str, dict[str, Task]] = collections.defaultdict(dict)

    def create(self, task_id: str, owner: str, draft: Draft, script: Script, now: float) -> Task:
        """A new pending task."""
        task = Task(
            id=task_id,
            owner=owner,
            draft=draft,
            script=script,
            created_at=now,
            turn=turns.first_turn(script),
            turn_begun=now,
            activity_at=now,
        )
        task.messages.append(Message("user", draft.message, now))
        self.tasks[task_id] = self.live[task_id] = self._activity[owner][task_id] = task
        self.counts["pending"] += 1
        self.messages[draft.message] += 1
        if (copies := self.messages[draft.message]) > 1:
            self.duplicates[draft.message] = copies
        self._aim(task, 0)
        self._changed(task)
        return task

    def find(self, owner: str, task_id: str, now: float) -> Task | None:
        """The task with this id if the credential may see it, brought up to `now`."""
        task = self.tasks.get(task_id)
        if task is None or task.owner != owner:
            return None
        self.settle(task, now)
        return task

    def page(self, owner: str, limit: int, offset: int) -> tuple[list[Task], int]:
        """Tasks of a credential, most recent activity first, and how many it has in all."""
        mine = self._activity.get(owner, {})
        recent: Iterator[Task] = reversed(mine.values())
        return list(itertools.islice(recent, offset, offset + limit)), len(mine)

    def next_due(self) -> float:
        """When the next status changes by itself; infinite if none will."""
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def advance(self, now: float, limit: float = math.inf) -> None:
        """Bring at most `limit` tasks up to `now`, in the order in which they change."""
        while limit > 0 and self.next_due() <= now:
            self.settle(heapq.heappop(self._heap)[2], now, once=True)
            limit -= 1

    def settle(self, task: Task, now: float, *, once: bool = False) -> None:
        """Bring one task up to `now`; `once` makes it stop after one change."""
        while task.due <= now and task.change is not None:
            at, index = task.due, task.change
            step = task.turn.steps[index]
            self._aim(task, index + 1)
            self._move(task, step, at)
            if once:
                return

    def cancel(self, task: Task, now: float) -> bool:
        """Cancel a task; False if it had ended already, which changes nothing."""
        self.settle(task, now)
        if not task.live:
            return False
        self._aim(task, len(task.turn.steps))
        self._move(task, Step("cancelled", {}, becomes="cancelled"), now)
        return True

    def complete(self, task: Task, text: str | None, now: float) -> bool:
        """Complete a task by hand; False if it had ended already, which changes nothing."""
        scripted = task.script.answer
        said = task.said(now) if scripted is None else scripted
        return self._push(task, now, lambda offset: turns.completing(offset, said, text))

    def fail(self, task: Task, error: str, now: float) -> bool:
        """Fail a task by hand; False if it had ended already, which changes nothing."""
        return self._push(task, now, lambda offset: turns.failing(offset, error))

    def ask(self, task: Task, call_id: str, tool: str, now: float) -> None:
        """Let a task stand still until somebody decides on a tool call, from now on.

        Raises:
            ValueError: it does not run.
        """
        self.settle(task, now)
        if task.status != "running":
            message = f"task {task.id} is {task.status} and cannot ask"
            raise ValueError(message)
        self._rewrite(task, now, lambda offset: turns.asking(offset, call_id, tool))

    def decide(self, task: Task, *, approved: bool, now: float) -> None:
        """Let a task go on that awaits approval, with or without the tool.

        Raises:
            ValueError: it awaits none.
        """
        if task.asked is None:
            message = f"task {task.id} is {task.status} and awaits no approval"
            raise ValueError(message)
        asked = task.asked
        self._rewrite(
            task,
            now,
            lambda offset: turns.decided(task.script, asked, approved=approved, offset=offset),
        )

    def send(self, task: Task, message: str, now: float, script: Script | None = None) -> None:
        """Save a follow-up message; a task that had completed or failed begins a new turn with it.

        The turn goes as its own `script` says, or else as that of the task says of follow-ups.

        Raises:
            ValueError: the task was cancelled, its session is gone.
        """
        self.settle(task, now)
        if task.status == "cancelled":
            error = f"task {task.id} was cancelled; no message can be sent to it"
            raise ValueError(error)
        task.messages.append(Message("user", message, now))
        if task.live:
            self._touch(task, now)
            return
        task.earlier = (*task.earlier, task.steps(now))
        if script is None:
            task.turn = turns.follow_up_turn(task.script)
        else:
            task.script, task.turn = script, turns.first_turn(script)
        task.turn_begun = now
        task.turn_number += 1
        self._aim(task, 0)
        self.settle(task, now, once=True)

    def _push(self, task: Task, now: float, future: Callable[[float], Turn]) -> bool:
        self.settle(task, now)
        if not task.live:
            return False
        if task.status != "running":
            self._move(task, Step("status", {"status": "processing"}, becomes="running"), now)
        self._rewrite(task, now, future)
        return True

    def _rewrite(self, task: Task, now: float, future: Callable[[float], Turn]) -> None:
        """Replace what was still to come in this turn by `future(offset)`, which begins at once."""
        passed = task.passed(now)
        # At least the last offset: the row stays ascending though `now` was rounded below it.
        offset = max(now - task.turn_begun, *task.turn.offsets[passed - 1 : passed], 0.0)
        task.turn = task.turn.rewritten(passed, future(offset))
        self._aim(task, passed)
        self.settle(task, task.turn_begun + offset)

    def _aim(self, task: Task, index: int) -> None:
        """Look for the task's next change of status, from step `index` on."""
        task.change = task.turn.next_change(index)
        if task.change is None:
            task.due = math.inf
            return
        task.due = task.turn_begun + task.turn.offsets[task.change]
        heapq.heappush(self._heap, (task.due, next(self._serial), task))

    def _move(self, task: Task, step: Step, at: float) -> None:
        """Change a status. The only place that does."""
        status = step.becomes
        if status is None or status not in MOVES[task.status]:
            message = f"task {task.id} cannot go from {task.status} to {status}"
            raise ValueError(message)
        self.counts[task.status] -= 1
        self.counts[status] += 1
        task.status = status
        task.asked = step.data if status == "awaiting_approval" else None
        if status in TERMINAL:
            task.completed_at = at
            del self.live[task.id]
            if status == "completed":
                task.messages.append(Message("assistant", str(step.data["finalResponse"]), at))
            elif status == "failed":
                task.error = str(step.data["message"])
        else:
            task.completed_at = task.error = None
            task.started_at = at if task.started_at is None else task.started_at
            self.live[task.id] = task
        self._touch(task, at)

    def _touch(self, task: Task, at: float) -> None:
        """Make this the most recently active task of its credential."""
        task.activity_at = at
        mine = self._activity[task.owner]
        mine.pop(task.id, None)
        mine[task.id] = task
        self._changed(task)
