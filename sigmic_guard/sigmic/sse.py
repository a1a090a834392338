"""Server-sent events: bytes in, events out, to the letter of the WHATWG algorithm.

Lines are split on bytes and decoded one by one. That gives what decoding the whole stream first
would give: in UTF-8 neither CR nor LF can be part of a longer sequence, whole or broken.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import Final

import msgspec

from sigmic_guard.errors import ProtocolError

__all__ = ["MAX_EVENT_SIZE", "SSEDecoder", "ServerSentEvent"]

#: Bytes in one line, or in the data of one event, unless the decoder is told otherwise.
MAX_EVENT_SIZE: Final = 8 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
# Whatever the interpreter's settings, it converts that many digits; no reconnection time has more.
_MAX_RETRY_DIGITS: Final = 640


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    :ivar event: its type.
    :ivar data: its data lines, joined by LF.
    :ivar id: the last event id of the stream, also where this event did not set it.
    :ivar retry: reconnection time in milliseconds, if this event's block set it.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


class SSEDecoder:
    """Turns a stream's chunks into events; each comes out with the byte that ends its blank line.

    :ivar last_event_id: the id to reconnect with, as of the last blank line.
    :ivar retry: the reconnection time in milliseconds that the stream set last, if any.
    """

    def __init__(self, max_event_size: int = MAX_EVENT_SIZE) -> None:
        self.last_event_id = ""
        self.retry: int | None = None
        self._max_size = max_event_size
        self._too_large = False
        self._at_start = True
        # A CR ended the last chunk, and its line; a LF that follows belongs to it.
        self._after_cr = False
        self._line = bytearray()  # the unfinished line
        # The block under construction.
        self._event = b""
        self._data = bytearray()  # each data line with its LF
        self._id = b""
        self._block_retry: int | None = None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, cut anywhere, and return the events that they complete.

        What the stream left unfinished when it ended is no event: just stop feeding.

        :raises ProtocolError: a line or an event's data is larger than ``max_event_size``. The
            decoder has dropped what it held, and raises this again whatever it is fed.
        """
        if self._too_large:
            raise self._oversize()
        if self._at_start:
            data = self._strip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        lines: list[bytes | bytearray] = [*data.split(b"\n")]
        rest = lines.pop()
        if lines and self._line:
            self._line += lines[0]
            lines[0], self._line = self._line, bytearray()
        events = self._take_lines(lines)
        self._line += rest
        if len(self._line) > self._max_size:
            raise self._oversize()
        return events

    def _strip_bom(self, data: bytes) -> bytes:
        """Hold the first bytes back while they may be the beginning of a byte order mark."""
        data = bytes(self._line) + data
        self._line.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._line += data
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)

    def _take_lines(self, lines: list[bytes | bytearray]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        for line in lines:
            if len(line) > self._max_size:
                raise self._oversize()
            if line[:6] == b"data: ":  # nearly every line
                self._add_data(line[6:])
            elif line:
                name, _, value = line.partition(b":")
                self._take_field(name, value.removeprefix(b" "))
            else:
                event = self._dispatch()
                if event is not None:
                    events.append(event)
        return events

    def _take_field(self, name: bytes | bytearray, value: bytes | bytearray) -> None:
        """Process one field; a comment is one without a name, and ignored like any unknown one."""
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = bytes(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = bytes(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = self._block_retry = int(value)

    def _add_data(self, value: bytes | bytearray) -> None:
        if not self._data and isinstance(value, bytearray):
            self._data = value  # a line of many chunks, and perhaps of many megabytes
        else:
            self._data += value
        self._data.append(0x0A)
        # The last LF is no part of the event's data.
        if len(self._data) > self._max_size + 1:
            raise self._oversize()

    def _dispatch(self) -> ServerSentEvent | None:
        """End the block: the id takes effect also where there is no data, and hence no event."""
        self.last_event_id = self._id.decode(errors="replace")
        event = None
        if self._data:
            del self._data[-1:]
            event = ServerSentEvent(
                self._event.decode(errors="replace") or "message",
                self._data.decode(errors="replace"),
                self.last_event_id,
                self._block_retry,
            )
            self._data.clear()
        self._event = b""
        self._block_retry = None
        return event

    def _oversize(self) -> ProtocolError:
        self._too_large = True
        self._line.clear()
        self._data.clear()
        return ProtocolError(f"The event stream holds an event larger than {self._max_size} bytes.")
