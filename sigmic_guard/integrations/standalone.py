"""What an ASGI application that serves pages only says to all else, when it is served by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Receive, Scope, Send


async def serve_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Say yes to whoever starts it and stops it, for there is nothing to open; refuse websockets.

    :param scope: any but a request's.
    """
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
