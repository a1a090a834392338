"""The schedules catch a ledger or a reaper that errs, each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from unittest.mock import patch

import anyio
import pytest
from hypothesis import HealthCheck, Phase, find, settings

from sigmic_guard.ledger import Refusal, Write
from sigmic_guard.lifecycle import Record, Verdict, judge
from tests.schedules.outside import Handle
from tests.schedules.schedule import SCHEDULES, Step, live_through


class Guessing(Handle):
    """Takes for dead whoever was not seen for a minute."""

    async def owner_alive(self, *args: Any) -> bool:
        life = self.process.world.truth.lives[args[0]]
        return await super().owner_alive(*args) and anyio.current_time() - life.seen_at < 60.0


class Trusting(Handle):
    """Takes nobody for dead."""

    async def owner_alive(self, *args: Any) -> bool:
        return True


class Overwriting(Handle):
    """Compares nothing before it sets."""

    async def store_all(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        rows = self.process.world.store.rows
        stored = (rows.get(write.record.intent_id) for write in writes)
        return await super().store_all(
            [
                Write(write.record, write.expected if row is None else row.version)
                for write, row in zip(writes, stored, strict=True)
            ]
        )


#: Several reapers, all at once, upon one orphan.
CRASH: Final[list[Step]] = [
    (0.0, ("create", 0, "plain")),
    (0.1, ("kill", 0)),
    (0.0, ("boot all",)),
]
#: An owner that was not seen for two minutes, beside others.
PAUSE: Final[list[Step]] = [
    (0.0, ("create", 0, "plain")),
    (0.1, ("pause", 0)),
    (0.0, ("boot all",)),
    (130.0, ("reap all",)),
]
#: An orphan beside a process with another credential.
NEIGHBOUR: Final[list[Step]] = [*CRASH[:2], (0.0, ("create", 3, "plain"))]


def any_credential(record: Record, **asked: Any) -> Verdict:
    return judge(record, **{**asked, "credential_fingerprint": record.credential_fingerprint})


def no_policy(record: Record, **asked: Any) -> Verdict:
    verdict = judge(record, **asked)
    return Verdict.REAP if verdict in {Verdict.WAIT, Verdict.RELEASE} else verdict


def reaper_with(judge: Callable[..., Verdict]) -> AbstractContextManager[Any]:
    return patch("sigmic_guard.supervisor.recovery.reaper.judge", judge)


@pytest.mark.parametrize(
    "begin, handle, error, crimes",
    [
        (PAUSE, Guessing, nullcontext(), ["which lives"]),
        (CRASH, Trusting, nullcontext(), ["runs on"]),
        (CRASH, Overwriting, nullcontext(), ["over another's"]),
        (CRASH, Overwriting, nullcontext(), ["is not its own"]),
        (NEIGHBOUR, Handle, reaper_with(any_credential), ["of another credential"]),
        (CRASH, Handle, reaper_with(no_policy), ["still be claimed", "had abandoned"]),
    ],
    ids=[
        "guesses by time",
        "never sees the dead",
        "no compare: rows",
        "no compare: tasks",
        "any credential",
        "no policy",
    ],
)
def test_caught(
    begin: list[Step],
    handle: type[Handle],
    error: AbstractContextManager[Any],
    crimes: Collection[str],
) -> None:
    """What errs is caught, and for what it does."""
    caught: list[str] = []

    def is_caught(schedule: list[Step]) -> bool:
        if not caught:  # once is enough: `find` runs its finding again
            told = live_through(schedule, handle).crimes
            caught.extend(text for text in told if any(crime in text for crime in crimes))
        return bool(caught)

    check = settings(
        max_examples=100,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
        deadline=None,
    )
    with error:
        assert find(SCHEDULES.map(begin.__add__), is_caught, settings=check)
