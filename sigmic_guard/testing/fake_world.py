"""The emulator's model of the remote system, on anyio's clock: :class:`FakeWorld`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from sigmic_guard.emulator.past import Past
from sigmic_guard.emulator.script import Script, ScriptBook
from sigmic_guard.emulator.service import Service
from sigmic_guard.emulator.world import Draft, World
from sigmic_guard.sigmic.models import TaskInfo, TaskPage
from sigmic_guard.testing.fake_task import FakeTask, Signal

if TYPE_CHECKING:
    from sigmic_guard.emulator import Task
    from sigmic_guard.sigmic.models import CreateRequest
    from sigmic_guard.testing.fake_faults import Call

#: Whose tasks these are, to the model; a fake knows one credential.
OWNER: Final = "fake"
#: The id of a task that is none of these.
STRANGER: Final = "ffffffff-ffff-4fff-8fff-ffffffffffff"

#: What anyio says where no event loop runs; the older one is private, and has no other base.
_NO_LOOP: Final = frozenset({"NoEventLoopError", "NoCurrentAsyncBackend"})


class FakeWorld:
    """All tasks, brought up to date whenever they are looked at, and who waits for a change.

    :ivar service: the routes, faults aside.
    """

    def __init__(self, default: Script) -> None:
        self.model = World(self._changed)
        self.service = Service(self.model, ScriptBook(default), Past(), self.settle)
        self.tasks: dict[str, FakeTask] = {}
        self.changed = Signal()
        self._now: float | None = None

    def settle(self) -> float:
        """Let happen what was due by now, in its order, and return now.

        Outside of an event loop there is no clock: everything is as it was when last looked at.
        """
        try:
            now = anyio.current_time()
        except Exception as error:
            if type(error).__name__ not in _NO_LOOP:
                raise
            return self._now or 0.0
        if self._now is None:  # once, lest the API's times wander against the world's
            self.service.epoch = datetime.now(UTC).timestamp() - now
        self._now = now
        self.model.advance(now)
        return now

    def create(self, request: CreateRequest) -> FakeTask:
        """Make a task; it runs at once."""
        draft = Draft(
            request.message,
            request.system_prompt,
            request.show_in_history,
            request.auto_execute,
            request.env,
        )
        task_id = f"00000000-0000-4000-8000-{len(self.tasks) + 1:012x}"
        model = self.service.create(task_id, OWNER, draft)
        task = self.tasks[task_id] = FakeTask(model, request, self.settle)
        self.settle()
        return task

    def send(self, task_id: str, message: str) -> None:
        """Save a message; a turn that begins with it goes as the script of that message says."""
        script = self.service.scripts.find(message, None)
        self.service.send(OWNER, task_id, message, script)
        self.settle()

    def complete(self, task_id: str, text: str | None) -> bool:
        """Complete a task by hand; ``False`` if it had ended already, which changes nothing."""
        task, now = self.tasks[task_id].now()
        if text is None and not task.script.chunks:
            text = task.script.answer
        return self.model.complete(task, text, now)

    def ask(self, task: FakeTask, tool: str) -> None:
        """Let a task stand still until somebody decides on a tool call."""
        model, now = task.now()
        self.model.ask(model, f"call-{len(task.approvals) + 1}", tool, now)

    def detail(self, task_id: str) -> TaskInfo:
        """Return a task as GET shows it."""
        return msgspec.convert(self.service.get(OWNER, task_id), TaskInfo)

    def page(self, limit: int, offset: int) -> TaskPage:
        """Return one page of the list."""
        rows, total = self.service.page(OWNER, limit, offset)
        tasks = msgspec.convert(rows, list[TaskInfo])
        return TaskPage(tasks, total, offset + len(tasks) < total)

    def of_another(self, call: Call, answer: object) -> object:
        """Return what the same request is told of another task; see ``SWAPPED``."""
        if call.method == "get":
            told = self.service.get_swapped(OWNER, str(call.task_id), STRANGER)
            return msgspec.convert(told, TaskInfo)
        other = self.service.another(OWNER, str(answer), live=True)
        return answer if other is None else other.id

    def _changed(self, model: Task) -> None:
        self.service.past.note(model)
        if (task := self.tasks.get(model.id)) is not None:
            task.changed.fire()
        self.changed.fire()


def script_of(
    *,
    duration: float | None,
    answer: str,
    chunks: tuple[str, ...] = (),
    fail: str | None = None,
    approval: str | None = None,
) -> Script:
    """Return a script as :meth:`~sigmic_guard.testing.FakeSigmic.script` says it."""
    # Of an end that is pushed by hand nobody knows the answer yet.
    return Script(
        duration=duration or 0.0,
        hold=duration is None,
        chunks=chunks if chunks or duration is None else (answer,),
        answer=answer,
        fail=fail,
        approval=approval,
        approval_at=0.0,
    )
