"""What a client of ours reads as server-sent events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, "Interpreting an event
stream".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from sigmic_guard import TaskEvent

MEDIA_TYPE: Final = "text/event-stream"
#: A comment: it reaches the client, and means nothing to it.
HEARTBEAT: Final = b": heartbeat\n\n"


def event_bytes(kind: str, data: Any) -> bytes:
    """Return one event of an event stream, its data as JSON in one line."""
    name = " ".join(kind.split())  # whatever a server calls it: a line break would end the field
    return b"event: %b\ndata: %b\n\n" % (name.encode(errors="replace"), msgspec.json.encode(data))


def encode_event(event: TaskEvent) -> bytes | None:
    """Encode an event of a task; what a reconnect repeats is left out.

    The event's name is its ``type``, and its data the JSON of ``data``.
    """
    return None if event.replayed else event_bytes(event.type, event.data)


def farewell_bytes(retry_after: float) -> bytes:
    """Return the last event of a stream that a shutdown ends.

    ``event: shutdown`` with ``{"retry_after": seconds}``, and the same time as the stream's
    ``retry``, so that an ``EventSource`` connects again by itself, and not before.
    """
    retry = b"retry: %d\n" % round(retry_after * 1000)
    return retry + event_bytes("shutdown", {"retry_after": retry_after})
