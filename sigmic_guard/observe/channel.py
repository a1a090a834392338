"""Where log lines go: the host's structlog or, if that is not configured, its ``logging``."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from sigmic_guard.observe.wording import whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMES: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}


class _Plain:
    """The host's ``logging``: the event and its fields in one line, and the fields as ``extra``.

    What is not printable is escaped.
    """

    __slots__ = ("_target",)

    def __init__(self, target: logging.Logger) -> None:
        self._target = target

    def write(self, level: int, event: str, fields: Mapping[str, Any]) -> None:
        text = " ".join([f"event={event!r}", *(f"{key}={fields[key]!r}" for key in fields)])
        # Not by way of info() and its like: they walk the stack, and find a place in this library.
        self._target.handle(
            self._target.makeRecord(
                self._target.name, level, __file__, 0, text, (), None, extra=fields
            )
        )


class _Bound:
    """The host's structlog."""

    __slots__ = ("_logger",)

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def write(self, level: int, event: str, fields: Mapping[str, Any]) -> None:
        getattr(self._logger, _NAMES[level])(event, **fields)


class Channel:
    """A logger that is bound once, to what structlog's configuration says at its first line.

    Processors, handlers and filters are the host's. What they raise is reported once, as far as
    the standard library's logger ``sigmic_guard`` lets that through, and ends nobody's work: lines
    are written in threads, in clean-up, and in between of what must happen.

    Structlog as it is before anybody configured it prints every level to the standard output, which
    a library has no right to. Such a host gets the lines through ``logging`` instead, where its
    levels and handlers apply. Nothing here configures either of the two.
    """

    __slots__ = ("_configured", "_logger", "_name", "_open", "_reported")

    def __init__(self, name: str) -> None:
        self._name = name
        self._configured = False
        self._logger: _Plain | _Bound | None = None
        self._open: Callable[[int], bool] = _always
        self._reported = False

    def open(self, level: int) -> bool:
        """Tell whether a line of ``level`` would go anywhere; never raises."""
        try:
            # A host may configure structlog after its first supervisor; once it did, that stays.
            if not self._configured:
                self._bind()
            return self._open(level)
        except Exception as failure:
            self._failed(failure)
            return False

    def write(self, level: int, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line, if ``level`` is on; never raises."""
        try:
            if self.open(level) and self._logger is not None:
                self._logger.write(level, event, fields)
        except Exception as failure:
            self._failed(failure)

    def _failed(self, failure: Exception) -> None:
        """Report the first failure; if that fails too, so be it."""
        if self._reported:
            return
        self._reported = True
        with suppress(Exception):
            logging.getLogger(self._name).warning(
                "the log failed, and that will not be reported again: %s; tasks are not affected",
                whereabouts(failure),
            )

    def _bind(self) -> None:
        if structlog.is_configured():
            bound = structlog.get_logger(self._name).bind()
            # An AsyncBoundLogger's methods are coroutines; this is what they call.
            wraps = isinstance(bound, structlog.stdlib.AsyncBoundLogger)
            logger = bound.sync_bl if wraps else bound
            self._logger = _Bound(logger)
            self._open = _question(logger)
            self._configured = True
        elif self._logger is None:
            target = logging.getLogger(self._name)
            self._logger = _Plain(target)
            self._open = target.isEnabledFor


def _question(logger: Any) -> Callable[[int], bool]:
    """Return how ``logger`` is asked whether a level is on; those that do not know it say yes."""
    # Asked of the class: some loggers make up a method for whatever name they are asked for.
    if not hasattr(type(logger), "is_enabled_for"):
        return _always
    question: Callable[[int], bool] = logger.is_enabled_for
    try:
        question(logging.ERROR)
    except AttributeError:  # a stdlib.BoundLogger around a logger that is not of the stdlib
        return _always
    return question


def _always(level: int) -> bool:
    del level
    return True
