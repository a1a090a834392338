"""FastAPI: the dependency :data:`Tasks`, and a :class:`TaskStream` to return from an endpoint.

::

    guard = Guard()
    app = FastAPI(lifespan=guard.lifespan)
    guard.install(app)

    @app.get("/ask")
    async def ask(q: str, tasks: Tasks) -> TaskStream:
        return TaskStream(tasks, q)
"""

from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import HTTPConnection

from sigmic_guard.integrations.requests import RequestTasks
from sigmic_guard.integrations.starlette import TaskStream, tasks_of

__all__ = ["TaskStream", "Tasks"]


async def _tasks(connection: HTTPConnection) -> RequestTasks:
    return tasks_of(connection)  # a plain function would be sent to a thread


#: A parameter of this type gets the tasks of the request, or of the websocket.
Tasks: TypeAlias = Annotated[RequestTasks, Depends(_tasks)]
