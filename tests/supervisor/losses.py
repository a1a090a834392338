"""A remote system that loses creates, shows them late, and bends its list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from anyio import Event, current_time

from sigmic_guard import ConnectionFailed, Supervisor
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Write
from sigmic_guard.lifecycle import Record
from sigmic_guard.observe import CandidatesFound, Logs, ObservedEvent
from sigmic_guard.sigmic.models import CreateRequest, TaskInfo, TaskPage
from sigmic_guard.supervisor.ground.clock import WallClock
from sigmic_guard.testing import LOST, FakeSigmic, Reaction
from sigmic_guard.testing.fake_faults import Call
from sigmic_guard.testing.records import make_record
from tests.supervisor.lab import Lab

#: The request was sent, and had no effect (yet).
GONE = ConnectionFailed("the connection was reset", sent=True)

change = msgspec.structs.replace


class Remote(FakeSigmic):
    """Remembers what was sent, and shows its list through ``bend``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[CreateRequest] = []
        #: Gets a page and its offset.
        self.bend: Callable[[TaskPage, int], TaskPage] = lambda page, _: page
        #: Gets what GET shows of a task.
        self.bend_get: Callable[[TaskInfo], TaskInfo] = lambda info: info

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        self.sent.append(request)
        return await super().create(request, timeout=timeout)

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        return self.bend_get(await super().get(task_id, timeout=timeout))

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        page = await super().list(limit=limit, offset=offset, timeout=timeout)
        return self.bend(page, offset)

    def appear(self, index: int = -1, **env: str) -> str:
        """Let a create take effect that was sent, by now without anybody who waits for it."""
        request = self.sent[index]
        return self.add(request.message, **{**request.env, **env})

    def bend_rows(self, bend: Callable[[TaskInfo], TaskInfo | None]) -> None:
        """Show each task as ``bend`` has it; not at all for ``None``."""

        def bent(page: TaskPage, _: int) -> TaskPage:
            return change(page, tasks=[it for it in map(bend, page.tasks) if it is not None])

        self.bend = bent


class LossLab(Lab):
    """A lab over such a system.

    :param options: what ``FakeSigmic`` takes.
    """

    fake: Remote

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fake = Remote(**options)
        WallClock()  # from here on it goes as the virtual clock does

    def lists(self) -> int:
        return self.fake.count("list")


def every_fifth(fault: Reaction = LOST) -> Callable[[Call], Reaction | None]:
    """Return a reaction that befalls each fifth call."""
    calls = 0

    def reaction(_: Call) -> Reaction | None:
        nonlocal calls
        calls += 1
        return fault if calls % 5 == 0 else None

    return reaction


def clock_off_by(seconds: float) -> Callable[[TaskInfo], TaskInfo]:
    """Return a bend that shows all times as a server with another clock tells them."""

    def moved(at: str | None) -> str | None:
        if at is None:
            return None
        there = datetime.fromisoformat(at) + timedelta(seconds=seconds)
        return there.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    return lambda info: change(
        info, created_at=moved(info.created_at), last_activity_at=moved(info.last_activity_at)
    )


def without_times(info: TaskInfo) -> TaskInfo:
    return change(info, created_at=None, last_activity_at=None)


@dataclass
class Reports:
    """What was reported of candidates: the intent and the ids, once per report."""

    all: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    heard: Event = field(default_factory=Event)

    @property
    def ids(self) -> list[set[str]]:
        return [set(ids) for _, ids in self.all]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    found = Reports()

    def note(_: Logs, event: ObservedEvent) -> None:
        if isinstance(event, CandidatesFound):
            found.all.append((event.record.intent_id, event.task_ids))
            found.heard.set()

    monkeypatch.setattr(Logs, "observe", note)
    return found


async def leave_behind(lab: Lab, store: MemoryStore, *intent_ids: str, **fields: Any) -> None:
    """Write rows of an owner that is dead by now; ``fields`` are those of a record."""
    rows = [
        make_record(
            intent_id,
            **{
                "owner_id": "dead",
                "base_url": lab.fake.base_url,
                "credential_fingerprint": lab.fake.credential_fingerprint,
                "created_at": time.time(),
                **fields,
            },
        )
        for intent_id in intent_ids
    ]
    await write_rows(store, rows)


async def write_rows(store: MemoryStore, rows: Iterable[Record]) -> None:
    ledger = MemoryLedger(store)
    await ledger.open("writer")
    assert not any(await ledger.commit([Write(row, 0) for row in rows]))
    await ledger.aclose()


async def unwanted(supervisor: Supervisor, message: str = "m", **options: Any) -> None:
    """Start a task that turns out not to exist."""
    began = current_time()
    with pytest.raises(ConnectionFailed):
        await supervisor.start(message, **options)
    assert current_time() - began < 120
