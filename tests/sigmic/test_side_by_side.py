"""Whatever a server does, both transports tell a user the same, and send as much."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING, Any, Final

import pytest

from sigmic_guard.errors import SigmicGuardError
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from tests.backends import ASYNCIO, UVLOOP_SLOWLY
from tests.sigmic.raw_server import KEY, Exchange, raw_server, response, success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Script = Callable[[Exchange], Awaitable[None]]

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP_SLOWLY)

WHOLE: Final = success({"id": "x", "status": "running"})
BODY: Final = WHOLE.partition(b"\r\n\r\n")[2]
#: A refusal in the API's words, too.
FAILURE: Final = response(
    {"success": False, "error": {"code": "VALIDATION_ERROR", "message": "no"}},
    status=400,
    headers="Retry-After: 7\r\n",
)


def head(*lines: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", *lines, "", ""]).encode()


def sized(body: bytes, *lines: str, **more: str) -> bytes:
    return head(f"Content-Length: {len(body)}", *lines, **more) + body


def chunked(body: bytes, size: int = 7, extension: str = "", trailer: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    data = b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension.encode(), p) for p in pieces)
    return head("Transfer-Encoding: chunked") + data + b"0\r\n" + trailer + b"\r\n"


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


GZIP: Final = "Content-Encoding: gzip"
DEFLATE: Final = "Content-Encoding: deflate"
LIMIT: Final = 16 * 2**20

#: What the server sends and then keeps the connection open. A list is sent piece by piece.
ANSWERS: Final[dict[str, bytes | list[bytes]]] = {
    "whole": WHOLE,
    "byte by byte": [bytes([byte]) for byte in WHOLE],
    "refusal": FAILURE,
    "refusal without envelope": response(b"<p>no", status=404),
    "page": response(b"<p>no", status=502, headers="Retry-After: 3\r\n"),
    "two Retry-After": response(b"no", status=503, headers="Retry-After: 3\r\nRetry-After: 9\r\n"),
    "large refusal": response(b"x" * 70_000, status=404),
    "redirect": response(status=302, headers="Location: /\r\n"),
    "no content": head(status="204 No Content"),
    "not modified": head("Content-Length: 5", status="304 Not Modified"),
    "empty": response(),
    "no reason": sized(BODY, status="200"),
    "status 099": sized(BODY, status="099 Odd"),
    "status 600": sized(BODY, status="600 Odd"),
    "status 1000": sized(BODY, status="1000 Odd"),
    "status xyz": sized(BODY, status="xyz"),
    "continue first": head(status="100 Continue") + WHOLE,
    "hints first": head("Link: </a>", status="103 Early Hints") + WHOLE,
    "many interim": head(status="100 Continue") * 50 + WHOLE,
    "switching": head("Connection: upgrade", "Upgrade: x", status="101 Switching") + b"what?",
    "chunked": chunked(BODY),
    "chunks of one": chunked(BODY, size=1),
    "chunk extensions": chunked(BODY, extension=' ;a="b"'),
    "trailers": chunked(BODY, trailer=b"X: y\r\nRetry-After: 3\r\n"),
    "chunked, twice said": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
    + chunked(BODY).partition(b"\r\n\r\n")[2],
    "bad chunk size": head("Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
    "huge chunk size": head("Transfer-Encoding: chunked") + b"f" * 40 + b"\r\n{}",
    "no end of a chunk": head("Transfer-Encoding: chunked") + b"2\r\n{}XX0\r\n\r\n",
    "length and chunked": head("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked and length": head("Transfer-Encoding: chunked", "Content-Length: 2") + b"0\r\n\r\n",
    "negative length": head("Content-Length: -1") + BODY,
    "length with a sign": head(f"Content-Length: +{len(BODY)}") + BODY,
    "hexadecimal length": head("Content-Length: 0x10") + BODY,
    "overflowing length": head("Content-Length: 99999999999999999999") + BODY,
    "two lengths": head("Content-Length: 1", f"Content-Length: {len(BODY)}") + BODY,
    "same length twice": head(*[f"Content-Length: {len(BODY)}"] * 2) + BODY,
    "list of lengths": head(f"Content-Length: {len(BODY)}, {len(BODY)}") + BODY,
    "empty length": head("Content-Length:") + BODY,
    "gzip": sized(gzip.compress(BODY), GZIP),
    "GZIP": sized(gzip.compress(BODY), "CONTENT-ENCODING: GZip "),
    "gzip in two files": sized(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), GZIP),
    "gzip byte by byte": [bytes([byte]) for byte in sized(gzip.compress(BODY), GZIP)],
    "gzip cut": sized(gzip.compress(BODY)[:-9], GZIP),
    "gzip cut in its head": sized(gzip.compress(BODY)[:4], GZIP),
    "gzip of nothing": sized(b"", GZIP),
    "no gzip": sized(BODY, GZIP),
    "gzip and then junk": sized(gzip.compress(BODY) + b"junk", GZIP),
    "gzip, damaged": sized(gzip.compress(BODY)[:20] + b"\xff" * 9, GZIP),
    "deflate": sized(zlib.compress(BODY), DEFLATE),
    "raw deflate": sized(raw_deflate(BODY), DEFLATE),
    "deflate cut": sized(zlib.compress(BODY)[:-6], DEFLATE),
    "deflate and then junk": sized(zlib.compress(BODY) + b"junk", DEFLATE),
    "bomb": sized(gzip.compress(b"x" * (LIMIT + 1)), GZIP),
    "bomb of bombs": sized(gzip.compress(b"x" * 2**20) * 40, GZIP),
    "bomb in a refusal": sized(gzip.compress(b"x" * 70_000), GZIP, status="403 No"),
    "unknown encoding": sized(BODY, "Content-Encoding: rot13"),
    "identity": sized(BODY, "Content-Encoding: identity"),
    "bare LF": WHOLE.replace(b"\r\n", b"\n"),
    "leading CRLF": b"\r\n\r\n" + WHOLE,
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "zeros": b"\0" * 100,
    "HTTP/9.9": sized(BODY, version="9.9"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a field": sized(BODY, "X: a\0b"),
    "nameless field": sized(BODY, ": x"),
    "field without colon": sized(BODY, "X"),
    "space before colon": sized(BODY, "X : y"),
    "folded field": sized(BODY, "X: a\r\n b"),
    "empty field": sized(BODY, "X:", "Y: "),
    "field at the limit": sized(BODY, "X: " + "x" * 8_000),
    "field too long": sized(BODY, "X: " + "x" * 9_000),
    "name too long": sized(BODY, "x" * 9_000 + ": y"),
    "reason too long": sized(BODY, status="200 " + "x" * 9_000),
    "field without end": head()[:-2] + b"X: " + b"x" * 300_000,
    "many fields": sized(BODY, *["X: y"] * 100),
    "too many fields": sized(BODY, *["X: y"] * 200),
    "not ASCII": sized(BODY, "X: \u00fc"),
}

#: What it sends and then hangs up.
LAST_WORDS: Final[dict[str, bytes]] = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": WHOLE[:30],
    "half a body": WHOLE[:-5],
    "no body": WHOLE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    "until the end": head() + BODY,
    "until the end, by HTTP/1.0": head(version="1.0") + BODY,
    "gzip until the end": head(GZIP) + gzip.compress(BODY),
    "cut before the end": head() + BODY[:-5],
    "interim only": head(status="100 Continue"),
    "half a chunk": chunked(BODY)[:-20],
    "no last chunk": chunked(BODY)[:-5],
    "half a trailer": chunked(BODY, trailer=b"X: y\r\n")[:-4],
    "with a length": WHOLE,
    "close": sized(BODY, "Connection: close"),
    "HTTP/1.0": sized(BODY, version="1.0"),
}

CALLS: Final[dict[str, Callable[[SigmicClient], Awaitable[Any]]]] = {
    "create": lambda client: client.create(CreateRequest(message="m"), timeout=5),
    "get": lambda client: client.get("x", timeout=5),
    "delete": lambda client: client.delete("x", timeout=5),
}


def answering(data: bytes | list[bytes]) -> Script:
    async def script(exchange: Exchange) -> None:
        while await exchange.request():
            for piece in data if isinstance(data, list) else [data]:
                await exchange.send(piece)
                if isinstance(data, list):
                    await asyncio.sleep(0)

    return script


def hanging_up(data: bytes, *, reset: bool) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(data)
        if reset:
            exchange.reset()

    return script


async def outcome(script: Script, call: str, transport: Any) -> dict[str, Any]:
    """What a user sees of a call and of another one after it, and what the server does."""
    requests: list[bytes] = []

    async def noting(exchange: Exchange) -> None:
        read = exchange.request

        async def request() -> bytes:
            data = await read()
            if data:
                requests.append(data.split(b" HTTP")[0])
            return data

        exchange.request = request  # type: ignore[method-assign]
        await script(exchange)

    heard: list[tuple[str, str, str]] = []
    seen: dict[str, Any] = {}
    async with (
        raw_server(noting) as server,
        SigmicClient(
            KEY, server.url, transport=transport, on_request=lambda *a: heard.append(a[:3])
        ) as client,
    ):
        for turn in ("first", "second"):
            try:
                seen[turn] = repr(await CALLS[call](client))
            except SigmicGuardError as error:
                seen[turn] = (type(error), str(error), vars(error))
    return {**seen, "heard": heard, "requests": requests}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(name: str, call: str) -> None:
    """Answers of every kind, good and bad."""
    script = answering(ANSWERS[name])
    found = [await outcome(script, call, transport) for transport in ("wire", "aiohttp")]
    assert found[0] == found[1]


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("name", LAST_WORDS)
async def test_last_words(name: str, reset: bool) -> None:
    """Answers with which the connection ends, in good order or not."""
    script = hanging_up(LAST_WORDS[name], reset=reset)
    found = [await outcome(script, "create", transport) for transport in ("wire", "aiohttp")]
    assert found[0] == found[1]
