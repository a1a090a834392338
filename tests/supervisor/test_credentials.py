"""A credential that is refused while tasks run: who is told, and what goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anyio import create_task_group, move_on_after, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard import (
    AuthenticationError,
    ConfigurationError,
    Outcome,
    PermissionDenied,
    RemoteTask,
    State,
    Supervisor,
)
from sigmic_guard.emulator import Emulator, Script, bodies
from sigmic_guard.ledger import MemoryLedger, MemoryStore, SqliteLedger
from sigmic_guard.observe import CredentialAccepted, CredentialRefused, Logs, ObservedEvent
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, UNAVAILABLE, Lab

if TYPE_CHECKING:
    from pathlib import Path

virtual = pytest.mark.backends(TRIO_VIRTUAL)
OLD, NEW = "sigmic_" + "01" * 32, "sigmic_" + "02" * 32


class Told:
    """What observers are told of the credential."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[Any] = []
        monkeypatch.setattr(Logs, "observe", lambda _, event: self._note(event))

    def _note(self, event: ObservedEvent) -> None:
        match event:
            case CredentialRefused():
                self.lines.append(event.status)
            case CredentialAccepted():
                self.lines.append("accepted")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def refuse(lab: Lab, error: Exception | None, *methods: str) -> None:
    for method in methods or ("list", "get", "stream", "delete"):
        lab.fake.always(method, error)


@virtual
async def test_who_waits_for_a_result_is_told(told: Told) -> None:
    """result() raises what the API said; the task stays supervised, and later it has its result."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        refuse(lab, UNAUTHORISED)
        with pytest.raises(AuthenticationError):
            await task.result()
        assert (task.state, task.outcome) == (State.RUNNING, None)
        assert task.id in supervisor.tasks
        await sleep(120)
        assert told.lines == [401]
        refuse(lab, None)
        lab.fake.complete(task.id, "42")
        assert (await task.result()).final_response == "42"
    assert told.lines == [401, "accepted"]


@virtual
async def test_each_is_told_with_an_error_of_its_own(told: Told) -> None:
    """Twenty who wait are told by twenty errors, and the log says it once."""
    lab = Lab()
    errors: list[BaseException] = []

    async def wait(task: RemoteTask) -> None:
        with pytest.raises(AuthenticationError) as caught:
            await task.result()
        errors.append(caught.value)

    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        async with create_task_group() as group:
            for _ in range(20):
                group.start_soon(wait, task)
            await sleep(1)
            refuse(lab, UNAUTHORISED)
        assert len(set(map(id, errors))) == 20
        assert told.lines == [401]
        refuse(lab, None)


@virtual
async def test_wait_goes_on() -> None:
    """wait() tells and never raises: it waits for as long as the credential is refused."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        refuse(lab, UNAUTHORISED)
        with move_on_after(300) as scope:
            await task.wait()
        assert scope.cancelled_caught
        refuse(lab, None)
        lab.fake.complete(task.id)
        assert (await task.wait()).outcome is Outcome.COMPLETED


@virtual
async def test_what_was_said_before_need_not_be_so_now(told: Told) -> None:
    """Who asks after an outage is not told of it: the API is asked first."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        refuse(lab, UNAUTHORISED)
        for _ in range(3):
            with pytest.raises(AuthenticationError):
                await task.result()
        refuse(lab, None)
        with move_on_after(1) as scope:
            await task.result()
        assert scope.cancelled_caught
        lab.fake.complete(task.id)
        assert (await task.result()).outcome is Outcome.COMPLETED
    assert told.lines == [401, "accepted"]


@virtual
async def test_a_list_that_is_forbidden_is_no_reason(told: Told) -> None:
    """Where the credential may not list, but may read tasks, a result comes all the same."""
    lab = Lab()
    async with lab.open() as supervisor:
        refuse(lab, FORBIDDEN, "list")
        task = await supervisor.start("m")
        with move_on_after(30) as scope:
            await task.result()
        assert scope.cancelled_caught
        lab.fake.complete(task.id)
        assert (await task.result()).outcome is Outcome.COMPLETED
    assert told.lines == [403]


@virtual
async def test_a_task_that_may_not_be_read(told: Told) -> None:
    """A 403 about one task is told to who waits for that, and to nobody else."""
    lab = Lab()
    async with lab.open() as supervisor:
        mine, other = await supervisor.start("mine"), await supervisor.start("other")
        lab.fake.always("get", lambda call: FORBIDDEN if call.task_id == other.id else None)
        lab.fake.complete(other.id)
        with pytest.raises(PermissionDenied):
            await other.result()
        with move_on_after(60) as scope:
            await mine.result()
        assert scope.cancelled_caught
        assert told.lines == [403]
        lab.fake.always("get", None)
        assert (await other.result()).outcome is Outcome.COMPLETED
        assert told.lines == [403, "accepted"]


@virtual
async def test_trouble_of_another_kind_is_waited_out() -> None:
    """A server that fails says nothing of the credential."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        refuse(lab, UNAVAILABLE)
        with move_on_after(100) as scope:
            await task.result()
        assert scope.cancelled_caught
        refuse(lab, None)
        lab.fake.complete(task.id)
        assert (await task.result()).outcome is Outcome.COMPLETED


# --- a callable -----------------------------------------------------------------------------


class Rotating:
    """Gives the credential that is valid now."""

    def __init__(self) -> None:
        self.now = OLD
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        return self.now


@pytest.fixture
def one_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all credentials that the emulator takes be of one project."""
    check = bodies.credential

    def credential(headers: Any, accepted: Any) -> str:
        check(headers, accepted)
        return "project"

    monkeypatch.setattr(bodies, "credential", credential)


async def test_a_rotated_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_project: None
) -> None:
    """A task outlives the credential that it was made with, and rows of before and after agree."""
    monkeypatch.setattr("sigmic_guard.sigmic.keyring.ASK_INTERVAL", 0.0)
    source, accepted = Rotating(), {OLD, NEW}
    ledger = SqliteLedger(str(tmp_path / "ledger.db"))
    async with (
        Emulator(script=Script(hold=True), api_key=accepted) as emulator,
        Supervisor(api_key=source, base_url=emulator.url, ledger=ledger) as supervisor,
    ):
        before = await supervisor.start("before")
        accepted.remove(OLD)
        source.now = NEW
        await supervisor.start("after")
        rows = await ledger.unfinished()
        assert len(rows) == 2
        assert len({row.credential_fingerprint for row in rows}) == 1
        assert (await before.cancel()).result == "acknowledged"
    assert source.asked == 2
    assert emulator.live == 0


async def test_no_first_credential() -> None:
    """Without a first credential the supervisor is not entered."""
    with pytest.raises(ConfigurationError, match="raised KeyError"):
        async with Supervisor(api_key={}.popitem, ledger="memory:"):  # type: ignore[arg-type]
            raise AssertionError


def test_an_account_goes_with_a_key() -> None:
    """Who brings a client brings its fingerprint."""
    with pytest.raises(ConfigurationError, match="account"):
        Supervisor(client=Lab().fake, account="prod")


@pytest.mark.parametrize("account", ["prod", None])
async def test_rows_of_an_account_outlive_its_key(account: str | None, one_project: None) -> None:
    """A row that was made with one key is reaped with another one of the same account only."""
    store = MemoryStore()

    def make(key: str, url: str) -> Supervisor:
        return Supervisor(
            api_key=key,
            base_url=url,
            ledger=MemoryLedger(store),
            account=account,
            registry=CollectorRegistry(),
        )

    async with Emulator(script=Script(hold=True)) as emulator, make(OLD, emulator.url) as dead:
        task = await dead.start("m")
        store.owners.clear()
        async with make(NEW, emulator.url) as heir:
            report = await heir.reap()
        found = [row.id for row in (report.reaped if account else report.left)]
        assert found == [task.id]
        assert emulator.live == (0 if account else 1)
