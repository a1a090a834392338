"""What a supervisor is told once, checked."""

from __future__ import annotations

from dataclasses import dataclass

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import Ledger, chosen_ledger_url, open_ledger
from sigmic_guard.lifecycle.policy import check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers and names; see :class:`~sigmic_guard.Supervisor` for what they mean.

    :raises ConfigurationError: one of them cannot be right.
    """

    grace: float
    max_tasks: int | None
    max_cancels: int
    create_timeout: float
    namespace: str
    marker: bool

    def __post_init__(self) -> None:
        check_seconds("grace", self.grace)
        check_seconds("create_timeout", self.create_timeout, least=0.001)
        _check_count("max_cancels", self.max_cancels)
        if self.max_tasks is not None:
            _check_count("max_tasks", self.max_tasks)


def choose_ledger(ledger: str | Ledger | None) -> Ledger:
    """Return the ledger that is meant: given, named in the environment, or the default one.

    :raises ConfigurationError: no ledger has such a URL.
    """
    try:
        if ledger is None:
            ledger = chosen_ledger_url()
        return open_ledger(ledger) if isinstance(ledger, str) else ledger
    finally:
        del ledger  # a traceback that is printed with its locals must not show a password


def _check_count(name: str, number: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{name} must be a whole number, at least 1, not {number!r}")
