"""How an answer leaves: as it should, or broken in the way that a `Fault` says.

Broken answers bypass aiohttp's response classes: the bytes are written to the transport, which is
then closed or reset. The response that is returned afterwards finds the connection gone, which
aiohttp passes over.
"""

import asyncio
import http
import socket
import struct
from collections.abc import Sequence

import msgspec
from aiohttp import web

from sigmic_guard.emulator import sse
from sigmic_guard.emulator.answers import Answer, failure, success
from sigmic_guard.emulator.faults import Fault

_LINGER_0 = struct.pack("ii", 1, 0)
_BROKEN_JSON = b'{"success": true, "data": {"id": '
_ENDINGS = frozenset({"cut", "reset_mid", "truncated"})
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


def reset(request: web.BaseRequest) -> web.StreamResponse:
    """Reset the connection: the client's kernel gets a TCP RST, not a FIN."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    return drop(request)


def drop(request: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection without another byte."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def whole(answer: Answer) -> web.StreamResponse:
    """An answer as it should be."""
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def replacement(fault: Fault) -> Answer | None:
    """What is answered instead, for the kinds that answer something else in good order."""
    status = fault.status
    match fault.kind:
        case "status":
            return failure(fault.answer_status, fault.answer_code, fault.message, fault.headers)
        case "html":
            title = f"{status or 502} Bad Gateway"
            page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
            return Answer(status or 502, page.encode(), fault.headers, "text/html")
        case "refused_200":
            return failure(200, fault.code or "VALIDATION_ERROR", fault.message)
        case "lie":
            return success({"message": "Task cancelled"})
        case "redirect":
            return Answer(status or 302, b"", {"Location": fault.location or ""}, "text/plain")
        case "malformed":
            return Answer(status or 200, _BROKEN_JSON)
        case "empty":
            return Answer(status or 200, b"")
        case "oversize":
            return success({"padding": "x" * fault.size})
        case _:
            return None


async def broken(request: web.BaseRequest, answer: Answer, fault: Fault) -> web.StreamResponse:
    """Send this answer in the way the fault says; the kinds that hold it back are not for here."""
    transport = request.transport
    if transport is None:
        return web.Response()
    match fault.kind:
        case "reset_mid":
            data = _raw(answer)
            transport.write(data[: len(data) - max(1, len(answer.body) // 2)])
            return reset(request)
        case "reset_after":
            transport.write(_raw(answer))
            return reset(request)
        case "truncated":
            transport.write(_raw(answer, missing=100))
            transport.close()
        case "drip":
            for byte in _raw(answer, connection="close"):
                transport.write(bytes((byte,)))
                await asyncio.sleep(fault.seconds)
            transport.close()
        case _:
            return drop(request)
    return web.Response()


class StreamOutlet:
    """An event stream on its way to a client; `fault` spoils it."""

    def __init__(self, request: web.BaseRequest, fault: Fault | None) -> None:
        """Open nothing yet."""
        self.response = web.StreamResponse(headers=_STREAM_HEADERS)
        self._request = request
        self._fault = fault
        self._left = fault.events if fault and fault.kind in _ENDINGS else None
        self._extra = _extra(fault)

    async def open(self) -> None:
        """Send the head of the answer."""
        await self.response.prepare(self._request)

    async def send(self, events: Sequence[bytes]) -> bool:
        """Send some events; False if the stream is broken now and nothing more can be sent."""
        if self._extra:
            events = [*events, self._extra]
            self._extra = b""
        if self._left is None or self._left >= len(events):
            if self._left is not None:
                self._left -= len(events)
            await self._write(b"".join(events))
        else:
            await self._write(b"".join(events[: self._left]))
            await self._break_off(events[self._left])
            return False
        return True

    async def finish(self) -> web.StreamResponse:
        """End the stream."""
        await self.response.write_eof()
        if self._fault and self._fault.kind == "reset_after":
            reset(self._request)
        return self.response

    async def _write(self, data: bytes) -> None:
        if self._fault and self._fault.kind == "drip":
            for byte in data:
                await self.response.write(bytes((byte,)))
                await asyncio.sleep(self._fault.seconds)
        elif data:
            await self.response.write(data)

    async def _break_off(self, following: bytes) -> None:
        """End in the middle, at the event that would have followed."""
        match self._fault.kind if self._fault else None:
            case "truncated":
                await self.response.write(following[: len(following) // 2])
                drop(self._request)
            case "reset_mid":
                reset(self._request)
            case _:
                drop(self._request)


def _extra(fault: Fault | None) -> bytes:
    """An event that does not belong into the stream."""
    if fault and fault.kind == "malformed":
        return sse.event("content", b'{"text": "brok')
    if fault and fault.kind == "oversize":
        padding = {"text": "x" * fault.size, "isPartial": True}
        return sse.event("content", msgspec.json.encode(padding))
    return b""


def _raw(answer: Answer, *, missing: int = 0, connection: str = "keep-alive") -> bytes:
    """An answer on the wire; its Content-Length says `missing` bytes too many."""
    lines = [
        f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body) + missing}",
        f"Connection: {connection}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body
