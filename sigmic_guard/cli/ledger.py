"""Which ledger a command means."""

from __future__ import annotations

from pathlib import Path

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import LEDGER_VARIABLE, chosen_ledger_url, sqlite_path


def ledger_path(url: str | None) -> str:
    """Return the absolute path of the ledger that a command means.

    :param url: default: ``SIGMIC_GUARD_LEDGER``, and then the default file.
    :raises ConfigurationError: no ledger has such a URL, or it lives in its process only.
    """
    try:
        path = sqlite_path(url or chosen_ledger_url())
    finally:
        del url  # a traceback that is printed with its locals must not show a password
    if path is None:
        raise ConfigurationError(
            f"the ledger 'memory:' lives and dies with its process, and nobody else can look into "
            f"it: name a file with --ledger, or in {LEDGER_VARIABLE}"
        )
    return str(Path(path).absolute())
