"""Naughty ids can only ever reach the task of that name; naughty base URLs reach nothing."""

from __future__ import annotations

import traceback
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.sigmic import SigmicClient
from sigmic_guard.sigmic.urls import check_base_url, is_id, task_path
from tests.sigmic.raw_server import KEY, Exchange, client_of, success

pytestmark = pytest.mark.usefixtures("transport")

NAUGHTY = [
    "a/b",
    "/",
    "../admin",
    "a/../../b",
    "..%2f..",
    "%2e%2e",
    "%2f",
    "%",
    "%zz",
    "...",
    ". ",
    "a?b=c#d",
    "a;b=c",
    "a\\..\\b",
    "line\nfeed",
    "x HTTP/1.1\r\nHost: evil\r\n\r\n",
    "\0",
    " ",
    "+",
    "ünïcödé",
    "e\u0301",
    "🦊",
    "\u202e\ufeff",
    "x" * 10_000,
    "é" * 3_000,
    "~-._!$&'()*,=:@[]{}|^`\"<>",
]
REFUSED = ["", ".", "..", "\ud800", "a\udfffb", None, 7, b"abc"]


def short(value: object) -> str:
    return ascii(value)[:20]


@pytest.mark.parametrize("task_id", NAUGHTY, ids=short)
async def test_ids_on_the_wire(task_id: str) -> None:
    """A naughty id is one segment of the path that leaves, which decodes to that id again."""
    seen: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        while request := await exchange.request():
            seen.append(request)
            await exchange.send(success({"id": task_id, "status": "running", "approved": True}))

    async with client_of(script) as client:
        await client.get(task_id, timeout=5)
        await client.delete(task_id, timeout=5)
        await client.send(task_id, "hi", timeout=5)
        await client.approve(task_id, task_id, "cancel", timeout=5)
    targets = [request.split(b"\r\n")[0].split(b" ") for request in seen]
    assert [len(line) for line in targets] == [3] * 4
    assert all(request.count(b"\r\nHost: ") == 1 for request in seen)
    paths = [line[1].decode("ascii") for line in targets]
    segments = [path.removeprefix("/api/v1/tasks/").split("/") for path in paths]
    assert [[unquote(segment) for segment in path] for path in segments] == [
        [task_id],
        [task_id],
        [task_id, "messages"],
        [task_id, "tools", task_id, "approve"],
    ]


@pytest.mark.parametrize("task_id", REFUSED, ids=short)
async def test_ids_refused(task_id: str) -> None:
    """An id that cannot be one segment of its own is refused before a connection is made."""

    async def script(exchange: Exchange) -> None:
        pytest.fail("connected")

    async with client_of(script) as client:
        for call in (
            lambda: client.get(task_id, timeout=5),
            lambda: client.delete(task_id, timeout=5),
            lambda: client.send(task_id, "hi", timeout=5),
            lambda: client.stream(task_id, timeout=5, silence=5),
            lambda: client.approve(task_id, "x", "cancel", timeout=5),
            lambda: client.approve("x", task_id, "cancel", timeout=5),
        ):
            with pytest.raises(ConfigurationError, match="is no id"):
                await call()


@given(st.text(st.characters(exclude_categories=())))
def test_any_id(task_id: str) -> None:
    """Any text at all is one segment, or refused."""
    if not is_id(task_id):
        with pytest.raises(ConfigurationError):
            task_path(task_id)
        return
    url = URL("http://h/prefix" + task_path(task_id, "stream"), encoded=True)
    head, _, segment = url.raw_path_qs.removesuffix("/stream").rpartition("/")
    assert head == "/prefix/api/v1/tasks"
    assert unquote(segment) == task_id
    assert (url.host, url.raw_query_string, url.raw_fragment) == ("h", "", "")


@pytest.mark.parametrize(
    "given, used",
    [
        ("https://api.sigmic.ai", "https://api.sigmic.ai"),
        ("https://api.sigmic.ai/", "https://api.sigmic.ai"),
        ("HTTP://LocalHost:8080//", "http://localhost:8080"),
        ("http://[::1]:8080/gateway/sigmic/", "http://[::1]:8080/gateway/sigmic"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_base_urls(given: str, used: str) -> None:
    """http and https, a port and a path prefix are accepted; trailing slashes are not kept."""
    assert check_base_url(given) == used
    assert SigmicClient(KEY, given).base_url == used


@pytest.mark.parametrize(
    "value",
    [
        "",
        "api.sigmic.ai",
        "//api.sigmic.ai",
        "ftp://h",
        "file:///etc",
        "http://",
        "http:///x",
        "http://h?x",
        "http://h?",
        "http://h#x",
        "http://h#",
        "http://h:99999",
        "http://h:x",
        "http://user:hunter2@h",
        "http://user@h",
        "http://:hunter2@h",
        "http://h\\x",
        "http://[::1",
        " http://h",
        "http://h\n",
        "http://a b",
        "http://h/\x7f",
        "http://h/\ud800",
        b"http://h",
        7,
    ],
)
def test_base_urls_refused(value: str) -> None:
    """Anything else is refused, and not shown: it may hold a password."""
    with pytest.raises(ConfigurationError, match="base URL") as caught:
        SigmicClient(KEY, value)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "hunter2" not in str(caught.value)
    assert not any("base_url" in (frame.locals or {}) for frame in told.stack)
    assert caught.value.__context__ is None


def test_base_url_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is SIGMIC_BASE_URL's, and then the public one."""
    monkeypatch.setenv("SIGMIC_BASE_URL", "http://localhost:1/")
    assert SigmicClient(KEY).base_url == "http://localhost:1"
    monkeypatch.setenv("SIGMIC_BASE_URL", "")
    assert SigmicClient(KEY).base_url == "https://api.sigmic.ai"


async def test_a_path_prefix() -> None:
    """A prefix in the base URL stays as it was written, also under the list's query."""
    seen: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        while request := await exchange.request():
            seen.append(request.split(b" ")[1])
            await exchange.send(success([]))

    async with client_of(script) as client, SigmicClient(KEY, client.base_url + "/a%2Fb") as other:
        await other.list(limit=7, offset=3, timeout=5)
    assert seen == [b"/a%2Fb/api/v1/tasks?limit=7&offset=3"]


def test_an_id_has_an_end() -> None:
    """What no URL has room for is no id, and the refusal does not repeat it."""
    assert is_id("x" * 65_536)
    assert not is_id("x" * 65_537)
    with pytest.raises(ConfigurationError) as caught:
        task_path("\x1b[2K" + "x" * 10_000_000)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
