"""What must never be seen, put wherever a record or an exception could carry it by accident."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from msgspec.structs import asdict
from prometheus_client import generate_latest

from sigmic_guard.errors import ApiError, LedgerError
from sigmic_guard.lifecycle import (
    CancelReason,
    CancelResult,
    Event,
    ReapResult,
    TaskPolicy,
    Verdict,
)
from sigmic_guard.observe import (
    CancellationAcknowledged,
    CancellationEnded,
    CandidatesFound,
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
    TaskChanged,
    WorkerFailed,
)
from sigmic_guard.observe.wording import clean
from tests.observe import lives

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

KEY = "sigmic_0123456789abcdefSECRET"
SECRET = "hunter2SECRET"  # of no shape that anybody could know


def tell_secrets(observer: Any) -> None:
    """Tell everything, with secrets in every field that is not told."""
    error = f"DELETE https://user:{SECRET}@api.example refused Bearer {SECRET} and {KEY}"
    fields: dict[str, Any] = {
        "base_url": f"https://user:{SECRET}@api.example",
        "credential_fingerprint": SECRET,
        "owner_id": SECRET,
        "key": SECRET,
        "remote_status": SECRET,
        "last_error": error,
        # What is told, but by accident has a credential in it.
        "namespace": KEY,
        "remote_id": f"{lives.ID}-{KEY}",
        "policy": TaskPolicy(timeout=1.0),
    }
    record = lives.born(**fields)
    for events in (
        lives.CANCELLED,
        lives.COMPLETED,
        lives.GIVEN_UP,
        lives.REFUSED,
        (Event.POST, Event.LOSE),
        lives.TAKEN_OVER,
    ):
        for change in lives.changes(*events, **fields):
            observer.observe(change)
            record = change.after
    named = lives.moved(lives.born(**fields), Event.ADOPT, 1.0, CancelReason.USER)
    observer.observe(TaskChanged(None, lives.born(**fields, state=named.state), None))
    observer.observe(DeleteAnswered(record, SECRET))
    observer.observe(DeleteAnswered(record, "403"))
    observer.observe(CancellationAcknowledged(record, 1.0))
    observer.observe(CancellationEnded(record, CancelResult.UNCONFIRMED, 1.0))
    observer.observe(OrphansCounted(SECRET, 1, 1.0))
    observer.observe(OrphanReaped(record, ReapResult.CANCELLED, 1.0))
    observer.observe(OrphanLeft(record, Verdict.OTHER_CREDENTIAL))
    observer.observe(CandidatesFound(record, [f"{lives.ID}-{KEY}", KEY, f"Bearer {SECRET}"]))
    observer.observe(RequestAnswered(SECRET, f"/api/v1/tasks/{SECRET}", SECRET, 1.0))
    observer.observe(RequestAnswered("GET", f"/api/v1/tasks/{SECRET.lower()}", "200", 1.0))
    observer.observe(RequestAnswered("GET", f"/api/v1/tasks?token={SECRET}", "200", 1.0))
    observer.observe(LedgerCommitted(1, 1.0))
    for bug in exceptions(error):
        observer.observe(LedgerFailed(1, bug))
        observer.observe(WorkerFailed(f"cancel {KEY}", bug))
    observer.observe(ShutdownBegun(1, 1.0))
    observer.observe(ShutdownFinished(1, 0, 1.0))


def exceptions(text: str) -> list[BaseException]:
    cause = ValueError(SECRET)
    made: list[BaseException] = [
        RuntimeError(SECRET, KEY),
        KeyError(SECRET),
        ExceptionGroup(SECRET, [cause]),
        OSError(13, SECRET, SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        LedgerError(text),
        ApiError(text, code="BAD", status=400),
    ]
    for error in made:
        error.add_note(SECRET)
        error.__cause__ = cause
        error.secret = SECRET  # type: ignore[attr-defined]
    try:
        local = SECRET
        raise RuntimeError(local)
    except RuntimeError as error:
        made.append(error)
    return made


def leaks(text: str) -> bool:
    return SECRET.lower() in text.lower() or "SECRET" in text or KEY[:20] in text


def test_no_secret_reaches_the_log() -> None:
    """Not with every level on, rendered by structlog's own renderers, tracebacks included."""
    out = io.StringIO()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=repr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.PrintLoggerFactory(file=out),
    )
    tell_secrets(Logs())
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    names = {line["event"] for line in lines}
    assert len(names) == 17, names  # everything there is to tell was told
    assert not leaks(out.getvalue())
    assert "***" in out.getvalue()


def test_no_secret_reaches_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        tell_secrets(Logs())
    assert len(caplog.records) > 20
    assert not leaks(caplog.text)


def test_no_secret_reaches_a_metric(registry: CollectorRegistry) -> None:
    tell_secrets(Metrics.on(registry))
    shown = generate_latest(registry).decode()
    assert not leaks(shown)
    assert lives.ID not in shown


def test_no_secret_of_a_failing_observer_reaches_logging(caplog: pytest.LogCaptureFixture) -> None:
    class Leaky:
        def observe(self, event: ObservedEvent) -> None:
            raise RuntimeError(event.after.key if isinstance(event, TaskChanged) else SECRET)

    tell_secrets(Observers([Leaky()]))
    assert len(caplog.records) == 1
    assert not leaks(caplog.text)


def test_the_grep_sees_a_log_that_tells_whole_records() -> None:
    """Negative control: what the usual `**asdict(record)` or `exc_info` would have shown."""
    record = lives.born(key=SECRET)
    assert leaks(repr(asdict(record)))
    assert not leaks(repr(record))
    assert leaks(str(exceptions("")[0]))
    assert leaks(KEY)


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"refused {KEY}.", "refused ***"),
        (f"'{KEY}'", "'***'"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcg==", "authorization: basic ***"),
        ("https://u:p@host/x", "https://***@host/x"),
        ("no module named sigmic_guard.observe", "no module named sigmic_guard.observe"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("ünï😀", "ünï😀"),
    ],
)
def test_texts_are_cleaned(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_no_text_is_longer_than_a_line() -> None:
    assert len(clean("x" * 100_000)) == 200
    assert len(clean("\n" * 100_000)) <= 400
