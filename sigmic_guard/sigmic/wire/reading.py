"""Answers out of the bytes of a connection: one at a time, within bounds, with no I/O."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import httptools

from sigmic_guard.sigmic import failures
from sigmic_guard.sigmic.responses import MAX_JSON, MAX_REFUSAL, Answer
from sigmic_guard.sigmic.wire.inflating import ENCODINGS, Inflater

if TYPE_CHECKING:
    from sigmic_guard.errors import ConnectionFailed, ProtocolError

    Result = Answer | ProtocolError | ConnectionFailed

__all__ = ["AnswerReader"]

#: Bytes of one header field, and of the status line.
MAX_FIELD: Final = 8190
#: Header fields of one answer, its trailers included.
MAX_FIELDS: Final = 128

_SWITCHING_PROTOCOLS: Final = 101


class _Enough(Exception):
    """There is a result, and what follows is not read."""


class AnswerReader:
    """Reads the answers of one connection, each asked for with :meth:`expect`.

    The ``on_…`` methods are what the parser calls.

    :ivar reusable: whether the connection may carry another request after it.
    """

    __slots__ = (
        "_chunks",
        "_fields",
        "_framed",
        "_inflater",
        "_limit",
        "_moved",
        "_over",
        "_parser",
        "_result",
        "_retry_after",
        "_size",
        "_status",
        "_stuck",
        "reusable",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # As liberal as aiohttp's.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._chunks: list[bytes] = []
        self._retry_after: str | None = None
        self._inflater: Inflater | None = None
        #: Whether the head tells where the body ends; else the connection's end does.
        self._framed = False
        self._fields = 0
        self._limit = 0
        self._size = 0
        #: 0 until the head of an answer is complete that is not an interim one.
        self._status = 0
        #: Whether the parser told anything of what it was last fed, and how much it was since.
        self._moved = False
        self._stuck = 0
        #: Whether there is, or was, a result: nothing else is to come then.
        self._over = True
        self._result: Result | None = None
        self.reusable = False

    def close(self) -> None:
        """Let go of the parser, which holds this."""
        self._parser = None

    def expect(self) -> None:
        """Begin with the answer to a new request."""
        self._over = False
        self.reusable = False
        self._stuck = 0

    def take(self) -> Result:
        """Return the result, which is not kept: bodies are large, and errors hold frames."""
        result, self._result = self._result, None
        assert result is not None
        return result

    def feed(self, data: bytes) -> bool:
        """Take bytes, and return whether there is a result now."""
        parser = self._parser
        assert parser is not None
        self._moved = False
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.reusable = False
        except httptools.HttpParserError as exc:
            if isinstance(exc, httptools.HttpParserCallbackError) and not isinstance(
                exc.__context__, (_Enough, zlib.error)
            ):
                raise  # a bug
            self._fail()
        else:
            # What a field is made of the parser keeps until it is whole.
            self._stuck = 0 if self._moved else self._stuck + len(data)
            if self._stuck > 2 * MAX_FIELD:
                self._fail()
        return self._over

    def feed_eof(self, exc: BaseException | None = None) -> None:
        """Take the end of the connection: the result is there then.

        :param exc: what ended it, if it was not the peer in good order.
        """
        self.reusable = False
        if not self._status:
            self._end(failures.broken(exc))
        elif self._framed:
            self._end(failures.broken())
        else:
            self._finish()  # of the envelope, whether it is whole shows by itself

    def on_message_begin(self) -> None:
        """Begin with nothing known, be it after an interim answer."""
        if self._over:
            raise _Enough  # nobody asked for a second answer
        self._chunks = []
        self._retry_after = self._inflater = None
        self._framed = False
        self._fields = self._size = self._status = 0

    def on_status(self, reason: bytes) -> None:
        """Look at the words beside the status, which say nothing."""
        if len(reason) > MAX_FIELD:
            raise _Enough

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look at a field, and keep what matters."""
        self._moved = True
        self._fields += 1
        if len(name) + len(value) > MAX_FIELD or self._fields > MAX_FIELDS or b"\0" in value:
            raise _Enough
        if self._status:
            return  # a trailer
        match name.lower():
            case b"content-length":
                self._framed = True
            case b"transfer-encoding":
                self._framed = value.lower().rstrip(b" \t").endswith(b"chunked")
            case b"content-encoding":
                encoding = value.lower().strip(b" \t")
                self._inflater = Inflater(encoding) if encoding in ENCODINGS else None
            case b"retry-after":
                if self._retry_after is None:
                    self._retry_after = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        """Learn which status it is, and so how much of the body is read."""
        self._moved = True
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != _SWITCHING_PROTOCOLS:
            return
        self._status = status
        self._limit = MAX_JSON if 200 <= status < 300 else MAX_REFUSAL

    def on_chunk_header(self) -> None:
        """Note that there is progress."""
        self._moved = True

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body, if it is not too large."""
        self._moved = True
        if self._inflater is not None:
            data = self._inflater.feed(data, self._limit - self._size + 1)
        self._size += len(data)
        if self._size > self._limit:
            self._end(Answer(self._status, None, self._retry_after))
            raise _Enough
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        """Make the answer, unless it was an interim one."""
        if self._status:
            assert self._parser is not None
            self.reusable = self._parser.should_keep_alive()
            self._finish()

    def _finish(self) -> None:
        if self._inflater is not None and self._inflater.cut:
            self._fail()
        else:
            self._end(Answer(self._status, b"".join(self._chunks), self._retry_after))

    def _fail(self) -> None:
        """What comes is no HTTP, or is not read any further."""
        self.reusable = False
        if not self._over:
            self._end(failures.no_http())

    def _end(self, result: Result) -> None:
        self._over = True
        self._result = result
        self._chunks = []
