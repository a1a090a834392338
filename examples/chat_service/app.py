"""A chat over remote tasks, for browsers: ``make chat``, or ``uvicorn chat_service.app:app``.

Each turn of a conversation is one request, and its answer is a stream of events. Whoever closes the
page ends the turn, unless it is to be kept; a cancel button ends it from another request.

Put your own log-in in front: whoever reaches this service starts and cancels tasks.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from sigmic_guard import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    RemoteTask,
    TaskError,
    TaskNotFound,
    TaskPolicy,
)
from sigmic_guard.integrations.asgi import Guard, OnDisconnect
from sigmic_guard.integrations.fastapi import Tasks, TaskStream

PAGE: Final = Path(__file__).parent / "page"
#: Nothing but our own files: no inline script, no other host, no frame around us.
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def from_our_page(request: Request) -> None:
    """Refuse what a browser is made to do by another site's page, which may lead here."""
    site = request.headers.get("sec-fetch-site", "none")
    if request.method != "GET" and site not in {"none", "same-origin"}:
        raise HTTPException(403, "Ask from the page of this service.")


guard = Guard(policy=TaskPolicy(timeout=300))
app = FastAPI(lifespan=guard.lifespan, dependencies=[Depends(from_our_page)], openapi_url=None)
app.mount("/page", StaticFiles(directory=PAGE))


class Message(BaseModel):
    message: Annotated[str, Field(min_length=1, max_length=10_000)]
    #: Whether the task goes on when the page is closed.
    keep: bool = False

    @property
    def on_disconnect(self) -> OnDisconnect:
        return "keep" if self.keep else "cancel"


class Decision(BaseModel):
    outcome: Literal["proceed_once", "cancel"]


@app.get("/")
async def page() -> FileResponse:
    headers = {"content-security-policy": CSP, "referrer-policy": "no-referrer"}
    return FileResponse(PAGE / "index.html", headers=headers)


@app.post("/tasks")
async def start(turn: Message, tasks: Tasks) -> TaskStream:
    """The first turn: a task that belongs to this request, and ends with it."""
    how = turn.on_disconnect
    return TaskStream(tasks, turn.message, auto_execute=False, on_disconnect=how)


@app.post("/tasks/{task_id}/messages")
async def follow_up(task_id: str, turn: Message, tasks: Tasks) -> TaskStream:
    """A later one: its task ended with the request before, and is taken on again."""
    try:
        task = await tasks.adopt(task_id, on_disconnect=turn.on_disconnect)
    except ConfigurationError as error:  # it is supervised already
        raise HTTPException(409, "The task is still at work.") from error
    return TaskStream(tasks, turn.message, task=task)


@app.get("/tasks")
async def live(tasks: Tasks) -> list[dict[str, str | float | None]]:
    """The panel: what is live in this process; of many, the newest."""
    return [
        {"id": row.id, "state": row.state, "reason": row.reason, "age": row.age}
        for row in tasks.supervisor.snapshot()[-50:]
    ]


@app.delete("/tasks/{task_id}")
async def cancel(task_id: str, tasks: Tasks) -> dict[str, str]:
    """The cancel button: returns when the API has acknowledged it, or after five seconds."""
    return {"result": (await _find(task_id, tasks).cancel()).result}


@app.post("/tasks/{task_id}/tools/{call_id}")
async def decide(task_id: str, call_id: str, decision: Decision, tasks: Tasks) -> dict[str, bool]:
    """The buttons of a tool call that waits for somebody's word."""
    return {"approved": await _find(task_id, tasks).approve(call_id, decision.outcome)}


@app.exception_handler(TaskError)
async def ended(_: Request, error: TaskError) -> JSONResponse:
    """It was cancelled, or has failed: nothing was sent to it."""
    if guard.draining:
        raise error  # the guard says that the service shuts down
    return JSONResponse({"detail": "That task has ended for good: start a new chat."}, 409)


@app.exception_handler(ApiError)
@app.exception_handler(ConnectionFailed)
async def refused(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, TaskNotFound) else 502
    return JSONResponse({"detail": str(error)}, status)


def _find(task_id: str, tasks: Tasks) -> RemoteTask:
    if (task := tasks.supervisor.tasks.get(task_id)) is None:
        raise HTTPException(404, "The task has ended.")
    return task


guard.install(app)
