from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.lifecycle import CancelResult, ReapResult, Verdict
from sigmic_guard.observe import Logs, Metrics, Observer, Observers
from tests.observe import lives
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: One call of each, with arguments that can be told apart.
CALLS: dict[str, tuple[Any, ...]] = {
    "task_changed": (next(lives.changes()),),
    "block_abandoned": (lives.born(),),
    "task_left": (lives.born(),),
    "delete_answered": (lives.born(), "503"),
    "cancellation_acknowledged": (lives.born(), 1.5),
    "cancellation_ended": (lives.born(), CancelResult.CONFIRMED, 2.5),
    "orphans_counted": ("me", 11, 7.5),
    "orphan_reaped": (lives.born(), ReapResult.CANCELLED, 8.5),
    "orphan_left": (lives.born(), Verdict.OTHER_CREDENTIAL),
    "candidates_found": (lives.born(), [lives.ID]),
    "request_answered": ("GET", "/api/v1/tasks", "200", 3.5),
    "ledger_committed": (7, 4.5),
    "ledger_failed": (8, OSError("no space left")),
    "credential_refused": ("INVALID_TOKEN", 401),
    "credential_accepted": (8.5,),
    "worker_failed": ("cancel", KeyError("bug")),
    "shutdown_begun": (9, 5.5),
    "shutdown_finished": (10, 11, 6.5),
}


class Recorder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.told.append((name, arguments))


class Broken:
    """Raises whatever it is told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        return self._raise

    def _raise(self, *_: object) -> None:
        raise self.error


def test_the_calls_below_are_the_whole_protocol() -> None:
    assert set(CALLS) == {name for name in vars(Observer) if not name.startswith("_")}


@pytest.mark.parametrize("name", CALLS)
def test_every_observer_is_told_everything(name: str) -> None:
    first: Any = Recorder()
    second: Any = Recorder()
    getattr(Observers([first, second]), name)(*CALLS[name])
    assert first.told == second.told == [(name, CALLS[name])]


@pytest.mark.parametrize("name", CALLS)
def test_the_built_in_observers_take_every_call(name: str, registry: CollectorRegistry) -> None:
    for observer in (Metrics.on(registry), Logs(), Observers([Metrics.on(registry), Logs()])):
        getattr(observer, name)(*CALLS[name])


@pytest.mark.parametrize("name", CALLS)
def test_an_observer_that_raises_breaks_neither_its_caller_nor_the_others(name: str) -> None:
    """Observers are called inside clean-up, and clean-up never raises."""
    broken: Any = Broken(RuntimeError("disk full"))
    fine: Any = Recorder()
    getattr(Observers([broken, fine]), name)(*CALLS[name])
    assert fine.told == [(name, CALLS[name])]


def test_metrics_add_up_whatever_the_host_s_logging_does(registry: CollectorRegistry) -> None:
    broken: Any = Broken(ValueError("I/O operation on closed file"))
    lives.live(Observers([broken, Metrics.on(registry)]), *lives.CANCELLED)
    assert add_up(registry).finished == 1


def test_the_first_failure_of_each_is_reported_once_and_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whose exception it is nobody knows, so neither what it says."""
    first: Any = Broken(ValueError("hunter2"))
    second: Any = Broken(OSError("hunter2"))
    observers = Observers([first, second])
    for change in lives.changes(*lives.CANCELLED):
        observers.task_changed(change)
    observers.shutdown_begun(1, 2.0)
    assert [(r.name, r.levelno) for r in caplog.records] == [("sigmic_guard", logging.WARNING)] * 2
    assert "Broken failed" in caplog.text
    assert "ValueError at " in caplog.text
    assert "in Broken._raise" in caplog.text
    assert "OSError at " in caplog.text
    assert "hunter2" not in caplog.text


def test_a_report_that_fails_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.Logger, "warning", Broken(OSError())._raise)
    broken: Any = Broken(ValueError())
    Observers([broken]).shutdown_begun(1, 2.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_exception_goes_through(error: BaseException) -> None:
    """Ctrl-C is not an observer's failure."""
    broken: Any = Broken(error)
    with pytest.raises(type(error)):
        Observers([broken]).shutdown_begun(1, 2.0)


def test_no_observer_is_fine() -> None:
    for name, arguments in CALLS.items():
        getattr(Observers(), name)(*arguments)
