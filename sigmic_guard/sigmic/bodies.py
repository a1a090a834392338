"""What a request carries: JSON, or a multipart form with files streamed from disk."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

import aiohttp
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.abc import AbstractStreamWriter

__all__ = ["Body", "LocalFile", "json_body", "multipart_body"]

_CHUNK: Final = 256 * 1024
_NON_BLOCKING: Final[int] = getattr(os, "O_NONBLOCK", 0)


class LocalFile(msgspec.Struct, frozen=True):
    """A file that was looked at and shall be sent: ``size`` bytes, under ``name``."""

    path: Path
    name: str
    size: int


class FileUnreadable(OSError):
    """A file is no longer what it was when its size was announced. Never leaves this room."""


class Body(aiohttp.Payload):
    """A request's body, of a known size, made of bytes and of files that are read as they are sent.

    It is sent once: files are read from the disk, not kept.

    :ivar failed_file: the file that could not be sent as announced, if there was one.
    """

    def __init__(self, pieces: Iterable[bytes | LocalFile], content_type: str) -> None:
        super().__init__(None, content_type=content_type)
        self._pieces = tuple(pieces)
        self._size = sum(p.size if isinstance(p, LocalFile) else len(p) for p in self._pieces)
        self.failed_file: LocalFile | None = None

    def again(self) -> Body:
        """Return the same body, to be sent once more."""
        return Body(self._pieces, self.content_type)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> NoReturn:  # noqa: ARG002
        """Refuse: nothing may hold a whole upload in memory."""
        raise TypeError("a body is only ever written")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write everything. After a raise it is half sent, and the connection of no use."""
        self._consumed = True
        for piece in self._pieces:
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
            self.failed_file = file
            raise
        finally:
            # Not awaited: this may be a cancellation, with a read still under way in its thread.
            _ = loop.run_in_executor(None, source.close)
        if left:
            self.failed_file = file
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


def json_body(fields: dict[str, Any]) -> Body:
    """Return the fields as a JSON object."""
    return Body([msgspec.json.encode(fields)], "application/json")


def multipart_body(fields: dict[str, str], files: Iterable[LocalFile] = ()) -> Body:
    """Return the fields and the files (all in the field ``files``) as a form, as browsers do it.

    Source: RFC 7578; https://html.spec.whatwg.org/multipage/form-control-infrastructure.html,
    "multipart/form-data encoding algorithm", for file names.
    """
    boundary = secrets.token_hex(16)
    pieces: list[bytes | LocalFile] = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        pieces.append(f"{head}{value}\r\n".encode())
    for file in files:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; '
            f'filename="{_escape(file.name)}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        pieces += [head.encode(errors="replace"), file, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return Body(pieces, f"multipart/form-data; boundary={boundary}")


def _escape(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
