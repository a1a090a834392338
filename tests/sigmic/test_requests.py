"""What is refused before it is sent, and what is sent."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmic_guard.errors import ConfigurationError, ConnectionFailed
from sigmic_guard.sigmic import CreateRequest, check_create, check_files
from sigmic_guard.sigmic.requests import MAX_FILE_SIZE, create_body
from tests.open_files import open_files
from tests.sigmic.raw_server import Exchange, client_of, success

pytestmark = pytest.mark.usefixtures("transport")

HIDDEN = "hunter2-the-secret"


@pytest.mark.parametrize(
    "request_",
    [
        CreateRequest(message="x"),
        CreateRequest(message="x", files=(Path("/no/such/file"),) * 20),
        CreateRequest(message="x" * 2_000_000, system_prompt="", env={"_a1": "", "B": "\n"}),
        CreateRequest(message=" ", secrets={"KEY": "ü🦊"}),
    ],
    ids=lambda r: r.message[:3],
)
def test_accepted(request_: CreateRequest) -> None:
    """A request that may be right passes; the disk is not touched for it."""
    check_create(request_)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"message": ""}, "message"),
        ({"message": None}, "message"),
        ({"message": b"x"}, "message"),
        ({"message": "\ud800"}, "message"),
        ({"system_prompt": "\ud800"}, "system_prompt"),
        ({"system_prompt": 7}, "system_prompt"),
        ({"files": (Path("x"),) * 21}, "at most 20"),
        ({"files": (7,)}, "paths"),
        ({"files": (Path("x"),), "env": {"A": "b"}}, "cannot be combined"),
        ({"files": (Path("x"),), "secrets": {"A": HIDDEN}}, "cannot be combined"),
        *[
            ({"env": {name: "x"}}, "env holds a name")
            for name in ("", "1a", "a-b", "a b", "é", "a\n", "A=B", 7, "\ud800", "a\u0661")
        ],
        ({"secrets": {HIDDEN + "!": "x"}}, "secrets holds a name"),
        ({"secrets": {"A": HIDDEN + "\ud800"}}, "secrets holds a value"),
        ({"env": {"A": 7}}, "env holds a value"),
        ({"env": {"A": None}}, "env holds a value"),
    ],
)
def test_refused(arguments: dict[str, Any], match: str) -> None:
    """A request that the API would refuse is refused here; no secret shows in how that looks."""
    with pytest.raises(ConfigurationError, match=match) as caught:
        check_create(CreateRequest(**{"message": "x", **arguments}))
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack[
        1:
    ]
    assert HIDDEN not in str([frame.locals for frame in frames]) + str(caught.value)
    assert caught.value.__context__ is None


async def test_files_refused(tmp_path: Path) -> None:
    """A file that is missing, no regular file, unreadable or too large is refused by its name."""
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", MAX_FILE_SIZE + 1)
    os.mkfifo(tmp_path / "pipe")
    for name, match in {
        "missing": "No such file",
        "large": "at most",
        "pipe": "regular",
        ".": "regular",
        "a\0b": "cannot be sent",
        "x" * 300: "too long",
    }.items():
        with pytest.raises(ConfigurationError, match=match) as caught:
            await check_files([tmp_path / name])
        assert repr(str(tmp_path / name)) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_an_unreadable_file(tmp_path: Path) -> None:
    """A file that may not be read is refused."""
    path = tmp_path / "x"
    path.touch(mode=0)
    with pytest.raises(ConfigurationError, match="not readable"):
        await check_files([path])


async def test_a_file_of_the_largest_size(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, MAX_FILE_SIZE)
    (found,) = await check_files([path])
    assert found.size == MAX_FILE_SIZE


TEXT = st.text() | st.text(st.characters(categories=["Cs", "Lu"]))
VARIABLES = st.dictionaries(st.from_regex(r"[A-Za-z_]\w?", fullmatch=True) | TEXT, TEXT, max_size=3)


@given(message=TEXT, system_prompt=st.none() | TEXT, env=VARIABLES, secrets=VARIABLES)
def test_what_is_accepted_can_be_encoded(**arguments: Any) -> None:
    """Whatever passes the checks has its bytes; nothing is found to have none later on."""
    request = CreateRequest(**arguments)
    try:
        check_create(request)
    except ConfigurationError:
        return
    body = create_body(request, ()).data
    if request.env or request.secrets:
        sent = json.loads(body)
        assert (sent.get("env", {}), sent.get("secrets", {})) == (request.env, request.secrets)
        assert (sent["message"], sent.get("systemPrompt")) == (
            request.message,
            request.system_prompt,
        )
    else:
        assert request.message.encode() in body


class Wire:
    """A server that keeps what it is sent, and answers as if a task were created by it."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    async def script(self, exchange: Exchange) -> None:
        while request := await exchange.request():
            self.requests.append(request)
            await exchange.send(success({"id": "new", "status": "running"}))

    @property
    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """The multipart form of the only request: name, file name, content."""
        (request,) = self.requests
        parsed = email.message_from_bytes(
            request.split(b"\r\n", 1)[1], policy=email.policy.HTTP.clone(utf8=True)
        )
        assert parsed.is_multipart()
        found = []
        for part in parsed.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((name, part.get_filename(), content))
        return found

    @property
    def json(self) -> Any:
        (request,) = self.requests
        head, body = request.split(b"\r\n\r\n", 1)
        assert b"Content-Type: application/json" in head
        return json.loads(body)


async def test_a_create_is_a_form() -> None:
    """Without variables a create is a form with all its fields, whatever is in them."""
    wire = Wire()
    message = '--x\r\n"ü"\r\n\r\n🦊'
    async with client_of(wire.script) as client:
        request = CreateRequest(message=message, system_prompt="p", auto_execute=False)
        assert await client.create(request, timeout=5) == "new"
    assert wire.parts == [
        ("message", None, message.encode()),
        ("systemPrompt", None, b"p"),
        ("showInHistory", None, b"true"),
        ("autoExecute", None, b"false"),
    ]


async def test_a_create_with_variables_is_json() -> None:
    """With env or secrets a create is JSON with the same names."""
    cases: list[dict[str, Any]] = [{"env": {"A": "ü"}}, {"secrets": {"B": "x"}}]
    for variables in cases:
        wire = Wire()
        async with client_of(wire.script) as client:
            await client.create(CreateRequest(message="m", **variables), timeout=5)
        assert wire.json == {"message": "m", "showInHistory": True, "autoExecute": True} | variables


async def test_files_are_sent(tmp_path: Path) -> None:
    """Files of any size go after the fields, byte by byte as they are, under any name."""
    contents = {
        "plain.csv": b"a,b\r\n1,2\r\n",
        "empty": b"",
        "large.bin": bytes(range(256)) * 4096,
        'quo"te ü🦊.txt': b"x",
        "line\nfeed": b"y",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    wire = Wire()
    async with client_of(wire.script) as client:
        files = tuple(tmp_path / name for name in contents)
        await client.create(CreateRequest(message="m", files=files), timeout=5)
    assert [(name, content) for name, _, content in wire.parts[3:]] == [
        ("files", content) for content in contents.values()
    ]
    assert b'filename="plain.csv"' in wire.requests[0]
    assert 'filename="quo%22te ü🦊.txt"'.encode() in wire.requests[0]
    assert b'filename="line%0Afeed"' in wire.requests[0]


async def test_a_follow_up() -> None:
    """A follow-up is JSON, and tells the status."""
    wire = Wire()
    async with client_of(wire.script) as client:
        assert await client.send("t", "more", timeout=5) == "running"
    assert wire.requests[0].startswith(b"POST /api/v1/tasks/t/messages ")
    assert wire.json == {"message": "more"}


async def test_a_follow_up_with_files(tmp_path: Path) -> None:
    """A follow-up with files is a form."""
    (tmp_path / "f").write_bytes(b"content")
    wire = Wire()
    async with client_of(wire.script) as client:
        await client.send("t", "more", files=[tmp_path / "f"], timeout=5)
    assert wire.parts == [("message", None, b"more"), ("files", "f", b"content")]


async def test_an_approval() -> None:
    """A decision goes to its call as JSON."""
    wire = Wire()

    async def script(exchange: Exchange) -> None:
        wire.requests.append(await exchange.request())
        await exchange.send(success({"approved": True}))

    async with client_of(script) as client:
        assert await client.approve("t", "c/1", "proceed_once", timeout=5) is True
        with pytest.raises(ConfigurationError, match="outcome"):
            await client.approve("t", "c", "perhaps", timeout=5)  # type: ignore[arg-type]
    assert wire.requests[0].startswith(b"POST /api/v1/tasks/t/tools/c%2F1/approve ")
    assert wire.json == {"outcome": "proceed_once"}


async def test_nothing_is_sent_for_a_bad_request(tmp_path: Path) -> None:
    """Where a request is refused here, no connection is made."""

    async def script(exchange: Exchange) -> None:
        pytest.fail("connected")

    missing = tmp_path / "missing"
    async with client_of(script) as client:
        for call in (
            lambda: client.create(CreateRequest(message=""), timeout=5),
            lambda: client.create(CreateRequest(message="x", files=(missing,)), timeout=5),
            lambda: client.send("t", "", timeout=5),
            lambda: client.send("t", "x", files=[missing], timeout=5),
            lambda: client.send("t", "x", files=[missing] * 21, timeout=5),
            lambda: client.list(limit=0, timeout=5),
            lambda: client.list(limit=101, timeout=5),
            lambda: client.list(offset=-1, timeout=5),
        ):
            with pytest.raises(ConfigurationError):
                await call()


@pytest.mark.parametrize("change", ["shrinks", "grows", "vanishes", "becomes a pipe"])
async def test_a_file_that_changes_under_way(tmp_path: Path, change: str) -> None:
    """A file that is not what was announced breaks the request off, and the error names it."""
    first, second = tmp_path / "first", tmp_path / "second"
    # Larger than all buffers on the way: the second file is opened only when the server reads.
    first.write_bytes(b"x" * 20_000_000)
    second.write_bytes(b"y" * 1000)

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        match change:
            case "shrinks":
                os.truncate(second, 999)
            case "grows":
                os.truncate(second, 1001)
            case "vanishes":
                second.unlink()
            case _:
                second.unlink()
                os.mkfifo(second)
        await exchange.hung_up()

    async with client_of(script) as client:
        request = CreateRequest(message="m", files=(first, second))
        with pytest.raises(ConnectionFailed, match="'second' changed or vanished") as caught:
            await client.create(request, timeout=20)
    assert caught.value.sent


async def test_a_cancelled_upload_closes_its_files(tmp_path: Path) -> None:
    """Wherever an upload is cancelled, its file is closed again."""
    path = tmp_path / "f"
    path.write_bytes(b"x" * 5_000_000)

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.hung_up()

    async with client_of(script) as client:
        request = CreateRequest(message="m", files=(path,))
        for steps in range(0, 200, 5):
            task = asyncio.create_task(client.create(request, timeout=60))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    while open_files(under=path):
        await asyncio.sleep(0)
