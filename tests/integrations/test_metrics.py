"""The page of the metrics: in one process and in several, for ASGI and for aiohttp.web."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from sigmic_guard import ConfigurationError
from sigmic_guard.integrations.metrics import child_exit, metrics_app, metrics_handler
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

STARTED = "sigmic_guard_tasks_started_total"
LIVE = "sigmic_guard_tasks_live"
FINISHED = "sigmic_guard_tasks_finished_total"


def total(text: str, name: str) -> float:
    """The sum of a series over its labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


async def ask(app: Any, *received: dict[str, Any], **scope: Any) -> list[dict[str, Any]]:
    """What an ASGI application sends."""
    sent: list[dict[str, Any]] = []
    waiting = list(received)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "headers": [], **scope}, receive, send)
    return sent


async def test_the_page_of_an_asgi_service() -> None:
    """It tells what the supervisor counts, and its sums agree."""
    lab = Lab()
    app = metrics_app(lab.registry)
    async with lab.open() as supervisor:
        await supervisor.start("m")
        start, body = await ask(app)
    headers = dict(start["headers"])
    text = body["body"].decode()
    assert start["status"] == 200
    assert headers[b"content-type"].startswith(b"text/plain")
    assert int(headers[b"content-length"]) == len(body["body"])
    assert total(text, STARTED) == 1 == total(text, LIVE) + total(text, FINISHED)


async def test_it_speaks_openmetrics_where_that_is_asked_for() -> None:
    app = metrics_app(Lab().registry)
    headers = [(b"accept", b"application/openmetrics-text; version=1.0.0")]
    start, body = await ask(app, headers=headers)
    assert dict(start["headers"])[b"content-type"].startswith(b"application/openmetrics-text")
    assert body["body"].endswith(b"# EOF\n")


async def test_it_can_be_served_by_itself() -> None:
    """A host asks it for a lifespan, and a stray websocket is closed."""
    app = metrics_app(CollectorRegistry())
    phases = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    told = await ask(app, *phases, type="lifespan")
    assert [message["type"] for message in told] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    told = await ask(app, {"type": "websocket.connect"}, type="websocket")
    assert told == [{"type": "websocket.close"}]


async def test_the_page_of_an_aiohttp_service() -> None:
    lab = Lab(duration=0.0)
    async with lab.open() as supervisor:
        await supervisor.run("m")
    app = web.Application()
    app.router.add_get("/metrics", metrics_handler(lab.registry))
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/metrics")) as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        assert total(await response.text(), FINISHED) == 1


# --- several processes --------------------------------------------------------------------------

#: Begins a task, says its process id, and waits to be ended.
WORKER = """
import os, signal, sys
import anyio
from sigmic_guard import Supervisor
from sigmic_guard.testing import FakeSigmic

async def main():
    async with Supervisor(client=FakeSigmic(), ledger="memory:", signals=True) as supervisor:
        await supervisor.start("m")
        print(os.getpid(), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""
#: Serves the page once.
READER = """
import anyio
from sigmic_guard.integrations.metrics import metrics_app

async def main():
    async def send(message):
        print(message.get("body", b"").decode())
    await metrics_app()({"type": "http", "headers": []}, None, send)

anyio.run(main)
"""


def read_page(environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", READER]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def live_by_prometheus_client() -> float:
    """What its own collector says, which knows nothing of processes."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return total(generate_latest(registry).decode(), LIVE)


def test_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sums are right; the gauges of a killed one do not count; gunicorn removes them."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    environment = dict(os.environ)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert int(worker.stdout.readline()) == worker.pid
        text = read_page(environment)
        assert (total(text, STARTED), total(text, LIVE), total(text, FINISHED)) == (2, 2, 0)

        killed, stopped = workers
        killed.kill()
        stopped.send_signal(signal.SIGTERM)
        assert [worker.wait(45) for worker in workers] == [-signal.SIGKILL, 128 + signal.SIGTERM]
        text = read_page(environment)
        assert (total(text, STARTED), total(text, LIVE), total(text, FINISHED)) == (2, 0, 1)
        assert live_by_prometheus_client() == 1
        child_exit(None, SimpleNamespace(pid=killed.pid))
        assert live_by_prometheus_client() == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()


def test_without_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is missing is said at once; where none is named the hook does nothing."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="PROMETHEUS_MULTIPROC_DIR"):
        metrics_app()
    metrics_app(CollectorRegistry())
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    child_exit(None, SimpleNamespace(pid=1))
