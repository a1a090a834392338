"""Whether a connection that was kept may be used again, as far as its socket tells."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["is_quiet"]


def is_quiet(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has neither hung up nor said anything that nobody asked for.

    The event loop may not have looked at the socket since, so that is asked.
    """
    if transport.is_closing():
        return False
    looker = select.poll()
    looker.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not looker.poll(0)
