"""What each route of the API does to the world, whoever asks: over HTTP, or in memory.

Pure, as the world is: the clock is given, and nothing is sent.
"""

from collections.abc import Callable
from typing import Literal, get_args

from sigmic_guard.emulator import answers
from sigmic_guard.emulator.answers import Refusal
from sigmic_guard.emulator.past import Past
from sigmic_guard.emulator.script import Script, ScriptBook
from sigmic_guard.emulator.sse import Feed
from sigmic_guard.emulator.world import Draft, Task, World

MAX_PAGE = 100

DeleteFinished = Literal["conflict", "ok", "lie", "not_found"]
"""What DELETE answers for a task that has ended.

409, 200 "Task already finished", 200 "Task cancelled", or 404.
"""
DELETE_FINISHED: tuple[DeleteFinished, ...] = get_args(DeleteFinished)


def check_delete_finished(word: DeleteFinished) -> DeleteFinished:
    """Return the word; raises `ValueError` if it is none of them."""
    if word not in DELETE_FINISHED:
        message = f"delete_finished is one of {', '.join(DELETE_FINISHED)}"
        raise ValueError(message)
    return word


class Service:
    """The routes, faults aside. `world` may be replaced between requests.

    All raise `Refusal`, and then had no effect. A task of another credential is unknown, and so is
    one that reads do not know yet where they lag behind.
    """

    def __init__(
        self, world: World, scripts: ScriptBook, past: Past, clock: Callable[[], float]
    ) -> None:
        """Serve this world."""
        self.world = world
        self.scripts = scripts
        self.past = past
        self.clock = clock
        self.epoch = 0.0
        """Where the clock has its zero, in seconds since 1970."""

    def create(self, task_id: str, owner: str, draft: Draft) -> Task:
        """Make a task, which goes as its env, its message or the default script says."""
        try:
            script = self.scripts.find(draft.message, draft.env)
        except ValueError as error:
            raise Refusal("VALIDATION_ERROR", str(error)) from error
        return self.world.create(task_id, owner, draft, script, self.clock())

    def get(self, owner: str, task_id: str) -> dict[str, object]:
        """A task as GET shows it."""
        task, now = self.find(owner, task_id)
        if (seen := self._seen(task, now)) is not task:
            now -= self.past.lag
        return answers.task_detail(seen, now, self.epoch)

    def page(self, owner: str, limit: int, offset: int) -> tuple[list[dict[str, object]], int]:
        """Tasks as the list shows them, most recent activity first, and how many there are."""
        if not 1 <= limit <= MAX_PAGE:
            raise Refusal("VALIDATION_ERROR", f"limit is 1 to {MAX_PAGE}")
        if offset < 0:
            raise Refusal("VALIDATION_ERROR", "offset is 0 or more")
        now = self.clock()
        if self.past.lag:
            tasks, total = self.past.page(owner, limit, offset, now)
        else:
            tasks, total = self.world.page(owner, limit, offset)
        return [answers.task_row(task, self.epoch) for task in tasks], total

    def delete(self, owner: str, task_id: str, finished: DeleteFinished) -> bool:
        """Cancel a task; False if the answer says that it had ended already."""
        task, now = self.find(owner, task_id)
        self._seen(task, now)
        if self.world.cancel(task, now) or finished == "lie":
            return True
        if finished == "ok":
            return False
        if finished == "not_found":
            raise Refusal("NOT_FOUND", f"no task {task_id!r}")
        raise Refusal("VALIDATION_ERROR", f"task is already {task.status}", status=409)

    def stream(self, owner: str, task_id: str) -> Feed:
        """The events of one connection to a task's stream."""
        task, now = self.find(owner, task_id)
        return Feed(task, self._seen(task, now), self.epoch)

    def send(self, owner: str, task_id: str, message: str, script: Script | None = None) -> None:
        """Save a follow-up message; the turn that it may begin goes as its own `script` says."""
        task, now = self.find(owner, task_id)
        try:
            self.world.send(task, message, now, script)
        except ValueError as error:
            raise Refusal("VALIDATION_ERROR", str(error)) from error

    def approve(self, owner: str, task_id: str, call_id: str, outcome: str) -> bool:
        """Decide on the tool call that a task asks for; False if that is to cancel it."""
        task, now = self.find(owner, task_id)
        if task.asked is None or task.asked["callId"] != call_id:
            raise Refusal("NOT_FOUND", f"no tool call {call_id!r} awaits approval")
        approved = outcome != "cancel"
        self.world.decide(task, approved=approved, now=now)
        return approved

    def another(self, owner: str, task_id: str, *, live: bool = False) -> Task | None:
        """The other task of the credential that was active last, of those that live if so asked."""
        tasks, _ = self.world.page(owner, len(self.world.tasks), 0)
        others = (task for task in tasks if task.id != task_id and (task.live or not live))
        return next(others, None)

    def get_swapped(self, owner: str, task_id: str, stranger_id: str) -> dict[str, object]:
        """The other task that was active last as GET shows it; without one, a stranger's id."""
        other = self.another(owner, task_id)
        if other is None:
            return self.get(owner, task_id) | {"id": stranger_id}
        return answers.task_detail(other, self.clock(), self.epoch)

    def find(self, owner: str, task_id: str) -> tuple[Task, float]:
        """A task as it is, and the time."""
        now = self.clock()
        task = self.world.find(owner, task_id, now)
        if task is None:
            raise _unknown(task_id)
        return task, now

    def _seen(self, task: Task, now: float) -> Task:
        """A task as reads show it."""
        if not self.past.lag:
            return task
        seen = self.past.seen(task.id, now)
        if seen is None:
            raise _unknown(task.id)
        return seen


def _unknown(task_id: str) -> Refusal:
    return Refusal("NOT_FOUND", f"no task {task_id!r}")
