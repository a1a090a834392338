"""Which ledger a URL names: ``memory:``, or ``sqlite:///`` and a path."""

from __future__ import annotations

import os
import re
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

#: What holds no password: a file's path, or a URL of SQLite's, or a scheme alone.
_HARMLESS: Final = re.compile(
    r"(?:sqlite:|file:)?[\w./ -]*|[a-z][a-z0-9+.-]*:", re.IGNORECASE | re.ASCII
)
#: A URL whose host can be told from its password for certain: nothing after it has an ``@``.
_REMOTE: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[^/?#@\s]*@)?(?P<host>[a-z0-9.-]+)(?::\d+)?"
    r"(?P<rest>[/?#][^@]*)?",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*://).*", re.IGNORECASE | re.ASCII | re.DOTALL)


def chosen_ledger_url() -> str:
    """Return the URL that the environment names, or else the default one."""
    return os.environ.get(LEDGER_VARIABLE) or default_ledger_url()


def default_ledger_url() -> str:
    """Return the URL of the file ``ledger.db`` in the user's state directory."""
    return sqlite_url(str(user_state_path("sigmic-guard") / "ledger.db"))


def sqlite_url(path: str) -> str:
    """Return the URL that names the file; see :func:`sqlite_path` for the way back."""
    return _SQLITE + path


def shown(url: str) -> str:
    """Return what may be shown of a URL that may hold a password: its scheme and host at most."""
    if _HARMLESS.fullmatch(url):
        return url
    if (found := _REMOTE.fullmatch(url)) is not None:
        hidden = url != f"{found['scheme']}://{found['host']}"
        return f"{found['scheme']}://{found['host']}{'/…' if hidden else ''}"
    return f"{scheme[1]}…" if (scheme := _SCHEME.fullmatch(url)) is not None else "…"


def sqlite_path(url: str) -> str | None:
    """Return the path that a URL names; ``None`` for ``memory:``.

    :raises ConfigurationError: no ledger has such a URL. Neither its message nor this function's
        frame has a password that stands in the URL.
    """
    if url in {"memory:", "memory"}:
        return None
    path = url.removeprefix(_SQLITE)
    if path == url:
        told = shown(url)
        del url, path
        raise ConfigurationError(f"no ledger knows the URL {told!r}; {_FORMS}")
    if path == ":memory:":
        raise ConfigurationError(f"{url!r} would survive nothing; say 'memory:' if you want that")
    if not path.strip("/") or "\x00" in path:
        raise ConfigurationError(f"{url!r} names no file; {_FORMS}")
    return path
