"""A host's processor or handler that raises ends nobody's work, and is reported once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from sigmic_guard.observe import Logs, ShutdownBegun
from sigmic_guard.observe.channel import Channel
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator


def raises(*args: Any) -> Any:
    raise KeyError("request_id")


class Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raises()


@pytest.fixture(params=["processor", "wrapper", "factory", "handler", "filter"])
def broken(request: pytest.FixtureRequest) -> Iterator[str]:
    """A log of the host's that raises at every line."""
    logger, handler = logging.getLogger("sigmic_guard"), Handler()
    kept = structlog.get_config() if structlog.is_configured() else None
    wrapper = type("Broken", (), {"__init__": lambda *_: None, "bind": lambda it: it})
    wrapper.info = wrapper.warning = wrapper.error = wrapper.is_enabled_for = raises  # type: ignore[attr-defined]
    match request.param:
        case "processor":
            structlog.configure(processors=[raises])
        case "wrapper":
            structlog.configure(wrapper_class=wrapper)
        case "factory":
            structlog.configure(logger_factory=raises)
        case "handler":
            logger.addHandler(handler)
        case "filter":
            logger.addFilter(raises)
    yield request.param
    logger.removeHandler(handler)
    logger.removeFilter(raises)
    structlog.reset_defaults()
    if kept is not None:
        structlog.configure(**kept)


def test_a_line_never_raises(broken: str) -> None:
    """Whoever writes it: the watchdog's thread, a worker, a command."""
    channel = Channel("sigmic_guard")
    for _ in range(3):
        channel.write(logging.WARNING, "watchdog.died", {"status": 1})
        channel.open(logging.ERROR)
    Logs().observe(ShutdownBegun(1, 2.0))


def test_it_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """By type and place: the text may hold anything."""
    structlog.configure(processors=[raises])
    try:
        channel = Channel("sigmic_guard")
        for _ in range(3):
            channel.write(logging.WARNING, "watchdog.died", {"status": 1})
    finally:
        structlog.reset_defaults()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "KeyError at " in line
    assert "request_id" not in line


async def test_a_supervisor_goes_on(broken: str) -> None:
    """Its tasks live and end as ever."""
    lab = Lab()
    async with lab.open() as supervisor:
        task, _ = [await supervisor.start("m") for _ in range(2)]
        assert (await task.cancel()).result == "acknowledged"
    assert lab.finished == {("cancelled", "user"): 1, ("cancelled", "shutdown"): 1}


def test_the_watchdogs_thread_goes_on(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells of a helper that died, and lives to start another."""
    from sigmic_guard.watchdog import parent

    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    thread = threading.Thread(target=parent._log_death, args=(1,))
    thread.start()
    thread.join(10)
    assert not died
