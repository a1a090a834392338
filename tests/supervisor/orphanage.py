"""Rows that dead owners left, and ledgers that let a reaper down."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

import pytest
from anyio import fail_after
from anyio.lowlevel import checkpoint

from sigmic_guard import LedgerError, ReapResult, State, Supervisor, TaskPolicy
from sigmic_guard.ledger import CorruptRows, MemoryLedger, MemoryStore, Write
from sigmic_guard.lifecycle import Record
from sigmic_guard.supervisor.face.core import Core
from sigmic_guard.testing.records import make_record
from tests.supervisor.lab import Lab

#: Seconds that every row here has been without an owner, unless it says something else.
AGO = 100.0


def row(lab: Lab, intent_id: str = "intent-1", **fields: Any) -> Record:
    """Return an unfinished row of a dead owner, whose task runs unless ``fields`` know better."""
    policy = {name: fields.pop(name) for name in _TERMS & fields.keys()}
    if "remote_id" not in fields:
        fields["remote_id"] = lab.fake.add()
    return make_record(
        intent_id,
        **{
            "state": State.RUNNING,
            "owner_id": "dead",
            "base_url": lab.fake.base_url,
            "credential_fingerprint": lab.fake.credential_fingerprint,
            "policy": TaskPolicy().but(**policy),
            "created_at": time.time() - AGO,
            **fields,
        },
    )


_TERMS = {"on_crash", "reattach_within", "on_lost", "confirm"}


async def write(store: MemoryStore, *rows: Record) -> None:
    """Write rows as their owners did, who may be dead or alive."""
    ledger = MemoryLedger(store)
    await ledger.open("writer")
    assert not any(await ledger.commit([Write(row, 0) for row in rows]))
    await ledger.aclose()


async def left(lab: Lab, store: MemoryStore, **fields: Any) -> str:
    """Leave one row behind; return its remote id, which may be none."""
    record = row(lab, **fields)
    await write(store, record)
    return record.remote_id or ""


def beside(lab: Lab) -> Lab:
    """Another process's lab, over the same remote system."""
    other = Lab()
    other.fake = lab.fake
    return other


def core_of(supervisor: Supervisor) -> Core:
    """What is behind a supervisor that was entered."""
    assert supervisor._core is not None
    return supervisor._core


async def result_of(supervisor: Supervisor) -> ReapResult | None:
    """Reap, and return what came of the only orphan."""
    with fail_after(60):
        report = await supervisor.reap()
    assert report.clean
    [found] = report.reaped
    return found.result


def seconds(lab: Lab) -> float:
    """``orphan_task_seconds_total``."""
    return lab.registry.get_sample_value("sigmic_guard_orphan_task_seconds_total") or 0.0


def orphans(lab: Lab) -> tuple[float, float]:
    """How many there are now, and the age of the oldest in seconds."""
    names = "orphans", "orphan_oldest_age_seconds"
    count, age = (lab.registry.get_sample_value(f"sigmic_guard_{name}") for name in names)
    assert count is not None
    assert age is not None
    return count, age


class Lines:
    """What was logged, by event."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "sigmic_guard")
        self._caplog = caplog

    def of(self, event: str) -> list[dict[str, str]]:
        """The lines of an event, by their fields."""
        found = [record.message for record in self._caplog.records if record.name == "sigmic_guard"]
        lines = [dict(re.findall(r"(\w+)='?([^'\s]*)", line)) for line in found]
        return [line for line in lines if line["event"] == event]


#: What a reaper asks a ledger for.
CALLS = (
    "upkeep",
    "owners",
    "owner_alive",
    "last_seen",
    "unfinished",
    "commit",
    "absent",
    "get",
)


class FaultyLedger(MemoryLedger):
    """Fails the calls that are named in ``failing``, for as long as they are."""

    failing: Collection[str] = ()
    failures = 0

    def __getattribute__(self, name: str) -> Any:
        if name in super().__getattribute__("failing"):
            self.failures += 1
            raise LedgerError("the disk is on fire")
        return super().__getattribute__(name)


class StrikingLedger(MemoryLedger):
    """Cancels a worker's asyncio task natively, once, in the ``at``-th call that it makes.

    :param only: count the calls of that name alone.
    :param worker: whose calls.
    :param late: when the call has had its effect; else before.
    """

    def __init__(
        self, store: MemoryStore, *, at: int, late: bool, only: str = "", worker: str = "reap"
    ) -> None:
        super().__init__(store)
        self._worker = f"sigmic_guard {worker}"
        self._countdown = at
        self._only = only
        self._late = late
        #: Which call was struck.
        self.struck: str | None = None

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self._call, name, found) if name in CALLS else found

    async def _call(
        self, name: str, method: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any
    ) -> Any:
        task = asyncio.current_task()
        if task is None or task.get_name() != self._worker or self._only not in {"", name}:
            return await method(*arguments, **more)
        self._countdown -= 1
        strike = self._countdown == -1
        if strike:
            self.struck = name
        if strike and not self._late:
            task.cancel()
            await checkpoint()
        answer = await method(*arguments, **more)
        if strike:
            task.cancel()
            await checkpoint()
        return answer


class Scribbled(MemoryLedger):
    """A ledger of which somebody has scribbled over one row."""

    async def unfinished(self, namespace: str | None = None, **which: Any) -> Sequence[Record]:
        rows = await super().unfinished(namespace, **which)
        readable = [row for row in rows if row.intent_id != "bad"]
        if len(readable) < len(rows):
            raise CorruptRows({"bad": "no such state: sleeping"}, readable)
        return rows
