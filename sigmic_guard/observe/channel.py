"""Where log lines go: the host's structlog or, if that is not configured, its ``logging``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMES: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}

#: In one line: what is not printable is escaped.
_PLAIN: Final = (structlog.processors.KeyValueRenderer(key_order=["event"]),)


class Channel:
    """A logger that is bound once, to what structlog's configuration says at its first line.

    Structlog as it is before anybody configured it prints every level to the standard output, which
    a library has no right to. Such a host gets the lines through ``logging`` instead, where its
    levels and handlers apply. Nothing here configures either of the two.
    """

    __slots__ = ("_configured", "_logger", "_name", "_open")

    def __init__(self, name: str) -> None:
        self._name = name
        self._configured = False
        self._logger: Any = None
        self._open: Callable[[int], bool] = _always

    def open(self, level: int) -> bool:
        """Tell whether a line of ``level`` would go anywhere."""
        # A host may configure structlog after its first supervisor; once it did, that stays.
        if not self._configured:
            self._bind()
        return self._open(level)

    def write(self, level: int, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line, if ``level`` is on."""
        if self.open(level):
            getattr(self._logger, _NAMES[level])(event, **fields)

    def _bind(self) -> None:
        self._configured = structlog.is_configured()
        if self._configured:
            bound = structlog.get_logger(self._name).bind()
            # An AsyncBoundLogger's methods are coroutines; this is what they call.
            self._logger = getattr(bound, "sync_bl", bound)
            self._open = _question(self._logger)
        elif self._logger is None:
            target = logging.getLogger(self._name)
            self._logger = structlog.wrap_logger(
                target, processors=_PLAIN, wrapper_class=structlog.stdlib.BoundLogger
            ).bind()
            self._open = target.isEnabledFor


def _question(logger: Any) -> Callable[[int], bool]:
    """Return how ``logger`` is asked whether a level is on; those that do not know it say yes."""
    question: Callable[[int], bool] | None = getattr(logger, "is_enabled_for", None)
    try:
        if question is None:
            return _always
        question(logging.ERROR)
    except Exception:  # noqa: BLE001 - such as a stdlib.BoundLogger that wraps something else
        return _always
    return question


def _always(level: int) -> bool:
    del level
    return True
