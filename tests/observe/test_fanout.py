from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, get_args

import pytest

from sigmic_guard.lifecycle import CancelResult, ReapResult, Verdict
from sigmic_guard.observe import (
    BlockAbandoned,
    CancellationAcknowledged,
    CancellationEnded,
    CandidatesFound,
    CredentialAccepted,
    CredentialRefused,
    DeleteAnswered,
    LedgerCommitted,
    LedgerFailed,
    Logs,
    Metrics,
    ObservedEvent,
    Observers,
    OrphanLeft,
    OrphanReaped,
    OrphansCounted,
    RequestAnswered,
    ShutdownBegun,
    ShutdownFinished,
    TaskLeft,
    WorkerFailed,
)
from tests.observe import lives
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: One of each.
EVENTS: tuple[ObservedEvent, ...] = (
    next(lives.changes()),
    BlockAbandoned(lives.born()),
    TaskLeft(lives.born()),
    DeleteAnswered(lives.born(), "503"),
    CancellationAcknowledged(lives.born(), 1.5),
    CancellationEnded(lives.born(), CancelResult.CONFIRMED, 2.5),
    OrphansCounted("me", 11, 7.5),
    OrphanReaped(lives.born(), ReapResult.CANCELLED, 8.5),
    OrphanLeft(lives.born(), Verdict.OTHER_CREDENTIAL),
    CandidatesFound(lives.born(), [lives.ID]),
    RequestAnswered("GET", "/api/v1/tasks", "200", 3.5),
    LedgerCommitted(7, 4.5),
    LedgerFailed(8, OSError("no space left")),
    CredentialRefused("INVALID_TOKEN", 401),
    CredentialAccepted(8.5),
    WorkerFailed("cancel", KeyError("bug")),
    ShutdownBegun(9, 5.5),
    ShutdownFinished(10, 11, 6.5),
)

each = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


class Recorder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[ObservedEvent] = []

    def observe(self, event: ObservedEvent) -> None:
        self.told.append(event)


class Broken:
    """Raises whatever it is told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def observe(self, _: object) -> None:
        raise self.error


def test_the_events_above_are_all_that_there_are() -> None:
    assert [type(event) for event in EVENTS] == list(get_args(ObservedEvent))


@each
def test_every_observer_is_told_everything(event: ObservedEvent) -> None:
    first, second = Recorder(), Recorder()
    Observers([first, second]).observe(event)
    assert first.told == second.told == [event]


@each
def test_no_event_can_be_written(event: ObservedEvent) -> None:
    """All observers are shown the same one."""
    name = event.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(event, name, None)


@each
def test_the_built_in_observers_take_every_event(
    event: ObservedEvent, registry: CollectorRegistry
) -> None:
    for observer in (Metrics.on(registry), Logs(), Observers([Metrics.on(registry), Logs()])):
        observer.observe(event)


def test_the_built_in_observers_leave_alone_what_they_do_not_know(
    registry: CollectorRegistry,
) -> None:
    event: Any = object()
    for observer in (Metrics.on(registry), Logs()):
        observer.observe(event)


@each
def test_an_observer_that_raises_breaks_neither_its_caller_nor_the_others(
    event: ObservedEvent,
) -> None:
    """Observers are called inside clean-up, and clean-up never raises."""
    fine = Recorder()
    Observers([Broken(RuntimeError("disk full")), fine]).observe(event)
    assert fine.told == [event]


def test_metrics_add_up_whatever_the_host_s_logging_does(registry: CollectorRegistry) -> None:
    broken = Broken(ValueError("I/O operation on closed file"))
    lives.live(Observers([broken, Metrics.on(registry)]), *lives.CANCELLED)
    assert add_up(registry).finished == 1


def test_the_first_failure_of_each_is_reported_once_and_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whose exception it is nobody knows, so neither what it says."""
    first = Broken(ValueError("hunter2"))
    second = Broken(OSError("hunter2"))
    observers = Observers([first, second])
    for change in lives.changes(*lives.CANCELLED):
        observers.observe(change)
    observers.observe(ShutdownBegun(1, 2.0))
    assert [(r.name, r.levelno) for r in caplog.records] == [("sigmic_guard", logging.WARNING)] * 2
    assert "Broken failed" in caplog.text
    assert "ValueError at " in caplog.text
    assert "in Broken.observe" in caplog.text
    assert "OSError at " in caplog.text
    assert "hunter2" not in caplog.text


def test_a_report_that_fails_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.Logger, "warning", Broken(OSError()).observe)
    broken = Broken(ValueError())
    Observers([broken]).observe(ShutdownBegun(1, 2.0))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_exception_goes_through(error: BaseException) -> None:
    """Ctrl-C is not an observer's failure."""
    broken = Broken(error)
    with pytest.raises(type(error)):
        Observers([broken]).observe(ShutdownBegun(1, 2.0))


def test_no_observer_is_fine() -> None:
    for event in EVENTS:
        Observers().observe(event)
