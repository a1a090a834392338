"""What each route of the API does to the world, faults aside."""

import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal, get_args

from aiohttp import web

from sigmic_guard.emulator import answers, bodies
from sigmic_guard.emulator.answers import Answer, Refusal
from sigmic_guard.emulator.past import Past
from sigmic_guard.emulator.routes import Call
from sigmic_guard.emulator.script import ScriptBook
from sigmic_guard.emulator.world import Task, World

CancelFinished = Literal["conflict", "ok", "lie", "not_found"]
"""What DELETE answers for a task that has ended.

409, 200 "Task already finished", 200 "Task cancelled", or 404.
"""
CANCEL_FINISHED: tuple[CancelFinished, ...] = get_args(CancelFinished)

Result = Answer | Task
"""An answer, or the task whose events are to be streamed."""


class Api:
    """The routes. `world` may be replaced between requests."""

    def __init__(
        self,
        world: World,
        scripts: ScriptBook,
        clock: Callable[[], float],
        past: Past,
        *,
        accepted: Collection[str] | None,
        cancel_finished: CancelFinished,
    ) -> None:
        """Serve this world; `accepted` are the valid credentials, None is any well-formed one."""
        if cancel_finished not in CANCEL_FINISHED:
            message = f"cancel_finished is one of {', '.join(CANCEL_FINISHED)}"
            raise ValueError(message)
        self.world = world
        self.scripts = scripts
        self._clock = clock
        self._past = past
        self._accepted = accepted
        self._cancel_finished = cancel_finished
        self._handlers: Mapping[str, Callable[[web.BaseRequest, Call, str], Awaitable[Result]]] = {
            "create": self._create,
            "get": self._get,
            "list": self._list,
            "delete": self._delete,
            "stream": self._stream,
            "send": self._send,
            "approve": self._approve,
        }

    async def perform(self, request: web.BaseRequest, call: Call) -> Result:
        """Do what a request asks for; raises `Refusal`, which then had no effect."""
        if not call.resource:
            raise Refusal("NOT_FOUND", "no such route")
        if not call.route:
            raise Refusal("METHOD_NOT_ALLOWED", f"not with {request.method}", status=405)
        credential = bodies.credential(request.headers, self._accepted)
        return await self._handlers[call.route](request, call, answers.fingerprint(credential))

    async def _create(self, request: web.BaseRequest, _: Call, owner: str) -> Result:
        draft = await bodies.draft(request)
        try:
            script = self.scripts.find(draft.message, draft.env)
        except ValueError as error:
            raise Refusal("VALIDATION_ERROR", str(error)) from error
        task = self.world.create(str(uuid.uuid4()), owner, draft, script, self._clock())
        return dataclasses.replace(
            answers.success({"id": task.id, "status": task.status}), task_id=task.id
        )

    async def _get(self, _: web.BaseRequest, call: Call, owner: str) -> Result:
        return answers.success(answers.task_detail(*self._seen(call, owner)))

    async def _list(self, request: web.BaseRequest, _: Call, owner: str) -> Result:
        limit, offset = bodies.page(request.raw_path.partition("?")[2])
        if self._past.lag:
            tasks, total = self._past.page(owner, limit, offset, self._clock())
        else:
            tasks, total = self.world.page(owner, limit, offset)
        more = offset + len(tasks) < total
        return answers.success(
            [answers.task_row(task) for task in tasks],
            pagination={"total": total, "limit": limit, "offset": offset, "hasMore": more},
        )

    async def _delete(self, _: web.BaseRequest, call: Call, owner: str) -> Result:
        self._seen(call, owner)
        task, now = self._find(call, owner)
        if self.world.cancel(task, now) or self._cancel_finished == "lie":
            return answers.success({"message": "Task cancelled"})
        if self._cancel_finished == "ok":
            return answers.success({"message": "Task already finished"})
        if self._cancel_finished == "not_found":
            raise _unknown(call)
        raise Refusal("VALIDATION_ERROR", f"task is already {task.status}", status=409)

    async def _stream(self, _: web.BaseRequest, call: Call, owner: str) -> Result:
        seen = self._seen(call, owner)[0]
        # What is live is shown as it lives: only an end can be one that is over.
        return self._find(call, owner)[0] if seen.live else seen

    async def _send(self, request: web.BaseRequest, call: Call, owner: str) -> Result:
        self._find(call, owner)
        message = await bodies.message(request)
        task, now = self._find(call, owner)
        try:
            self.world.send(task, message, now)
        except ValueError as error:
            raise Refusal("VALIDATION_ERROR", str(error)) from error
        return answers.success({"status": "running"})

    async def _approve(self, request: web.BaseRequest, call: Call, owner: str) -> Result:
        self._find(call, owner)
        outcome = await bodies.outcome(request)
        task, now = self._find(call, owner)
        if task.asked is None or task.asked["callId"] != call.call_id:
            raise Refusal("NOT_FOUND", f"no tool call {call.call_id!r} awaits approval")
        approved = outcome != "cancel"
        self.world.decide(task, approved=approved, now=now)
        return answers.success({"approved": approved})

    def swapped(self, request: web.BaseRequest, call: Call, answer: Answer) -> Answer:
        """What a `swapped` fault makes of the answer to a GET or a create that went well."""
        owner = answers.fingerprint(bodies.credential(request.headers, self._accepted))
        tasks, _ = self.world.page(owner, len(self.world.tasks), 0)
        mine = call.task_id or answer.task_id
        for other in (task for task in tasks if task.id != mine):
            if call.route == "get":
                return answers.success(answers.task_detail(other, self._clock()))
            if other.live:
                told = answers.success({"id": other.id, "status": "pending"})
                return dataclasses.replace(told, task_id=answer.task_id)
        if call.route == "get":
            task, now = self._find(call, owner)
            stranger = {"id": str(uuid.uuid4())}
            return answers.success(answers.task_detail(task, now) | stranger)
        return answer

    def _seen(self, call: Call, owner: str) -> tuple[Task, float]:
        """The task as reads show it, and when it was so."""
        task, now = self._find(call, owner)
        if not self._past.lag:
            return task, now
        seen = self._past.seen(task.id, now)
        if seen is None:
            raise _unknown(call)
        return seen, now - self._past.lag

    def _find(self, call: Call, owner: str) -> tuple[Task, float]:
        now = self._clock()
        task = self.world.find(owner, call.task_id, now)
        if task is None:
            raise _unknown(call)
        return task, now


def _unknown(call: Call) -> Refusal:
    return Refusal("NOT_FOUND", f"no task {call.task_id!r}")
