"""What each route of the API does to the world, faults aside."""

import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping

from aiohttp import web

from sigmic_guard.emulator import answers, bodies
from sigmic_guard.emulator.answers import Answer, Refusal
from sigmic_guard.emulator.routes import Call
from sigmic_guard.emulator.service import DeleteFinished, Service, check_delete_finished
from sigmic_guard.emulator.sse import Feed

Result = Answer | Feed
"""An answer, or the events that are to be streamed."""


class Api:
    """The routes over HTTP."""

    def __init__(
        self, service: Service, *, accepted: Collection[str] | None, delete_finished: DeleteFinished
    ) -> None:
        """Serve these; `accepted` are the valid credentials, None is any well-formed one."""
        self._service = service
        self._accepted = accepted
        self._delete_finished = check_delete_finished(delete_finished)
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
        return await self._handlers[call.route](request, call, self._owner(request))

    async def _create(self, request: web.BaseRequest, _: Call, owner: str) -> Result:
        draft = await bodies.draft(request)
        task = self._service.create(str(uuid.uuid4()), owner, draft)
        return dataclasses.replace(
            answers.success({"id": task.id, "status": task.status}), task_id=task.id
        )

    async def _get(self, _: web.BaseRequest, call: Call, owner: str) -> Result:
        return answers.success(self._service.get(owner, call.task_id))

    async def _list(self, request: web.BaseRequest, _: Call, owner: str) -> Result:
        limit, offset = bodies.page(request.raw_path.partition("?")[2])
        rows, total = self._service.page(owner, limit, offset)
        more = offset + len(rows) < total
        return answers.success(
            rows, pagination={"total": total, "limit": limit, "offset": offset, "hasMore": more}
        )

    async def _delete(self, _: web.BaseRequest, call: Call, owner: str) -> Result:
        cancelled = self._service.delete(owner, call.task_id, self._delete_finished)
        return answers.success(
            {"message": "Task cancelled" if cancelled else "Task already finished"}
        )

    async def _stream(self, _: web.BaseRequest, call: Call, owner: str) -> Result:
        return self._service.stream(owner, call.task_id)

    async def _send(self, request: web.BaseRequest, call: Call, owner: str) -> Result:
        self._service.find(owner, call.task_id)  # before what is wrong with the body
        self._service.send(owner, call.task_id, await bodies.message(request))
        return answers.success({"status": "running"})

    async def _approve(self, request: web.BaseRequest, call: Call, owner: str) -> Result:
        self._service.find(owner, call.task_id)
        outcome = await bodies.outcome(request)
        approved = self._service.approve(owner, call.task_id, call.call_id, outcome)
        return answers.success({"approved": approved})

    def swapped(self, request: web.BaseRequest, call: Call, answer: Answer) -> Answer:
        """What a `swapped` fault makes of the answer to a GET or a create that went well."""
        service, owner = self._service, self._owner(request)
        if call.route == "create":
            other = service.another(owner, answer.task_id or "", live=True)
            if other is None:
                return answer
            told = answers.success({"id": other.id, "status": "pending"})
            return dataclasses.replace(told, task_id=answer.task_id)
        return answers.success(service.get_swapped(owner, call.task_id, str(uuid.uuid4())))

    def _owner(self, request: web.BaseRequest) -> str:
        return answers.fingerprint(bodies.credential(request.headers, self._accepted))
