"""Every answer has one meaning: a table of statuses and bodies, and what they become."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from sigmic_guard.errors import (
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
    TaskNotFound,
    ValidationError,
)
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from sigmic_guard.sigmic.credentials import Redactor
from sigmic_guard.sigmic.responses import Answer, read_success
from tests.sigmic.raw_server import KEY, answering, client_of, response, success

pytestmark = pytest.mark.usefixtures("transport")

HTML = b"<html><h1>Nope</h1>" + b"x" * 500
DEEP = b"[" * 100_000


def failure(code: Any, message: Any = "Because.") -> Any:
    return {"success": False, "error": {"code": code, "message": message}}


def error_of(
    status: int, body: Any, *, retry_after: str | None = None, hidden: tuple[str, ...] = ()
) -> ApiError | ProtocolError:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    result = read_success(Answer(status, payload, retry_after), Redactor(hidden))
    assert isinstance(result, (ApiError, ProtocolError))
    return result


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (401, "AUTH_REQUIRED", AuthenticationError),
        (401, "INVALID_API_KEY", AuthenticationError),
        (401, "SOMETHING_NEW", AuthenticationError),
        (403, "FORBIDDEN", PermissionDenied),
        (403, "ORIGIN_NOT_ALLOWED", PermissionDenied),
        (404, "NOT_FOUND", TaskNotFound),
        (404, "FILE_NOT_FOUND", TaskNotFound),
        (400, "VALIDATION_ERROR", ValidationError),
        (409, "CONFLICT", ValidationError),
        (418, "TEAPOT", ValidationError),
        (429, "RATE_LIMITED", RateLimited),
        (500, "INTERNAL", ServerError),
        (501, "JWT_NOT_CONFIGURED", ServerError),
        (503, "NOT_FOUND", ServerError),
        (200, "AUTH_REQUIRED", AuthenticationError),
        (200, "INVALID_TOKEN", AuthenticationError),
        (200, "FORBIDDEN", PermissionDenied),
        (200, "NOT_FOUND", TaskNotFound),
        (200, "VALIDATION_ERROR", ValidationError),
        (202, "SOMETHING_NEW", ServerError),
    ],
)
def test_failures(status: int, code: str, kind: type[ApiError]) -> None:
    """A failure envelope becomes the class of its status, or of its code if it came with a 2xx."""
    error = error_of(status, failure(code))
    assert type(error) is kind
    assert (error.status, error.code, error.message) == (status, code, "Because.")


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        DEEP,
        b'{"success": true, "data": {}}',
        b'{"success": false}',
        b'{"success": false, "error": "x"}',
        b'{"detail": "Not Found"}',
        b'{"success": false, "error": {"code": 7}}',
        b'{"success": "false"}',
        b'{"success": 0}',
        b'{"success": false, "errors": [{"code": 1020, "message": "Access denied"}]}',
        b'{"error": "blocked"}',
        b'{"error": {"code": "FORBIDDEN", "message": "blocked"}}',
        b'{"success": false, "error": [{"code": "FORBIDDEN"}]}',
        b'{"success": true, "error": {"code": "NOT_FOUND", "message": "no"}}',
        b'"FORBIDDEN"',
    ],
    ids=lambda body: body.decode(errors="replace")[:30],
)
@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 405, 408, 409, 410, 413, 418, 422, 429, 451, 499]
)
def test_refusals_in_other_words(body: bytes, status: int) -> None:
    """Without the API's envelope a 4xx is a gateway's, and refuses nothing; no page is shown."""
    error = error_of(status, body, retry_after="7")
    assert type(error) is ProtocolError
    assert (error.status, error.retry_after) == (status, 7)
    assert len(str(error)) < 100


@pytest.mark.parametrize("body", [HTML, b"", b"{}", b'{"success": false}', b'{"error": "x"}'])
@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 599])
def test_server_errors_in_other_words(body: bytes, status: int) -> None:
    """A 5xx says the same whoever says it: it may or may not have been done."""
    error = error_of(status, body, retry_after="7")
    assert type(error) is ServerError
    assert (error.code, error.status, error.retry_after) == (f"HTTP_{status}", status, 7)
    assert len(str(error)) < 100


@pytest.mark.parametrize("body", [b'{"success": false}', b'{"success": false, "errors": ["x"]}'])
def test_a_failure_with_200_in_other_words(body: bytes) -> None:
    """A 200 that says that it failed, and not as the API does, proves nothing either."""
    error = error_of(200, body)
    assert type(error) is ProtocolError
    assert error.status == 200


@pytest.mark.parametrize("status", [101, 300, 301, 302, 304, 307, 308, 399, 600, 999])
def test_strange_statuses(status: int) -> None:
    """A redirect, or a status that does not exist, is a ProtocolError, whatever it carries."""
    for body in (HTML, failure("NOT_FOUND"), {"success": True, "data": {}}):
        error = error_of(status, body)
        assert type(error) is ProtocolError
        assert error.status == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        HTML,
        DEEP,
        b"\xff\xfe",
        b'{"success": 1, "data": {}}',
        b'{"data": {"id": "x"}}',
        b'{"success": true}',
        b'{"success": true, "data": null}',
        b'{"success": true, "data": []}',
        b'{"success": true, "data": {"id": 7, "status": "x"}}',
        b'{"success": true, "data": {"status": "x"}}',
        b'{"success": true, "data": {"id": "x"}} {}',
        b'{"success": true, "data": {"id": "\xff", "status": "x"}}',
        b'{"success": true, "data": {"id": "", "status": ' + DEEP,
    ],
    ids=lambda body: body.decode(errors="replace")[:50],
)
async def test_bad_successes(body: bytes) -> None:
    """A 200 that is empty, no JSON, no envelope, or lacks what is documented is a ProtocolError."""
    async with client_of(answering(response(body))) as client:
        for call in (
            client.get("x", timeout=5),
            client.create(CreateRequest(message="m"), timeout=5),
        ):
            with pytest.raises(ProtocolError) as caught:
                await call
            assert len(str(caught.value)) < 300
            assert caught.value.status == 200


@pytest.mark.parametrize("task_id", ["", ".", ".."])
async def test_a_created_id_that_is_none(task_id: str) -> None:
    """A task is never created under an id that no request can name."""
    async with client_of(answering(success({"id": task_id}))) as client:
        with pytest.raises(ProtocolError, match="usable id"):
            await client.create(CreateRequest(message="m"), timeout=5)


async def test_what_is_unknown_is_accepted() -> None:
    """Unknown fields and statuses are no reason to fail, nor is another 2xx."""
    data = {
        "id": "x",
        "status": "pondering",
        "new": [1],
        "error": {"any": 1},
        "output": {"content": "hi", "thoughts": []},
        "pendingApprovals": [{"callId": "c", "toolName": "sh", "args": {"a": 1}, "more": 1}],
    }
    body = {"success": True, "data": data, "meta": 1}
    async with client_of(answering(response(body, status=203))) as client:
        info = await client.get("x", timeout=5)
    assert (info.status, info.terminal) == ("pondering", False)
    assert info.output is not None
    assert info.output.content == "hi"
    assert info.pending_approvals is not None
    assert info.pending_approvals[0].call_id == "c"


@pytest.mark.parametrize(
    "pagination, total, has_more",
    [
        ({"total": 9, "limit": 2, "offset": 0, "hasMore": False}, 9, False),
        ({"total": 9, "hasMore": True}, 9, True),
        (None, None, True),
        ({}, None, True),
        ({"total": "nine"}, None, True),
    ],
)
async def test_pages(pagination: Any, total: int | None, has_more: bool) -> None:
    """A page tells what follows it; where the server does not, a full page may be followed."""
    body = {"success": True, "data": [{"id": str(i), "status": "failed"} for i in range(2)]}
    if pagination is not None:
        body["pagination"] = pagination
    async with client_of(answering(response(body))) as client:
        page = await client.list(limit=2, timeout=5)
        assert [task.id for task in page.tasks] == ["0", "1"]
        assert (page.total, page.has_more) == (total, has_more)
        if pagination is None:
            assert not (await client.list(limit=3, timeout=5)).has_more


@pytest.mark.parametrize(
    "answer, documented",
    [
        (success({"message": "Task cancelled"}), True),
        (success({"message": "Task cancelled", "id": "x"}), True),
        (success({"message": "Task already finished"}), False),
        (success({}), False),
        (success(None), False),
        (response({"success": True}), False),
        (response(b"", status=204), False),
        (response(b""), False),
        (response(HTML), False),
        (response(b"{"), False),
        (response(b"x" * (16 * 1024 * 1024 + 1)), False),
    ],
    ids=range(11),
)
async def test_delete(answer: bytes, documented: bool) -> None:
    """A DELETE is True for the documented answer and False for any other 2xx."""
    async with client_of(answering(answer)) as client:
        assert await client.delete("x", timeout=5) is documented


@pytest.mark.parametrize(
    "answer, kind",
    [
        (response(failure("NOT_FOUND")), TaskNotFound),
        (response(failure("NOT_FOUND"), status=404), TaskNotFound),
        (response(HTML, status=404), ProtocolError),
        (response(HTML, status=502), ServerError),
        (response(b"", status=302, headers="Location: /x\r\n"), ProtocolError),
    ],
    ids=range(5),
)
async def test_delete_refused(answer: bytes, kind: type[SigmicGuardError]) -> None:
    """A DELETE that is refused raises, also where the refusal came with 200."""
    async with client_of(answering(answer)) as client:
        with pytest.raises(kind):
            await client.delete("x", timeout=5)


class TestRetryAfter:
    @pytest.mark.parametrize(
        "header, seconds",
        [
            ("0", 0),
            ("7", 7),
            (" 7 ", 7),
            ("1.5", 1.5),
            ("60", 60),
            ("61", 60),
            ("86400", 60),
            ("999999999", 60),
            ("9" * 400, None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
            ("Wed, 21 Oct 9999 07:28:00 GMT", 60),
            ("Wed, 21 Oct 9999 07:28:00 -0000", 60),
            ("Wed, 21 Oct 99999 07:28:00 GMT", None),
            ("", None),
            ("-1", None),
            ("soon", None),
            ("1e9", None),
            ("nan", None),
            ("٣", None),
        ],
    )
    def test_values(self, header: str, seconds: float | None) -> None:
        """Seconds and dates are read, absurd ones are capped, and garbage is ignored."""
        for status in (302, 403, 429, 503):
            for body in (HTML, failure("RATE_LIMITED")):
                error = error_of(status, body, retry_after=header)
                assert isinstance(error, (ApiError, ProtocolError))
                assert error.retry_after == seconds

    def test_a_date(self) -> None:
        """A date is turned into the seconds until then."""
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        error = error_of(429, failure("RATE_LIMITED"), retry_after=date)
        assert isinstance(error, RateLimited)
        assert error.retry_after == pytest.approx(30, abs=29)

    async def test_on_the_wire(self) -> None:
        """The header is found in a response."""
        answer = response(failure("SLOW"), status=429, headers="retry-after: 3\r\n")
        async with client_of(answering(answer)) as client:
            with pytest.raises(RateLimited) as caught:
                await client.get("x", timeout=5)
        assert caught.value.retry_after == 3

    @pytest.mark.parametrize("status", [200, 302, 403, 404, 429])
    async def test_of_a_page(self, status: int) -> None:
        """The header of a gateway's page is found on every route, the stream's included."""
        answer = response(HTML, status=status, headers="retry-after: 3\r\n")
        async with client_of(answering(answer)) as client:
            for call in (
                client.get("x", timeout=5),
                client.list(timeout=5),
                client.create(CreateRequest(message="m"), timeout=5),
                client.send("x", "m", timeout=5),
                client.approve("x", "c", "cancel", timeout=5),
                client.stream("x", timeout=5, silence=5),
            ):
                with pytest.raises(ProtocolError) as caught:
                    await call
                assert (caught.value.status, caught.value.retry_after) == (status, 3)


class TestMessages:
    def test_clean(self) -> None:
        """A server's message is passed on without control characters and not at any length."""
        error = error_of(400, failure("X\n", "a\r\n\x1b[31mb\u2028" + "c" * 10_000))
        assert error.message.startswith("a [31mb ccc")
        assert len(error.message) < 310
        assert isinstance(error, ApiError)
        assert error.code == "X"

    @pytest.mark.parametrize("message", [None, 7, ["x"], ""])
    def test_none(self, message: Any) -> None:
        """Where there is no message there is another one."""
        assert error_of(400, failure("X", message)).message == "The API refused the request."

    def test_hidden(self) -> None:
        """What must not be shown is not, also where it would be cut, or is part of another."""
        hidden = ("hunter2", "hunter2-long", "", "line\nfeed")
        text = "x" * 290 + " hunter2-long"
        error = error_of(400, failure("hunter2", text), hidden=hidden)
        assert "hunter" not in str(error)
        error = error_of(400, failure("A", "line\nfeed hunter2 hunter2-long"), hidden=hidden)
        assert error.message == "[redacted] [redacted] [redacted]"

    async def test_an_echo(self) -> None:
        """A server that echoes the credential and the secrets does not get them into the error."""
        body = failure("VALIDATION_ERROR", f"Bad: {KEY}, hunter2-the-secret")
        async with client_of(answering(response(body, status=400))) as client:
            request = CreateRequest(message="m", secrets={"S": "hunter2-the-secret"})
            with pytest.raises(ValidationError) as caught:
                await client.create(request, timeout=5)
        assert caught.value.message == "Bad: [redacted], [redacted]"


class TestSizes:
    async def test_a_large_answer(self) -> None:
        """A body of 16 MiB is read, one byte more is a ProtocolError."""
        head, tail = b'{"success": true, "data": {"id": "x", "status": "y", "message": "', b'"}}'
        for extra in (0, 1):
            size = 16 * 1024 * 1024 - len(head) - len(tail) + extra
            answer = response(head + b"x" * size + tail)
            async with client_of(answering(answer)) as client:
                if extra:
                    with pytest.raises(ProtocolError, match="too large"):
                        await client.get("x", timeout=10)
                else:
                    info = await client.get("x", timeout=10)
                    assert len(info.message or "") == size

    @pytest.mark.parametrize("status", [200, 500])
    async def test_a_decompression_bomb(self, status: int) -> None:
        """What counts is the size after decompression; a bomb is not read to its end."""
        bomb = gzip.compress(bytes(200_000_000), 9)
        answer = response(bomb, status=status, headers="Content-Encoding: gzip\r\n")
        async with client_of(answering(answer)) as client:
            with pytest.raises((ProtocolError, ServerError)):
                await client.get("x", timeout=10)

    async def test_compressed(self) -> None:
        """A compressed answer is read."""
        body = gzip.compress(b'{"success": true, "data": {"id": "x", "status": "failed"}}')
        answer = response(body, headers="Content-Encoding: gzip\r\n")
        async with client_of(answering(answer)) as client:
            assert (await client.get("x", timeout=5)).terminal

    async def test_badly_compressed(self) -> None:
        """An answer that cannot be decompressed is a documented error."""
        answer = response(b"not gzip at all", headers="Content-Encoding: gzip\r\n")
        async with client_of(answering(answer)) as client:
            with pytest.raises((ProtocolError, ConnectionFailed)):
                await client.get("x", timeout=5)

    async def test_a_large_refusal(self) -> None:
        """A page of 1 MB with a 503 is not read on, and still is a ServerError."""
        async with client_of(answering(response(b"x" * 1_000_000, status=503))) as client:
            for _ in range(3):
                with pytest.raises(ServerError):
                    await client.get("x", timeout=5)


async def test_redirects_are_not_followed() -> None:
    """A redirect to another origin gets neither a request nor the credential."""

    async with client_of(answering(success({}))) as other:
        for status in (301, 302, 303, 307, 308):
            target = f"Location: {other.base_url}/\r\n"
            answer = response(b"", status=status, headers=target)
            async with client_of(answering(answer)) as client:
                with pytest.raises(ProtocolError, match="redirect"):
                    await client.get("x", timeout=5)
                with pytest.raises(ProtocolError, match="redirect"):
                    await client.stream("x", timeout=5, silence=5)


async def test_no_cookies() -> None:
    """A cookie that was set is not sent back."""
    seen = []

    async def script(exchange: Any) -> None:
        while request := await exchange.request():
            seen.append(request)
            await exchange.send(
                response({"success": True, "data": []}, headers="Set-Cookie: a=b; Path=/\r\n")
            )

    async with client_of(script) as client:
        await client.list(timeout=5)
        await client.list(timeout=5)
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


async def test_the_environment_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment does not get the credential."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with client_of(answering(success([]))) as client:
        assert isinstance(client, SigmicClient)
        await client.list(timeout=5)
