"""A body on its way through aiohttp, with its files streamed from disk."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

import aiohttp

from sigmic_guard.sigmic.bodies import LocalFile

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.abc import AbstractStreamWriter

    from sigmic_guard.sigmic.bodies import Body

__all__ = ["BodyPayload"]

_CHUNK: Final = 256 * 1024
_NON_BLOCKING: Final[int] = getattr(os, "O_NONBLOCK", 0)


class FileUnreadable(OSError):
    """A file is no longer what it was when its size was announced. Never leaves this room."""


class BodyPayload(aiohttp.Payload):
    """Writes a body once: files are read from the disk, not kept."""

    def __init__(self, body: Body) -> None:
        super().__init__(None, content_type=body.content_type)
        self._body = body
        self._size = body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> NoReturn:  # noqa: ARG002
        """Refuse: nothing may hold a whole upload in memory."""
        raise TypeError("a body is only ever written")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write everything. After a raise it is half sent, and the connection of no use."""
        self._consumed = True
        for piece in self._body.pieces:
            if isinstance(piece, LocalFile):
                await self._write_file(piece, writer)
            else:
                await writer.write(piece)

    async def _write_file(self, file: LocalFile, writer: AbstractStreamWriter) -> None:
        """Write a file, exactly as many bytes as were announced."""
        source = _Source(file.path)
        loop = asyncio.get_running_loop()
        left = file.size
        try:
            while chunk := await loop.run_in_executor(None, source.read):
                left -= len(chunk)
                if left < 0:
                    break
                await writer.write(chunk)
        except FileUnreadable:
            self._body.failed_file = file
            raise
        finally:
            # Not awaited: this may be a cancellation, with a read still under way in its thread.
            _ = loop.run_in_executor(None, source.close)
        if left:
            self._body.failed_file = file
            raise FileUnreadable("a file changed while it was being sent")


class _Source:
    """A file that only threads touch: opened by the first read, closed when none is under way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Return the next bytes, none at the end or when closed."""
        with self._lock:
            if self._closed:
                return b""
            try:
                if self._file is None:
                    self._file = open(self._path, "rb", opener=_open)  # noqa: SIM115
                return self._file.read(_CHUNK)
            except OSError as exc:
                raise FileUnreadable(exc.errno, exc.strerror) from None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


def _open(name: str, flags: int) -> int:
    # Where the file was replaced by a pipe, opening it must not wait for a writer.
    return os.open(name, flags | _NON_BLOCKING)
