"""What the server answers: the envelope, the error codes, and the JSON of a task."""

import dataclasses
import datetime as dt
import functools
import hashlib
from collections.abc import Mapping

import msgspec

from sigmic_guard.emulator.turn import Step
from sigmic_guard.emulator.world import Task

CODES: Mapping[str, int] = {
    "AUTH_REQUIRED": 401,
    "INVALID_API_KEY": 401,
    "INVALID_AUTH_FORMAT": 401,
    "INVALID_TOKEN": 401,
    "ORIGIN_NOT_ALLOWED": 403,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "VALIDATION_ERROR": 400,
    "JWT_NOT_CONFIGURED": 501,
}
"""The documented error codes and their HTTP statuses."""

JSON = "application/json; charset=utf-8"

_encode = msgspec.json.Encoder().encode


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, before it is sent, well or badly."""

    status: int
    body: bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content_type: str = JSON
    task_id: str | None = None
    """The task that it made, for the request log."""


class Refusal(Exception):
    """A request that is answered with the failure envelope. `status` defaults to the code's own."""

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        """Keep what the envelope needs."""
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = CODES[code] if status is None else status

    def answer(self, headers: Mapping[str, str] | None = None) -> Answer:
        """The failure envelope."""
        return failure(self.status, self.code, self.message, headers)


def success(data: object, **beside: object) -> Answer:
    """The success envelope; `beside` stands next to `data`."""
    return Answer(200, _encode({"success": True, "data": data, **beside}))


def failure(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Answer:
    """The failure envelope."""
    body = {"success": False, "error": {"code": code, "message": message}}
    return Answer(status, _encode(body), headers or {})


def plain(document: object) -> Answer:
    """JSON without an envelope, for the control routes."""
    return Answer(200, _encode(document))


def timestamp(seconds: float | None, epoch: float = 0.0) -> str | None:
    """ISO-8601 in UTC with milliseconds and a Z, as the API writes it.

    `epoch` is where the clock that counts the seconds has its zero, in seconds since 1970; so it is
    everywhere below.
    """
    if seconds is None:
        return None
    moment = dt.datetime.fromtimestamp(epoch + seconds, dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


@functools.lru_cache(maxsize=4096)
def fingerprint(credential: str) -> str:
    """Who a credential is, without keeping it."""
    return "key-" + hashlib.sha256(credential.encode()).hexdigest()[:16]


def task_fields(task: Task, epoch: float) -> dict[str, object]:
    """The fields that GET and list have in common."""
    draft = task.draft
    return {
        "id": task.id,
        "apiKeyId": task.owner,
        "username": "emulator",
        "sessionId": f"session-{task.id}",
        "conversationId": f"conversation-{task.id}",
        "status": task.status,
        "message": draft.message,
        "systemPrompt": draft.system_prompt,
        "showInHistory": draft.show_in_history,
        "autoExecute": draft.auto_execute,
        "env": draft.env,
        "error": task.error,
        "createdAt": timestamp(task.created_at, epoch),
        "startedAt": timestamp(task.started_at, epoch),
        "completedAt": timestamp(task.completed_at, epoch),
    }


def task_detail(task: Task, now: float, epoch: float = 0.0) -> dict[str, object]:
    """A task as GET shows it."""
    fields = task_fields(task, epoch)
    if task.started_at is not None:
        fields["output"] = _output(task, now, epoch)
    if task.asked is not None:
        asked = task.asked
        fields["pendingApprovals"] = [{key: asked[key] for key in ("callId", "toolName", "args")}]
    return fields


def task_row(task: Task, epoch: float = 0.0) -> dict[str, object]:
    """A task as the list shows it."""
    fields = task_fields(task, epoch)
    fields["lastActivityAt"] = timestamp(task.activity_at, epoch)
    fields["messageCount"] = len(task.messages)
    return fields


def history(task: Task, epoch: float = 0.0) -> list[dict[str, object]]:
    """The saved messages, as the stream's `history_message` shows them."""
    return [
        {
            "id": f"{task.id}-{number}",
            "role": message.role,
            "content": message.content,
            "createdAt": timestamp(message.created_at, epoch),
        }
        for number, message in enumerate(task.messages, 1)
    ]


def _output(task: Task, now: float, epoch: float) -> dict[str, object]:
    steps = task.steps(now)
    updated = task.updated_at(len(steps))
    output: dict[str, object] = {"content": task.said(now), "updatedAt": timestamp(updated, epoch)}
    if thoughts := [step.data["text"] for step in steps if step.event == "thought"]:
        output["thoughts"] = thoughts
    if calls := _latest_calls(steps):
        output["toolCalls"] = calls
    return output


def _latest_calls(steps: tuple[Step, ...]) -> list[object]:
    """Each tool call once, as last heard of, its result included."""
    calls: dict[object, dict[str, object]] = {}
    for step in steps:
        if step.event == "tool_call":
            calls.setdefault(step.data["callId"], {}).update(step.data)
        elif step.event == "tool_result":
            calls[step.data["callId"]]["result"] = step.data["result"]
    return list(calls.values())
