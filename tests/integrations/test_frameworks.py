"""FastAPI and Starlette, with their own test clients: what people write works as it stands."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from starlette.middleware.base import BaseHTTPMiddleware

from sigmic_guard import ConfigurationError, Supervisor
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.integrations.fastapi import Tasks, TaskStream
from sigmic_guard.testing import FakeSigmic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def make(fake: FakeSigmic, **options: Any) -> tuple[FastAPI, Guard]:
    guard = Guard(client=fake, ledger="memory:", registry=CollectorRegistry(), **options)
    app = FastAPI(lifespan=guard.lifespan)
    guard.install(app)

    @app.get("/run")
    async def run(q: str, tasks: Tasks) -> str | None:
        return (await tasks.run(q)).final_response

    @app.get("/stream")
    async def stream(q: str, tasks: Tasks, background: BackgroundTasks) -> TaskStream:
        background.add_task(done.append, q)
        response = TaskStream(tasks, q, headers={"X-Mine": "1"})
        response.set_cookie("seen", "1")
        return response

    @app.post("/start", status_code=202)
    async def start(q: str, tasks: Tasks) -> str:
        return (await tasks.start(q)).id

    @app.websocket("/chat")
    async def chat(websocket: WebSocket, tasks: Tasks) -> None:
        await websocket.accept()
        result = await tasks.run(await websocket.receive_text())
        await websocket.send_text(result.final_response or "")

    done: list[str] = []
    app.state.done = done
    return app, guard


def test_everything_at_once() -> None:
    fake = FakeSigmic(duration=0.01, answer="42")
    app, _ = make(fake)
    with TestClient(app) as client:
        assert client.get("/run?q=m").json() == "42"
        response = client.get("/stream?q=m")
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-mine"] == response.cookies["seen"] == "1"
        assert '{"outcome":"completed","reason":null}' in response.text
        assert app.state.done == ["m"]
        assert client.post("/start?q=m").status_code == 202
        with client.websocket_connect("/chat") as websocket:
            websocket.send_text("m")
            assert websocket.receive_text() == "42"
    assert not fake.live


def test_a_guard_can_be_started_again() -> None:
    """As each test with a ``TestClient`` does."""
    fake = FakeSigmic(duration=0.01)
    app, guard = make(fake)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/run?q=m").status_code == 200
        fake.reopen()
    with pytest.raises(ConfigurationError, match="lifespan is not running"):
        _ = guard.supervisor


def test_behind_other_middleware() -> None:
    fake = FakeSigmic(duration=0.01)
    guard = Guard(client=fake, ledger="memory:", registry=None)
    app = FastAPI(lifespan=guard.lifespan)

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    guard.install(app)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

    @app.get("/stream")
    async def stream(q: str, tasks: Tasks) -> TaskStream:
        return TaskStream(tasks, q)

    with TestClient(app) as client:
        assert "completed" in client.get("/stream?q=m").text
    assert not fake.live


def test_around_a_lifespan_of_ones_own() -> None:
    fake = FakeSigmic(duration=0.01)
    guard = Guard(client=fake, ledger="memory:", registry=None)
    seen: list[str] = []

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append(repr(guard.supervisor))
        yield {"mine": "1"}
        seen.append(repr(guard.supervisor))

    app = FastAPI(lifespan=guard.around(mine))
    guard.install(app)

    @app.get("/run")
    async def run(tasks: Tasks) -> str | None:
        return (await tasks.run("m")).final_response

    with TestClient(app) as client:
        assert client.app_state == {"mine": "1"}
        assert client.get("/run").json() == "the answer"
    assert seen == ["<Supervisor, open, 0 tasks>"] * 2


def test_an_error_of_ones_own_lifespan_comes_out_as_it_is() -> None:
    guard = Guard(client=FakeSigmic(), ledger="memory:", registry=None)

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[None]:
        raise ZeroDivisionError("mine")
        yield

    with (
        pytest.raises(ZeroDivisionError, match="mine"),
        TestClient(FastAPI(lifespan=guard.around(mine))),
    ):
        pass
    with pytest.raises(ConfigurationError, match="lifespan is not running"):
        _ = guard.supervisor


def test_a_mounted_application_says_what_to_do() -> None:
    fake = FakeSigmic()
    inner, _ = make(fake)
    outer = FastAPI()
    outer.mount("/inner", inner)
    with (
        TestClient(outer) as client,
        pytest.raises(ConfigurationError, match="mounted in another one gets no lifespan"),
    ):
        client.get("/inner/run?q=m")


def test_without_the_middleware_the_dependency_says_what_to_do() -> None:
    app = FastAPI()

    @app.get("/run")
    async def run(tasks: Tasks) -> None: ...

    with TestClient(app) as client, pytest.raises(ConfigurationError, match="guard around"):
        client.get("/run")


def test_a_supervisor_that_nobody_has_entered_is_refused() -> None:
    supervisor = Supervisor(client=FakeSigmic(), ledger="memory:", registry=None)
    guard = Guard(supervisor)
    with (
        pytest.raises(ConfigurationError, match="enter the supervisor first"),
        TestClient(FastAPI(lifespan=guard.lifespan)),
    ):
        pass


async def test_a_supervisor_of_somebody_elses_is_not_left() -> None:
    fake = FakeSigmic()
    async with Supervisor(client=fake, ledger="memory:", registry=None) as supervisor:
        guard = Guard(supervisor)
        async with guard.lifespan(None):
            assert guard.supervisor is supervisor
            await supervisor.start("m")
            with pytest.raises(ConfigurationError, match="the guard runs already"):
                await guard.start()
        assert len(fake.live) == 1
        assert not supervisor.draining


# --- a guard's arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, said",
    [
        ({"on_disconnect": "stop"}, "on_disconnect must be 'cancel', 'keep' or seconds"),
        ({"on_disconnect": -1}, "on_disconnect"),
        ({"retry_after": "soon"}, "retry_after"),
        ({"signals": "maybe"}, "signals must be True, False or 'auto'"),
        ({"signals": []}, "signals must be True, False or 'auto'"),
        ({"supervisor": object()}, "supervisor must be a Supervisor"),
        ({"graze": 8}, "no option graze"),
    ],
)
def test_an_argument_that_cannot_be_right_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Guard(**options)


def test_making_one_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even without a key: an application is imported where there may be none."""
    monkeypatch.delenv("SIGMIC_API_KEY", raising=False)
    assert repr(Guard()) == "<Guard, not running>"


def test_an_application_that_takes_no_middleware_is_told_how() -> None:
    with pytest.raises(ConfigurationError, match=r"app = guard\.middleware\(app\)"):
        Guard().install(object())
