"""How a create is marked, so that the task can be told in the list if the answer is lost."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo

#: The variable of ``env`` that holds the intent id.
MARKER: Final = "SIGMIC_GUARD_INTENT"


def mark(request: CreateRequest, intent_id: str) -> CreateRequest:
    """Return the request with the marker in its ``env``."""
    return request.with_env(MARKER, intent_id)


def marked_with(info: TaskInfo) -> str | None:
    """Return the intent id that the task was created with, if it carries one."""
    return (info.env or {}).get(MARKER)


def told_by(message: str) -> int:
    """Return what a message is compared by within this process, at no cost to speak of."""
    return hash(message.strip())


def digest(message: str) -> str:
    """Return what a task without a marker is told by, and what gives its message not away.

    White space around the message does not count: a server may strip it.
    """
    return sha256(message.strip().encode(errors="surrogatepass")).hexdigest()
