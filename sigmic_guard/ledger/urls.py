"""Which ledger a URL names: ``memory:``, or ``sqlite:///`` and a path."""

from __future__ import annotations

import os
from typing import Final

from platformdirs import user_state_path

from sigmic_guard.errors import ConfigurationError

#: Names the ledger where no argument does.
LEDGER_VARIABLE: Final = "SIGMIC_GUARD_LEDGER"

_SQLITE: Final = "sqlite:///"
_FORMS: Final = (
    "a ledger is 'memory:', 'sqlite:///relative/path' or 'sqlite:////absolute/path', "
    "with the path as it is, nothing encoded"
)


def chosen_ledger_url() -> str:
    """Return the URL that the environment names, or else the default one."""
    return os.environ.get(LEDGER_VARIABLE) or default_ledger_url()


def default_ledger_url() -> str:
    """Return the URL of the file ``ledger.db`` in the user's state directory."""
    return sqlite_url(str(user_state_path("sigmic-guard") / "ledger.db"))


def sqlite_url(path: str) -> str:
    """Return the URL that names the file; see :func:`sqlite_path` for the way back."""
    return _SQLITE + path


def sqlite_path(url: str) -> str | None:
    """Return the path that a URL names; ``None`` for ``memory:``.

    :raises ConfigurationError: no ledger has such a URL.
    """
    if url in {"memory:", "memory"}:
        return None
    path = url.removeprefix(_SQLITE)
    if path == url:
        raise ConfigurationError(f"no ledger knows the URL {url!r}; {_FORMS}")
    if path == ":memory:":
        raise ConfigurationError(f"{url!r} would survive nothing; say 'memory:' if you want that")
    if not path.strip("/") or "\x00" in path:
        raise ConfigurationError(f"{url!r} names no file; {_FORMS}")
    return path
