"""What runs in the processes that are killed: the program, step by step, and one that only hurries.

Real files, real sockets, and a real SIGKILL.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar
from unittest.mock import patch

import anyio
import structlog
from prometheus_client import CollectorRegistry

from sigmic_guard import SigmicGuardError, Supervisor
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.sigmic import SigmicClient
from sigmic_guard.supervisor.work.creating import Creator
from tests.crash.life import Life, MortalLedger
from tests.crash.program import Program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from pathlib import Path

    from sigmic_guard.sigmic import CreateRequest
    from sigmic_guard.sigmic.api import ApprovalOutcome, EventStream
    from sigmic_guard.sigmic.models import TaskInfo, TaskPage
    from sigmic_guard.supervisor.ground.entry import Entry

T = TypeVar("T")

KEY: Final = "sigmic_" + "c4a5" * 16
#: Seconds after which nobody can be at work on a create any more; everything is near.
CREATE_TIMEOUT: Final = 0.5
#: Seconds that a process may take in all, if nobody kills it.
MAX_SECONDS: Final = 30.0
#: Tasks that the hurried program has under way at once.
LANES: Final = 24


class _Doomed(Life):
    """A life that is ended by the kernel."""

    def mark(self, what: str) -> bool:
        if not super().mark(what):
            os.kill(os.getpid(), signal.SIGKILL)
        return True


class _DoomedApi:
    """The real client, with a step on either side of each request."""

    def __init__(self, inner: SigmicClient, life: Life) -> None:
        self._inner = inner
        self._life = life
        self.base_url = inner.base_url
        self.credential_fingerprint = inner.credential_fingerprint

    async def _request(self, name: str, request: Awaitable[T]) -> T:
        self._life.mark(f"about to send a {name}")
        try:
            return await request
        finally:
            self._life.mark(f"at the answer to a {name}")

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        return await self._request("create", self._inner.create(request, timeout=timeout))

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        return await self._request("get", self._inner.get(task_id, timeout=timeout))

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        listing = self._inner.list(limit=limit, offset=offset, timeout=timeout)
        return await self._request("list", listing)

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        return await self._request("delete", self._inner.delete(task_id, timeout=timeout))

    async def send(
        self, task_id: str, message: str, *, files: Sequence[Path] = (), timeout: float
    ) -> str:
        sending = self._inner.send(task_id, message, files=files, timeout=timeout)
        return await self._request("follow-up", sending)

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        approval = self._inner.approve(task_id, call_id, outcome, timeout=timeout)
        return await self._request("approval", approval)

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> EventStream:
        opening = self._inner.stream(task_id, timeout=timeout, silence=silence)
        return await self._request("stream", opening)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Scripted:
    """The emulator's tasks go as its scripts say: nothing is to be pushed."""

    def complete(self, task_id: str) -> None:
        """Let it happen."""

    def fail(self, task_id: str) -> None:
        """Let it happen."""


async def _step_by_step(url: str, path: str, stranger: str, dies_at: int) -> None:
    life = _Doomed(dies_at)
    client = SigmicClient(KEY, url)
    supervisor = Supervisor(
        client=_DoomedApi(client, life),
        ledger=MortalLedger(SqliteLedger(path), life, lambda: 0.0, {}),
        create_timeout=CREATE_TIMEOUT,
        registry=CollectorRegistry(),
    )
    try:
        await Program(_Scripted(), life, stranger, unit=0.02).run(supervisor)
    finally:
        await client.aclose()


async def _in_a_hurry(url: str, path: str, number: int) -> None:
    supervisor = Supervisor(
        api_key=KEY,
        base_url=url,
        ledger=SqliteLedger(path),
        create_timeout=CREATE_TIMEOUT,
        registry=CollectorRegistry(),
    )
    async with supervisor, anyio.create_task_group() as group:
        for lane in range(LANES):
            group.start_soon(_lane, supervisor, f"{number}.{lane}")


async def _lane(supervisor: Supervisor, name: str) -> None:
    chance = random.Random(name)
    for number in count():
        message = f"{name}.{number}"
        with suppress(SigmicGuardError):
            match chance.randrange(5):
                case 0:
                    async with supervisor.task(message):
                        pass
                case 1:
                    await supervisor.run(f"{message} completes")
                case 2:
                    await (await supervisor.start(message)).cancel()
                case 3:
                    await supervisor.start(message, timeout=0.1)
                case _:
                    await supervisor.start(message)


def step_by_step(*arguments: Any) -> None:
    """Run the program, and die at a step of it."""
    _run(_step_by_step, *arguments)


def in_a_hurry(*arguments: Any) -> None:
    """Create, cancel and complete as fast as can be, until somebody comes and kills."""
    _run(_in_a_hurry, *arguments)


def rashly(*arguments: Any) -> None:
    """The same, wrongly: POST before the intent is durable."""

    def only_queue(creator: Creator, task: Entry) -> None:
        creator._outbox.insert(task.record)
        creator._pool.put(task)

    with patch.object(Creator, "_write_intent", only_queue):
        in_a_hurry(*arguments)


def _run(program: Any, *arguments: Any) -> None:
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent)

    async def bounded() -> None:
        with anyio.fail_after(MAX_SECONDS):
            await program(*arguments)

    anyio.run(bounded)
