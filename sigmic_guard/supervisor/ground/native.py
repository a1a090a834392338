"""The running event loop's own kinds of anyio's primitives, for whoever makes many of them.

Each call of ``anyio.Event()`` or ``anyio.CancelScope()`` asks which event loop runs, which costs
several times what making one does. Here that is asked once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CancelScope, Event

if TYPE_CHECKING:
    from collections.abc import Callable


def event_type() -> Callable[[], Event]:
    """Return what makes events for the running loop."""
    return type(Event())


def scope_type() -> Callable[..., CancelScope]:
    """Return what makes cancel scopes for the running loop, of the arguments of anyio's."""
    return type(CancelScope())
