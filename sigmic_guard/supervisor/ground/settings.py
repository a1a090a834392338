"""What a supervisor is told once, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import Ledger, SqliteLedger, chosen_ledger_url, open_ledger
from sigmic_guard.lifecycle.values import (
    check_count,
    check_flag,
    check_seconds,
    check_text,
    plain,
    shown,
)
from sigmic_guard.observe import Logs, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

    from sigmic_guard.observe import Observer

#: What every observer has.
_TOLD = "observe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers and names; see :class:`~sigmic_guard.Supervisor` for what they mean."""

    grace: float
    max_tasks: int | None
    max_cancels: int
    create_timeout: float
    namespace: str
    marker: bool


def check_settings(
    *,
    grace: object,
    max_tasks: object,
    max_cancels: object,
    create_timeout: object,
    namespace: object,
    marker: object,
) -> Settings:
    """Return the settings that are meant.

    :raises ConfigurationError: one of them cannot be right.
    """
    return Settings(
        grace=check_seconds("grace", grace),
        max_tasks=None if max_tasks is None else check_count("max_tasks", max_tasks),
        max_cancels=check_count("max_cancels", max_cancels),
        create_timeout=check_seconds("create_timeout", create_timeout, least=0.001),
        namespace=check_text("namespace", namespace, empty=False),
        marker=check_flag("marker", marker),
    )


def choose_ledger(ledger: str | os.PathLike[str] | Ledger | None) -> Ledger:
    """Return the ledger that is meant: given, named in the environment, or the default one.

    :raises ConfigurationError: no ledger has such a URL, or it is no ledger.
    """
    try:
        if ledger is None:
            ledger = chosen_ledger_url()
        if isinstance(ledger, str):
            return open_ledger(plain(ledger))
        if isinstance(ledger, os.PathLike):
            return SqliteLedger(ledger)
        if callable(getattr(ledger, "commit", None)):
            return ledger
        kind = shown(ledger)
    finally:
        del ledger  # a traceback that is printed with its locals must not show a password
    raise ConfigurationError(f"ledger must be a URL, a path or a Ledger, not {kind}")


def choose_observers(
    registry: CollectorRegistry | None, observers: Iterable[Observer]
) -> list[Observer]:
    """Return who is told what happens: the metrics, if there is a registry, the log, and others.

    :raises ConfigurationError: there is somebody among them who is no observer.
    """
    chosen: list[Observer] = [Logs()] if registry is None else [Metrics.on(registry), Logs()]
    try:
        others = list(observers)
    except Exception as error:
        raise ConfigurationError(f"observers must be a list, not {shown(observers)}") from error
    for observer in others:
        if isinstance(observer, type) or not callable(getattr(observer, _TOLD, None)):
            raise ConfigurationError(
                f"{shown(observer)} is no observer: inherit from sigmic_guard.observe.Observer"
            )
        chosen.append(observer)
    return chosen
