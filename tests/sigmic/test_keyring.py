"""A credential that comes from a callable: when it is asked, and what becomes of what it gives."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import AuthenticationError, ConfigurationError, SigmicGuardError
from sigmic_guard.sigmic import CreateRequest, SigmicClient, keyring
from sigmic_guard.sigmic.credentials import Credential
from sigmic_guard.sigmic.keyring import Keyring
from tests.faults.frames import library_locals, serialised
from tests.sigmic.raw_server import Exchange, RawServer, raw_server, response, success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("transport")

OLD, NEW = "eyJold.credential.one", "eyJnew.credential.two"
INFO = {"id": "x", "status": "running"}
ENVELOPE = {"success": False, "error": {"code": "INVALID_TOKEN", "message": "expired"}}


class Door:
    """A server that takes one credential, and remembers who knocked with what."""

    def __init__(self, takes: str = NEW, *, page: bool = False) -> None:
        self.takes = takes
        self.page = page
        self.knocks: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []

    def serve(self) -> Any:
        return raw_server(self)

    async def __call__(self, exchange: Exchange) -> None:
        while request := await exchange.request():
            head, _, body = request.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            given = next(line for line in lines if line.lower().startswith("authorization:"))
            self.knocks.append((lines[0].split()[0], given.split()[-1]))
            self.bodies.append(body)
            if given.endswith(f"Bearer {self.takes}"):
                await exchange.send(success(INFO))
            elif self.page:
                await exchange.send(response(b"<h1>Unauthorized</h1>", status=401))
            else:
                await exchange.send(response(ENVELOPE, status=401))


class Source:
    """Gives one thing after the other, the last for ever; raises those that are errors."""

    def __init__(self, *gives: object) -> None:
        self.asked = 0
        self._gives = itertools.chain(gives, itertools.repeat(gives[-1]))

    def __call__(self) -> Any:
        self.asked += 1
        given = next(self._gives)
        if isinstance(given, BaseException):
            raise given
        return given() if callable(given) else given


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a source be asked again at once."""
    monkeypatch.setattr(keyring, "ASK_INTERVAL", 0.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a source little time."""
    monkeypatch.setattr(keyring, "ASK_TIMEOUT", 0.1)


def client_of(server: RawServer, source: Any, **more: Any) -> SigmicClient:
    return SigmicClient(source, server.url, **more)


CALLS: dict[str, Callable[[SigmicClient], Awaitable[object]]] = {
    "create": lambda client: client.create(
        CreateRequest(message="m", secrets={"S": "t"}), timeout=5
    ),
    "get": lambda client: client.get("x", timeout=5),
    "delete": lambda client: client.delete("x", timeout=5),
    "send": lambda client: client.send("x", "more", timeout=5),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_asked_again_on_401(
    call: Callable[[SigmicClient], Awaitable[object]], kind: str, at_once: None
) -> None:
    """What the API refuses with 401 is sent once more, as it was, with the next credential."""
    source = Source(OLD, NEW)

    async def give() -> str:
        await asyncio.sleep(0)
        value: str = source()
        return value

    door = Door()
    asked = source if kind == "plain" else give
    async with door.serve() as server, client_of(server, asked) as client:
        await call(client)
        await call(client)
    assert [credential for _, credential in door.knocks] == [OLD, NEW, NEW]
    assert source.asked == 2
    assert door.bodies[0] == door.bodies[1]


async def test_a_form_is_sent_again_whole(at_once: None, tmp_path: Path) -> None:
    """A create with files reads them once more."""
    file = tmp_path / "data.csv"
    file.write_text("1,2,3\n" * 1000)
    door = Door()
    async with door.serve() as server, client_of(server, Source(OLD, NEW)) as client:
        await client.create(CreateRequest(message="m", files=(file,)), timeout=5)
    assert door.bodies[0] == door.bodies[1]
    assert door.bodies[1].count(b"1,2,3") == 1000


async def test_a_stream_asks_as_well(at_once: None) -> None:
    """The event stream is opened with the next credential, which later requests have too."""
    door = Door()
    async with door.serve() as server, client_of(server, Source(OLD, NEW)) as client:
        with pytest.raises(SigmicGuardError, match="no event stream"):
            await client.stream("x", timeout=5, silence=5)
        await client.get("x", timeout=5)
    assert [credential for _, credential in door.knocks] == [OLD, NEW, NEW]


async def test_one_asking_for_all() -> None:
    """Requests that are refused at the same time share one asking."""
    release = asyncio.Event()
    source = Source(OLD, NEW)

    async def give() -> str:
        value: str = source()
        if value == NEW:
            await release.wait()
        return value

    door = Door()
    async with door.serve() as server, client_of(server, give) as client:
        await client.authenticate()
        client._keyring._asked_at = -1e9
        calls = [asyncio.ensure_future(client.get("x", timeout=5)) for _ in range(20)]
        while len(door.knocks) < 20 or source.asked < 2:
            await asyncio.sleep(0.001)
        release.set()
        infos = await asyncio.gather(*calls)
    assert {info.id for info in infos} == {"x"}
    assert source.asked == 2
    assert len(door.knocks) == 40


async def test_an_asking_survives_who_asked(at_once: None) -> None:
    """A request that is given up does not take with it what others wait for."""
    release = asyncio.Event()
    source = Source(OLD, NEW)

    async def give() -> str:
        value: str = source()
        if value == NEW:
            await release.wait()
        return value

    door = Door()
    async with door.serve() as server, client_of(server, give) as client:
        first = asyncio.ensure_future(client.get("x", timeout=5))
        while source.asked < 2:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(client.get("x", timeout=5))
        while len(door.knocks) < 2:
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.wait({first})
        release.set()
        assert (await second).id == "x"
    assert first.cancelled()
    assert source.asked == 2


async def test_not_more_often_than_every_few_seconds() -> None:
    """A credential that is refused again and again asks the source once in a while only."""
    door, source = Door(takes="nobody"), Source(OLD, NEW, "eyJthird")
    async with door.serve() as server, client_of(server, source) as client:
        for _ in range(10):
            with pytest.raises(AuthenticationError):
                await client.get("x", timeout=5)
        assert source.asked == 1
        client._keyring._asked_at -= keyring.ASK_INTERVAL
        with pytest.raises(AuthenticationError):
            await client.get("x", timeout=5)
        assert source.asked == 2
    assert [credential for _, credential in door.knocks] == [OLD] * 11 + [NEW]


async def test_a_gateway_asks_nobody(at_once: None) -> None:
    """A 401 without the API's envelope says nothing of the credential."""
    door, source = Door(page=True), Source(OLD, NEW)
    async with door.serve() as server, client_of(server, source) as client:
        with pytest.raises(SigmicGuardError):
            await client.get("x", timeout=5)
    assert source.asked == 1
    assert len(door.knocks) == 1


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "gives, hint",
    [
        (OLD, "gave the same again"),
        (None, "gave no string but NoneType"),
        (b"eyJbytes", "gave no string but bytes"),
        ("no credential of any shape", "not the shape of a credential"),
        ("", "not the shape of a credential"),
        (RuntimeError(NEW), "raised RuntimeError"),
        (TimeoutError(NEW), "raised TimeoutError"),
        (asyncio.CancelledError(), "raised CancelledError"),
        (forever, "did not answer within 0.1 s"),
    ],
    ids=lambda given: getattr(given, "__name__", str(given)),
)
async def test_a_source_that_has_nothing_better(
    gives: object, hint: str, at_once: None, quick: None
) -> None:
    """The old credential stays, the error is the API's and says what was tried; later it works."""
    door, source = Door(), Source(OLD, gives, NEW)
    async with door.serve() as server, client_of(server, source) as client:
        with pytest.raises(AuthenticationError, match="expired") as caught:
            await client.get("x", timeout=5)
        assert hint in str(caught.value)
        seen = [str(caught.value), repr(client), repr(vars(client))]
        for _, value in library_locals(caught.value):
            seen += serialised(value)
        assert not [text for text in seen if "credential.one" in text or NEW in text]
        assert caught.value.__context__ is None
        assert (await client.get("x", timeout=5)).id == "x"
    assert [credential for _, credential in door.knocks] == [OLD, OLD, NEW]


@pytest.mark.parametrize(
    "gives",
    [None, "", "nonsense", 7, KeyError(NEW), forever],
    ids=lambda given: getattr(given, "__name__", str(given)),
)
async def test_no_first_credential(gives: object, quick: None) -> None:
    """Without a first credential nothing is sent, and the error shows nothing of what was given."""
    door = Door()
    async with door.serve() as server, client_of(server, Source(gives)) as client:
        with pytest.raises(ConfigurationError, match="api_key=…") as caught:
            await client.get("x", timeout=5)
        assert NEW not in str(caught.value)
        with pytest.raises(ConfigurationError):
            await client.authenticate()
    assert door.knocks == []


async def test_a_request_that_cannot_wait_for_it(at_once: None) -> None:
    """A source that takes longer than the request may leaves it with the API's own error."""
    release = asyncio.Event()
    source = Source(OLD, NEW)

    async def give() -> str:
        value: str = source()
        if value == NEW:
            await release.wait()
        return value

    door = Door()
    async with door.serve() as server, client_of(server, give) as client:
        with pytest.raises(AuthenticationError, match="has not answered yet"):
            await client.get("x", timeout=0.2)
        release.set()
        assert (await client.get("x", timeout=5)).id == "x"
    assert source.asked == 2


async def test_closing_leaves_nobody_behind(at_once: None) -> None:
    """A source that is being asked when the client closes is cancelled."""
    ended = asyncio.Event()
    source = Source(OLD, NEW)

    async def give() -> str:
        value: str = source()
        if value == NEW:
            try:
                await forever()
            finally:
                ended.set()
        return value

    door = Door()
    async with door.serve() as server, client_of(server, give) as client:
        with pytest.raises(AuthenticationError):
            await client.get("x", timeout=0.2)
    assert ended.is_set()


async def test_all_that_were_in_use_are_hidden(at_once: None) -> None:
    """A server that repeats a credential of before is not passed on as it is."""
    keys = [f"sigmic_number{n}" for n in range(3)]
    source = Source(*keys)

    async def echo(exchange: Exchange) -> None:
        while await exchange.request():
            error = {"code": "INVALID_TOKEN", "message": " ".join(keys)}
            await exchange.send(response({"success": False, "error": error}, status=401))

    async with raw_server(echo) as server, client_of(server, source) as client:
        for _ in keys:
            with pytest.raises(AuthenticationError) as caught:
                await client.get("x", timeout=5)
            assert not any(key in str(caught.value) for key in keys[: source.asked])


async def test_the_fingerprint_stays(at_once: None) -> None:
    """Rows name the first credential, whatever comes after it."""
    door = Door()
    async with door.serve() as server, client_of(server, Source(OLD, NEW)) as client:
        with pytest.raises(ConfigurationError, match="before the first request"):
            _ = client.credential_fingerprint
        await client.get("x", timeout=5)
        assert client.credential_fingerprint == Credential(OLD).fingerprint


def test_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows name the account where there is one, whatever the credential is."""
    named = {SigmicClient(key, account="prod").credential_fingerprint for key in (OLD, NEW)}
    named.add(SigmicClient(Source(OLD), account="prod").credential_fingerprint)
    monkeypatch.setenv("SIGMIC_ACCOUNT", "prod")
    named.add(SigmicClient(OLD).credential_fingerprint)
    assert len(named) == 1
    assert SigmicClient(OLD, account="other").credential_fingerprint not in named
    monkeypatch.delenv("SIGMIC_ACCOUNT")
    assert SigmicClient(OLD).credential_fingerprint == Credential(OLD).fingerprint


@pytest.mark.parametrize("account", ["", 7, b"x", "\ud800"])
def test_no_account(account: Any) -> None:
    """What is no name is refused."""
    with pytest.raises(ConfigurationError, match="account must"):
        SigmicClient(OLD, account=account)


def test_a_keyring_is_shared() -> None:
    """A keyring stands for itself, and cannot be copied."""
    ring = Keyring(OLD)
    assert Keyring.of(ring) is ring
    assert OLD not in repr(ring)
    with pytest.raises(TypeError):
        ring.__reduce__()
