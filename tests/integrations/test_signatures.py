"""What applications write against: the names of the integrations, and how they are called."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_args

import pytest

from sigmic_guard import CancelReason, Supervisor, serve
from sigmic_guard.integrations import aiohttp_web, asgi, fastapi, starlette
from sigmic_guard.integrations.admin import admin_app
from sigmic_guard.integrations.metrics import metrics_app
from sigmic_guard.integrations.otel import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable

#: Each with its parameters, and those of their defaults that are simple values.
CALLS: dict[Callable[..., Any], str] = {
    asgi.Guard: "supervisor=None, *, on_disconnect='cancel', retry_after=2, signals='auto', "
    "**supervisor_options",
    asgi.Guard.lifespan: "self, app",
    asgi.Guard.around: "self, lifespan",
    asgi.Guard.install: "self, app",
    asgi.RequestTasks.task: "self, message, *, on_disconnect=None, **options",
    asgi.RequestTasks.run: "self, message, *, on_disconnect=None, **options",
    asgi.RequestTasks.start: "self, message, *, on_disconnect='keep', **options",
    asgi.RequestTasks.adopt: "self, task, *, on_disconnect=None, **options",
    asgi.TaskStream: "tasks, message=None, *, task=None, encode, heartbeat=15.0, farewell=None, "
    "**options",
    starlette.TaskStream: "tasks, message=None, *, task=None, encode, heartbeat=15.0, "
    "farewell=None, headers=None, background=None, **options",
    starlette.tasks_of: "connection",
    aiohttp_web.setup: "app, *, on_disconnect='cancel', **supervisor_options",
    aiohttp_web.tasks_of: "request",
    aiohttp_web.stream: "request, message=None, *, task=None, encode, heartbeat=15.0, "
    "farewell=None, **options",
    serve: "main, *, signals=True, **supervisor_options",
    metrics_app: "registry=None",
    admin_app: "guard, *, token",
    Tracing: "tracer_provider=None, *, messages=False",
    Supervisor.on_drain: "self, callback",
}


def spelled(call: Callable[..., Any]) -> str:
    signature = inspect.signature(call)
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if callable(parameter.default) else parameter.default,
        )
        for parameter in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return text.removeprefix("(").removesuffix(")")


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_how_it_is_called(call: Callable[..., Any]) -> None:
    assert spelled(call) == CALLS[call]


def test_what_there_is_beside_calls() -> None:
    for name in "supervisor", "middleware":
        assert hasattr(asgi.Guard, name) or name in vars(asgi.Guard(ledger="memory:"))
    for name in "supervisor", "disconnected":
        assert hasattr(asgi.RequestTasks, name)
    assert isinstance(inspect.getattr_static(Supervisor, "draining"), property)
    assert fastapi.TaskStream is starlette.TaskStream
    assert get_args(fastapi.Tasks)[0] is asgi.RequestTasks
    assert CancelReason("disconnect") is CancelReason.DISCONNECT
