"""Worlds in which answers prove little and calls come from anywhere, each met by one schedule.

The random schedules come to all of this as well. Here each is met for certain, and each has its
negative control: whoever errs there is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import current_thread, main_thread
from typing import Any, Final

import pytest
from msgspec.structs import replace

from sigmic_guard.errors import ValidationError
from sigmic_guard.ledger import Refusal, Write
from sigmic_guard.lifecycle import Record, State, Verdict, judge
from sigmic_guard.supervisor.ground.inbox import Inbox
from sigmic_guard.supervisor.ground.readings import Readings
from tests.schedules import outside
from tests.schedules.outside import NOT_FOUND, Handle
from tests.schedules.schedule import PLACES, Step, live_through

#: A task is ended a moment after its create, while reads lag behind.
LAGGING: Final[Sequence[Step]] = (
    (0.0, ("lag", 2.0)),
    (0.1, ("create", 0, "plain")),
    (0.1, ("cancel", 0, 0, "coroutine")),
    (3.0, ("reap all",)),
)
#: A gateway stands before the API when a dead process's task is to be ended, and a live one's.
BEHIND_A_GATEWAY: Final[Sequence[Step]] = (
    (0.0, ("create", 0, "plain")),
    (0.0, ("create", 1, "plain")),
    (12.0, ("api", "page")),
    (0.0, ("kill", 0)),
    (0.0, ("cancel", 1, 0, "coroutine")),
    (12.0, ("reap all",)),
)
#: It answers a create that had its effect.
LOST_TO_A_GATEWAY: Final[Sequence[Step]] = (
    (0.0, ("api", "page in its place")),
    (0.0, ("create", 0, "plain")),
    (3.0, ("api", None)),
)
#: A process leaves in good order; another, that was there before, looks for orphans, and later asks
#: for the key.
DEPLOYED: Final[Sequence[Step]] = (
    (0.0, ("deploy", 0)),
    (0.1, ("boot all",)),
    (12.0, ("reap all",)),
    (3.0, ("create", 1, "handed over")),
    (3.0, ("drain", 1)),
    (12.0, ("create", 2, "claimable")),
)
#: A stream is opened so slowly that its reader is gone when it is open.
READ_TOO_SLOWLY: Final[Sequence[Step]] = (
    (0.0, ("create", 0, "plain")),
    (0.1, ("slow", 0, 80.0)),
    (0.0, ("read", 0, 0, "callback")),
    (12.0, ("create", 0, "plain")),
)


def calls_from(place: str) -> list[Step]:
    """A task is ended from there; an event of another is read, and its iterator left to there."""
    return [
        (0.0, ("create", 0, "plain")),
        (0.1, ("create", 0, "plain")),
        (0.1, ("read", 0, 0, place)),
        (0.1, ("cancel", 0, 1, place)),
        (3.0, ("complete", 0)),
    ]


@pytest.mark.parametrize(
    "schedule",
    [LAGGING, BEHIND_A_GATEWAY, LOST_TO_A_GATEWAY, DEPLOYED, READ_TOO_SLOWLY],
    ids=["lagging", "behind a gateway", "lost to a gateway", "deployed", "read too slowly"],
)
def test_met(schedule: Sequence[Step]) -> None:
    """What is to end does, what is wanted stays, and all is known."""
    assert live_through(schedule).crimes == []


def test_a_deploy_is_one_task() -> None:
    """Whoever asks for the key gets the task that was handed over, again and again."""
    truth = live_through(DEPLOYED)
    assert truth.crimes == []
    assert len([task for task in truth.fake.tasks.values() if task.message == "task 1"]) == 1
    assert len(truth.fake.tasks) == 2, "one for each key"


@pytest.mark.parametrize("place", PLACES)
def test_plain_calls(place: str) -> None:
    """From each place: the cancel arrives, and the iterator that dies there leaves no reader."""
    assert live_through(calls_from(place)).crimes == []


# --- and if it were otherwise -----------------------------------------------------------------


def told(schedule: Sequence[Step], crime: str, handle: type[Handle] = Handle) -> bool:
    return any(crime in text for text in live_through(schedule, handle).crimes)


def test_who_believes_a_404_at_once_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DELETE is answered by somebody who does not know the task yet, and it runs on."""
    monkeypatch.setattr(Readings, "may_lag", lambda *_: False)
    assert told(LAGGING, "runs on")


def test_who_believes_a_page_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says 404 is no word of the API's."""
    monkeypatch.setattr(outside, "PAGES", dict.fromkeys(outside.PAGES, NOT_FOUND))
    assert told(BEHIND_A_GATEWAY, "runs on")


def test_who_believes_a_page_to_a_create_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says 409 is no refusal: the task may be there."""
    refused = ValidationError("a page", code="VALIDATION_ERROR", status=409)
    monkeypatch.setitem(outside.PAGES, "create", refused)
    assert told(LOST_TO_A_GATEWAY, "runs on")


def test_who_ends_what_he_was_to_hand_over_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An orderly deploy sends no DELETE."""
    monkeypatch.setattr(Record, "on_shutdown", "cancel")
    assert told(DEPLOYED, "which it was to hand over")


def test_who_takes_a_deploy_for_a_crash_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reaper that does not know of hand-overs ends them."""

    def as_if_it_crashed(record: Record, **asked: Any) -> Verdict:
        verdict = judge(record, **asked)
        return Verdict.REAP if record.state is State.HANDED_OVER else verdict

    monkeypatch.setattr("sigmic_guard.supervisor.recovery.reaper.judge", as_if_it_crashed)
    assert told(DEPLOYED, "still be claimed")


class Keyless(Handle):
    """Keeps no keys."""

    async def store_all(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        return await super().store_all(
            [Write(replace(w.record, key=None), w.expected) for w in writes]
        )


def test_who_keeps_no_keys_is_caught() -> None:
    """Two live processes have a task each under one key."""
    schedule = [(0.0, ("create", slot, "keyed")) for slot in (0, 1)]
    assert told(schedule, "has the key of", Keyless)


def test_a_call_that_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain call from another thread that does nothing leaves a task that is not to run."""
    leave_nothing(monkeypatch, "cancel")
    assert told(calls_from("thread"), "does not end")


def test_an_iterator_that_stays_a_reader_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection of a reader who died in another thread is dropped."""
    leave_nothing(monkeypatch, "_drop")
    assert told(calls_from("thread"), "that nobody reads")


def leave_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    leave = Inbox.leave

    def here_alone(inbox: Inbox, left: Any, *args: Any) -> None:
        elsewhere = current_thread() is not main_thread()
        if not (elsewhere and left.__name__ == name):
            leave(inbox, left, *args)

    monkeypatch.setattr(Inbox, "leave", here_alone)
