"""The page of the metrics under hosts with several workers, one of which is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
import pytest

import sigmic_guard
from sigmic_guard.emulator import Emulator, Script
from tests.integrations.hosts import KEY, PROGRAMS, free_port
from tests.integrations.test_metrics import FINISHED, LIVE, STARTED, total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

REAPED = "sigmic_guard_orphans_reaped_total"
#: One with the hook that its documentation names, and one that knows no such thing.
HOSTS = {
    "gunicorn": (
        *("gunicorn", "-w", "2", "-k", "aiohttp.GunicornWebWorker", "--graceful-timeout", "10"),
        *("-c", str(PROGRAMS / "gunicorn_metrics.py"), "--bind", "127.0.0.1:{port}"),
        "metrics_service:app",
    ),
    "uvicorn": ("uvicorn", "--workers", "2", "--port", "{port}", "metrics_asgi:app"),
}


@asynccontextmanager
async def workers(host: str, port: int, emulator: Emulator, folder: Path) -> AsyncIterator[None]:
    """Two workers that share a ledger and a directory for their metrics."""
    (folder / "metrics").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(sigmic_guard.__path__[0]).parent), str(PROGRAMS)]),
        "SIGMIC_API_KEY": KEY,
        "SIGMIC_BASE_URL": emulator.url,
        "SIGMIC_GUARD_LEDGER": f"sqlite:///{folder / 'ledger.db'}",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
    }
    command = [argument.format(port=port) for argument in HOSTS[host]]
    process = await anyio.open_process(
        [sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def get(port: int, path: str) -> str:
    """Ask for a page, over a connection of its own: any worker may answer."""
    while True:
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{port}{path}") as response:
                return await response.text()
        except (aiohttp.ClientConnectionError, socket.gaierror):
            await anyio.sleep(0.05)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_killed_worker_is_forgotten(host: str, tmp_path: Path) -> None:
    """Its live tasks are on the page no more; what the next one ends for it is told as orphaned."""
    async with Emulator(script=Script(hold=True)) as emulator:
        with anyio.fail_after(40):
            await check(host, emulator, tmp_path)
        assert emulator.state()["tasks"]["live"] == 0


async def check(host: str, emulator: Emulator, folder: Path) -> None:
    port = free_port()
    async with workers(host, port, emulator, folder):
        began: dict[int, int] = {}
        while len(began) < 2:  # until both of them have had a turn
            pid = int(await get(port, "/start"))
            began[pid] = began.get(pid, 0) + 1
        count = sum(began.values())
        text = await get(port, "/metrics")
        assert (total(text, STARTED), total(text, LIVE)) == (count, count)

        killed, lost = began.popitem()
        os.kill(killed, signal.SIGKILL)
        await emulator.wait_for(lambda state: state["tasks"]["live"] == count - lost)
        while (total(text, LIVE), total(text, REAPED)) != (count - lost, lost):
            await anyio.sleep(0.05)
            text = await get(port, "/metrics")
        assert total(text, STARTED) > total(text, LIVE) + total(text, FINISHED)
