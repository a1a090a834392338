"""Where requests go: the base URL, and ids as single path segments of it."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import quote

from yarl import URL

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.text import MAX_ID, shown_id
from sigmic_guard.lifecycle.values import is_text, plain, shown

__all__ = ["DEFAULT_BASE_URL", "check_base_url", "is_id", "task_path"]

DEFAULT_BASE_URL: Final = "https://api.sigmic.ai"
#: Where the base URL comes from when none is given.
ENVIRONMENT_VARIABLE: Final = "SIGMIC_BASE_URL"

#: Where the tasks are, below the base URL.
TASKS: Final = "/api/v1/tasks"

_UNFIT: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029?#]")


def check_base_url(value: str | None) -> str:
    """Return the base URL without a trailing slash; ``None`` asks the environment first.

    A path is kept, as a prefix of every path of the API.

    :raises ConfigurationError: it is not http(s), has no host, or holds what does not belong there.
        The message does not hold the value, for that may hold a password.
    """
    try:
        if value is None:
            value = os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_BASE_URL
        url = _parse(value)
    finally:
        del value
    if url is None:
        raise ConfigurationError(
            "The base URL must be http(s)://host[:port][/path], without user, password, query, "
            "fragment or white space."
        )
    return url


def _parse(value: object) -> str | None:
    value = plain(value)
    if type(value) is not str or not is_text(value) or _UNFIT.search(value):
        return None
    try:
        url = URL(value)
    except ValueError:
        return None
    if url.scheme not in {"http", "https"} or not url.raw_host or "@" in url.raw_authority:
        return None
    return str(url).rstrip("/")


def is_id(value: object) -> bool:
    """Whether this can be an id: text that stands as one path segment for nothing but itself.

    And that a URL has room for: at most 65,536 characters.
    """
    return is_text(value) and value not in {"", ".", ".."} and len(str(value)) <= MAX_ID


def check_id(name: str, value: object) -> str:
    """Return an id as an exact string.

    :raises ConfigurationError: it can be none, see :func:`is_id`.
    """
    text = plain(value)
    if type(text) is not str or not is_id(text):
        raise ConfigurationError(
            f"{name} must be an id: text, and not empty, '.' or '..'; not {shown(value)}"
        )
    return text


def task_path(*segments: str) -> str:
    """Return the path of the tasks below the base URL, or of what the segments lead to.

    Each of them is encoded as one segment, and none is ever decoded again.

    :raises ConfigurationError: a segment can be no id, see :func:`is_id`.
    """
    path = TASKS
    for segment in map(plain, segments):
        if not is_id(segment):
            what = shown_id(segment) if type(segment) is str else shown(segment)
            raise ConfigurationError(
                f"'{what}' is no id: it must be text of at most {MAX_ID} "
                "characters, and not empty, '.' or '..'."
            )
        path += "/" + quote(segment, safe="")
    return path
