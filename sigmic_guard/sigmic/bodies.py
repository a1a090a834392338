"""What a request carries: JSON, or a multipart form with files streamed from disk."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

import aiohttp
import anyio.to_thread
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.abc import AbstractStreamWriter

__all__ = ["Body", "FileChanged", "LocalFile", "json_body", "multipart_body"]

_CHUNK: Final = 256 * 1024
_NON_BLOCKING: Final[int] = getattr(os, "O_NONBLOCK", 0)


class LocalFile(msgspec.Struct, frozen=True):
    """A file that was looked at and shall be sent: ``size`` bytes, under ``name``."""

    path: Path
    name: str
    size: int


class FileChanged(OSError):
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
        """Write a file, exactly as many bytes as were announced, reading in a thread."""
        try:
            source = await anyio.to_thread.run_sync(_open, file.path)
        except OSError:
            self.failed_file = file
            raise
        try:
            left = file.size
            while chunk := await self._read(file, source):
                left -= len(chunk)
                if left < 0:
                    break
                await writer.write(chunk)
        finally:
            source.close()
        if left:
            self.failed_file = file
            raise FileChanged("a file changed while it was being sent")

    async def _read(self, file: LocalFile, source: BinaryIO) -> bytes:
        try:
            return await anyio.to_thread.run_sync(source.read, _CHUNK)
        except OSError:
            self.failed_file = file
            raise


def _open(path: Path) -> BinaryIO:
    # Non-blocking: where the file was replaced by a pipe, opening it must not wait for a writer.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NON_BLOCKING))


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
