from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from structlog.testing import capture_logs

from sigmic_guard.errors import LedgerError
from sigmic_guard.lifecycle import CancelReason, CancelResult, Event, State
from sigmic_guard.observe import (
    CancellationAcknowledged,
    CancellationEnded,
    DeleteAnswered,
    LedgerCommitted,
    LedgerFailed,
    Logs,
    Metrics,
    Observers,
    RequestAnswered,
    ShutdownBegun,
    ShutdownFinished,
    TaskChanged,
    WorkerFailed,
)
from tests.observe import lives

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

TASK_FIELDS = {
    "task_id",
    "intent_id",
    "namespace",
    "state",
    "outcome",
    "reason",
    "attempts",
    "seconds",
    "last_error",
    "hint",
}


def told(*events: Event, **more: Any) -> list[tuple[str, str]]:
    """Return the names and levels of what a life leaves in the log."""
    with capture_logs() as lines:
        lives.live(Logs(), *events, **more)
    return [(line["event"], line["log_level"]) for line in lines]


@pytest.mark.parametrize(
    "events, expected",
    [
        ((), []),
        (lives.CREATED, ["task.started info"]),
        (lives.COMPLETED, ["task.started info", "task.finished info"]),
        (lives.FAILED, ["task.started info", "task.finished info"]),
        (lives.DETACHED, ["task.started info", "task.finished info"]),
        (lives.HANDED_OVER, ["task.started info", "task.handed_over info"]),
        (lives.CANCELLED, ["task.started info", "task.cancelling info", "task.finished info"]),
        ((Event.ADOPT,), ["task.started info"]),
        (lives.REFUSED, ["task.never_created warning"]),
        ((Event.CANCEL, Event.WITHDRAW), ["task.never_created info"]),
        ((Event.POST, Event.LOSE), ["task.unknown warning"]),
        ((Event.POST, Event.LOSE, Event.CREATED), ["task.unknown warning", "task.started info"]),
        (
            (Event.POST, Event.LOSE, Event.ABSENT),
            ["task.unknown warning", "task.never_created warning"],
        ),
        (
            (Event.POST, Event.CANCEL, Event.CREATED),
            ["task.started info", "task.cancelling info"],
        ),
        (
            (*lives.GIVEN_UP, Event.ATTEMPT, Event.CANCELLED),
            [
                "task.started info",
                "task.cancelling info",
                "task.unconfirmed error",
                "task.finished info",
            ],
        ),
        (
            (*lives.CREATED, Event.COMPLETE, Event.FOLLOW_UP, Event.COMPLETE, Event.CLOSE),
            ["task.started info", "task.finished info"],
        ),
    ],
)
def test_a_life_leaves_these_lines(events: Iterable[Event], expected: list[str]) -> None:
    assert [f"{name} {level}" for name, level in told(*events)] == expected


def test_an_unconfirmed_task_is_named_and_its_price_is_told() -> None:
    with capture_logs() as lines:
        lives.live(Logs(), *lives.GIVEN_UP, reason=CancelReason.SHUTDOWN)
    assert lines[-1] == {
        "event": "task.unconfirmed",
        "log_level": "error",
        "task_id": lives.ID,
        "intent_id": lives.INTENT,
        "namespace": "default",
        "state": "unconfirmed",
        "outcome": "cancelled",
        "reason": "shutdown",
        "attempts": 1,
        "last_error": "DELETE answered 503",
        "hint": "the remote task may still run and cost money; look for it and end it",
    }


def test_an_end_tells_how_why_and_how_long() -> None:
    with capture_logs() as lines:
        lives.live(Logs(), *lives.CANCELLED, reason=CancelReason.DEADLINE)
    assert lines[-1] == {
        "event": "task.finished",
        "log_level": "info",
        "task_id": lives.ID,
        "intent_id": lives.INTENT,
        "namespace": "default",
        "state": "cancelled",
        "outcome": "timed_out",
        "reason": "deadline",
        "seconds": 4.0,
    }


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    record = lives.born(created_at=1e9)
    last = lives.moved(record, Event.POST, 5.0, CancelReason.USER)
    refused = lives.moved(last, Event.REFUSE, 5.0, CancelReason.USER)
    with capture_logs() as lines:
        Logs().observe(TaskChanged(last, refused, Event.REFUSE))
    assert lines[0]["seconds"] == 0


@given(lives.walks())
def test_a_task_s_line_has_no_field_but_these(life: list[TaskChanged]) -> None:
    with capture_logs() as lines:
        logs = Logs()
        for change in life:
            logs.observe(change)
    for line in lines:
        assert line.keys() - {"event", "log_level"} <= TASK_FIELDS
        assert None not in line.values()


@given(lives.walks())
def test_every_end_is_told_once(life: list[TaskChanged]) -> None:
    """A line that starts a task has one that ends it, in every life that the table allows."""
    with capture_logs() as lines:
        logs = Logs()
        for change in life:
            logs.observe(change)
    ends = [line for line in lines if line["event"] in {"task.finished", "task.never_created"}]
    expected = [
        change
        for change in life
        if change.after.finished_at is not None
        and change.before is not None
        and change.before.finished_at is None
    ]
    assert len(ends) == len(expected)


@pytest.mark.parametrize(
    "status, level",
    [
        ("200", None),
        ("204", None),
        ("404", None),
        ("401", "warning"),
        ("403", "warning"),
        ("429", "debug"),
        ("500", "info"),
        ("timeout", "info"),
        ("connection", "info"),
    ],
)
def test_a_delete_that_proved_nothing_is_told(status: str, level: str | None) -> None:
    with capture_logs() as lines:
        Logs().observe(DeleteAnswered(lives.born(), status))
    found = [(line["event"], line["status"], line["log_level"]) for line in lines]
    assert found == ([] if level is None else [("cancel.retry", status, level)])


def test_what_came_of_a_cancellation_is_a_detail() -> None:
    with capture_logs() as lines:
        Logs().observe(CancellationAcknowledged(lives.born(), 0.25))
        Logs().observe(CancellationEnded(lives.born(), CancelResult.NOT_FOUND, 0.5))
    assert [(line["event"], line["log_level"], line["seconds"]) for line in lines] == [
        ("cancel.acknowledged", "debug", 0.25),
        ("cancel.ended", "debug", 0.5),
    ]
    assert lines[1]["result"] == "not_found"


def test_the_drain_is_told_and_an_unproven_end_is_an_error() -> None:
    with capture_logs() as lines:
        logs = Logs()
        logs.observe(ShutdownBegun(100, 8.0))
        logs.observe(ShutdownFinished(0, 0, 1.23456))
        logs.observe(ShutdownFinished(2, 1, 8.1))
        logs.observe(ShutdownFinished(0, 3, 9.0))
    hint = lines[2].pop("hint")
    assert "may still run and cost money" in hint
    assert "the ledger does not say so" in lines[3].pop("hint")
    assert lines == [
        {"event": "shutdown.begun", "log_level": "info", "live": 100, "grace": 8.0},
    ] + [
        {"event": "shutdown.finished", "log_level": level, "unproven": unproven}
        | {"unwritten": unwritten, "seconds": seconds}
        for level, unproven, unwritten, seconds in [
            ("info", 0, 0, 1.235),
            ("error", 2, 1, 8.1),
            ("warning", 0, 3, 9.0),
        ]
    ]


def test_failures_of_the_ledger_and_of_workers_are_errors() -> None:
    def fail() -> None:
        raise ZeroDivisionError("hunter2")

    with capture_logs() as lines:
        logs = Logs()
        logs.observe(LedgerFailed(3, LedgerError("The disk is full: make room.")))
        logs.observe(LedgerFailed(3, OSError("hunter2")))
        with pytest.raises(ZeroDivisionError) as raised:
            fail()
        logs.observe(WorkerFailed("cancel", raised.value))
    assert [line["error"] for line in lines[:2]] == [
        "LedgerError: The disk is full: make room.",
        "OSError",
    ]
    assert lines[2]["error"].startswith(f"ZeroDivisionError at {__file__}:")
    assert lines[2]["error"].endswith("<locals>.fail")
    assert {line["log_level"] for line in lines} == {"error"}


def test_requests_and_commits_are_not_logged() -> None:
    with capture_logs() as lines:
        Logs().observe(RequestAnswered("GET", "/api/v1/tasks", "200", 0.1))
        Logs().observe(LedgerCommitted(1, 0.1))
    assert lines == []


# --- the host's configuration -------------------------------------------------------------------


def test_an_unconfigured_structlog_prints_nothing_and_logging_gets_the_lines(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library has no right to its host's standard output."""
    with caplog.at_level(logging.INFO, "sigmic_guard"):
        lives.live(Logs(), *lives.CANCELLED)
    assert [record.message.split()[0] for record in caplog.records] == [
        "event='task.started'",
        "event='task.cancelling'",
        "event='task.finished'",
    ]
    assert f"task_id='{lives.ID}'" in caplog.text
    assert {vars(record)["task_id"] for record in caplog.records} == {lives.ID}
    assert capsys.readouterr().out == ""
    assert not structlog.is_configured()


def test_levels_of_logging_apply_at_any_time(caplog: pytest.LogCaptureFixture) -> None:
    logs = Logs()
    with caplog.at_level(logging.ERROR, "sigmic_guard"):
        lives.live(logs, *lives.CANCELLED)
        assert caplog.records == []
        lives.live(logs, *lives.GIVEN_UP)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_host_may_configure_structlog_after_the_first_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs = Logs()
    lives.live(logs, *lives.CANCELLED)
    caplog.clear()
    with capture_logs() as lines:
        lives.live(logs, *lives.CANCELLED)
    assert len(lines) == 3
    assert caplog.records == []


def test_the_filtering_logger_of_structlog_is_asked_before_a_field_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    built: list[str] = []
    monkeypatch.setattr("sigmic_guard.observe.logs.clean", built.append)
    with capture_logs() as lines:
        lives.live(Logs(), *lives.CANCELLED)
    assert lines == []
    assert built == []


@pytest.mark.parametrize(
    "wrapper, factory",
    [
        (structlog.BoundLogger, structlog.PrintLoggerFactory),
        (structlog.stdlib.BoundLogger, structlog.PrintLoggerFactory),
        (structlog.make_filtering_bound_logger("info"), structlog.PrintLoggerFactory),
        (structlog.make_filtering_bound_logger("info"), structlog.WriteLoggerFactory),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_any_wrapper_of_structlog_works(wrapper: Any, factory: Any, cached: bool) -> None:
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=wrapper,
        logger_factory=lambda *_: factory(file=out)(),
        cache_logger_on_first_use=cached,
    )
    lives.live(Logs(), *lives.CANCELLED)
    assert out.getvalue().count('"level": "info"') == 3


@pytest.mark.parametrize(
    "wrapper", [structlog.stdlib.BoundLogger, structlog.stdlib.AsyncBoundLogger]
)
async def test_structlog_over_logging_works_in_a_loop(
    wrapper: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The asynchronous wrapper included: no coroutine is made and forgotten."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=wrapper,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    with caplog.at_level(logging.INFO, "sigmic_guard"):
        lives.live(Logs(), *lives.CANCELLED)
    assert [record.name for record in caplog.records] == ["sigmic_guard"] * 3
    assert caplog.messages == ["task.started", "task.cancelling", "task.finished"]


def test_a_logger_that_takes_any_call_is_asked_nothing() -> None:
    """Its answer to `is_enabled_for` would be a line of that name."""
    factory = structlog.testing.CapturingLoggerFactory()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.BoundLogger,
        logger_factory=factory,
    )
    lives.live(Logs(), *lives.CANCELLED)
    assert [call.method_name for call in factory.logger.calls] == ["info"] * 3


def test_a_host_s_context_is_merged() -> None:
    with (
        structlog.contextvars.bound_contextvars(request="r1", task_id="another"),
        capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines,
    ):
        lives.live(Logs(), *lives.CREATED)
    assert lines[0]["request"] == "r1"
    assert lines[0]["task_id"] == lives.ID  # the task of the line, not the block's


async def test_observing_blocks_no_loop(registry: CollectorRegistry) -> None:
    """Blockbuster watches: counting and filtered lines touch no lock that waits, and no file."""
    observers = Observers([Metrics.on(registry), Logs()])
    for events in (lives.CANCELLED, lives.COMPLETED):
        lives.live(observers, *events)
    observers.observe(DeleteAnswered(lives.born(), "200"))
    observers.observe(RequestAnswered("GET", "/api/v1/tasks", "200", 0.1))
    assert registry.get_sample_value("sigmic_guard_tasks_started_total") == 2


def test_every_state_is_handled() -> None:
    """A record can be born in any state, when a ledger is read."""
    for state in State:
        with capture_logs() as lines:
            logs = Logs()
            logs.observe(TaskChanged(None, lives.born(state=state, remote_id=lives.ID), None))
        assert (lines == []) == (state in {State.INTENT, State.CREATING})
