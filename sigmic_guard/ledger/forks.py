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

_renounce: Final[list[Callable[[], None]]] = []


def in_child(renounce: Callable[[], None]) -> Callable[[], None]:
    """Have the function called in every child as soon as it is forked."""
    _renounce.append(renounce)
    return renounce


def _after_in_child() -> None:
    for renounce in _renounce:
        renounce()
    gate.release()


os.register_at_fork(
    before=gate.acquire, after_in_parent=gate.release, after_in_child=_after_in_child
)
