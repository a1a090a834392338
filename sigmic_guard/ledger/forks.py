"""What a forked child must not inherit."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Held while something is opened that a child must not inherit, until it is noted, so that no fork
#: comes in between.
gate: Final = threading.Lock()

_hooks: Final[list[Callable[[], None]]] = []


def in_child(hook: Callable[[], None]) -> Callable[[], None]:
    """Have the function called in every child as soon as it is forked."""
    _hooks.append(hook)
    return hook


def _after_in_child() -> None:
    for hook in _hooks:
        hook()
    gate.release()


os.register_at_fork(
    before=gate.acquire, after_in_parent=gate.release, after_in_child=_after_in_child
)
