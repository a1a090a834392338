"""Bind the task's id to every log line that a block writes: :func:`enter_task`, :func:`leave_task`.

Two functions rather than a context manager, because a scoped block is entered in one method and
left in another. The id reaches the host's lines if its structlog has ``merge_contextvars``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars, reset_contextvars

from sigmic_guard.observe.wording import clean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from typing import Any


def enter_task(task_id: str) -> Mapping[str, Token[Any]]:
    """Bind ``task_id`` in the caller's context, and return what :func:`leave_task` needs."""
    return bind_contextvars(task_id=clean(task_id))


def leave_task(tokens: Mapping[str, Token[Any]]) -> None:
    """Bind again what was bound before: the id of the block around this one, or none.

    Does nothing if the block is left in another context than it was entered in, or is left twice.
    """
    with suppress(ValueError, RuntimeError):
        reset_contextvars(**tokens)
