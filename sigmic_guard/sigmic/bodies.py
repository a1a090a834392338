"""What a request carries: JSON, or a multipart form with files."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Body", "LocalFile", "json_body", "multipart_body"]


class LocalFile(msgspec.Struct, frozen=True):
    """A file that was looked at and shall be sent: ``size`` bytes, under ``name``."""

    path: Path
    name: str
    size: int


class Body:
    """A request's body, of a known size: bytes, and files that are read as they are sent.

    :ivar has_files: whether files are part of it.
    :ivar failed_file: the file that could not be sent as announced, if there was one.
    """

    __slots__ = ("content_type", "failed_file", "has_files", "pieces", "size")

    def __init__(self, pieces: Iterable[bytes | LocalFile], content_type: str) -> None:
        self.pieces = tuple(pieces)
        self.content_type = content_type
        self.size, self.has_files = 0, False
        for piece in self.pieces:
            if isinstance(piece, LocalFile):
                self.size += piece.size
                self.has_files = True
            else:
                self.size += len(piece)
        self.failed_file: LocalFile | None = None

    @property
    def data(self) -> bytes:
        """All of it, of one without files."""
        return b"".join([piece for piece in self.pieces if isinstance(piece, bytes)])

    def again(self) -> Body:
        """Return the same body, to be sent once more."""
        return Body(self.pieces, self.content_type)


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
