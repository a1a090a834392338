"""Bodies that a server has compressed, back as they were, and never more of them than is wanted."""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["ENCODINGS", "Inflater"]

_RAW: Final = -zlib.MAX_WBITS
_GZIP: Final = zlib.MAX_WBITS + 16
#: The values of Content-Encoding that are asked for, and understood.
ENCODINGS: Final = frozenset({b"gzip", b"deflate"})


class Inflater:
    """Takes a compressed body piece by piece.

    :param encoding: one of :data:`ENCODINGS`.
    """

    __slots__ = ("_deflate", "_inflate")

    def __init__(self, encoding: bytes) -> None:
        self._deflate = encoding == b"deflate"
        # What "deflate" means its first byte tells: some servers leave the header out.
        self._inflate = None if self._deflate else zlib.decompressobj(_GZIP)

    def feed(self, data: bytes, most: int) -> bytes:
        """Return what comes of it, at most ``most`` bytes; if it is as many, the rest is lost.

        :raises zlib.error: it is not compressed like that.
        """
        inflate = self._inflate
        if inflate is None:
            inflate = zlib.decompressobj(_RAW if data[0] & 0xF != 8 else zlib.MAX_WBITS)
            self._inflate = inflate
        found = []
        while True:
            piece = inflate.decompress(data, most)
            found.append(piece)
            most -= len(piece)
            data = inflate.unused_data
            if data and self._deflate:
                raise zlib.error("it goes on after its end")
            if most <= 0 or not data:
                return b"".join(found)
            # One gzip file behind the other is one text.
            inflate = self._inflate = zlib.decompressobj(_GZIP)

    @property
    def cut(self) -> bool:
        """Whether the end is missing. Of gzip that is not asked: its text tells for itself."""
        return self._deflate and self._inflate is not None and not self._inflate.eof
