"""Every fault on every route, in real HTTP: a documented error or a retry that succeeds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from sigmic_guard import ConnectionFailed, SigmicClient, Supervisor, TaskPolicy
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.emulator.faults import KINDS, ROUTES
from sigmic_guard.supervisor.recovery.reconciler import Reconciler
from sigmic_guard.supervisor.work import creating
from sigmic_guard.supervisor.work.canceller import Canceller
from tests.faults.expected import (
    EFFECTIVE,
    MEETS,
    TOLD,
    WAITS,
    Case,
    cases,
    endings,
    left_running,
    named,
)
from tests.faults.shapes import SHAPES, Stage, create_background, delete_drain
from tests.faults.witness import KEY
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from pathlib import Path

    from sigmic_guard.sigmic import CreateRequest
    from tests.faults.witness import Witness

pytestmark = pytest.mark.usefixtures("transport")

QUICK = Script(duration=0.02)
#: Seconds that a request may take, and a create: longer than a loaded machine keeps that from its
#: ledger.
CREATE_TIMEOUT = 0.6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a case has its ledger."""
    return tmp_path / "ledger.db"


def is_slow(case: Case) -> bool:
    """Whether this one waits for something, and another one much like it does not."""
    slow = {"latency beyond patience", "black_hole", "black_hole_after", "drip", "silent"}
    if case.kind in slow:
        return True
    if case.shape in TOLD and not case.passes:  # it is sent once: that it passes shows so
        return True
    # A gateway's page is a gateway's page, whatever its status; what it hides matters to a create.
    if case.route != "create" and re.match("html 4(?!0[34])", case.kind):
        return True
    if case.route == "create":  # until it is proven that there is no task
        proof = case.kind not in EFFECTIVE and not case.kind.startswith("status 4")
        return proof or case.shape is not SHAPES["create"][0]
    if case.shape is SHAPES[case.route][0] or case.shape in TOLD:
        return case.route == "delete" and not case.passes
    return True


def params() -> list[object]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if is_slow(case) else [])
        for case in cases()
    ]


async def disagreements(case: Case, witness: Witness, path: Path) -> list[str]:
    """Play a case, and say in what the world and the table do not agree."""
    async with Emulator(script=QUICK, heartbeat=0.1, api_key=KEY) as emulator:
        supervisor = Supervisor(
            api_key=KEY,
            base_url=emulator.url,
            ledger=path,
            create_timeout=CREATE_TIMEOUT,
            grace=3.0 if case.route == "create" else 1.0,
            policy=TaskPolicy(cancel_wait=0.2),
            registry=witness.registry,
        )
        async with supervisor:
            stage = Stage(emulator, supervisor, witness, case.route, case.fault)
            ending = await stage.ending(case.shape, waits=WAITS in endings(case))
            witness.meet(supervisor, supervisor.tasks, supervisor.snapshot())
            await to_thread.run_sync(witness.read_ledger, path)
        report = await supervisor.shutdown()
        witness.meet(report, supervisor, *report.unconfirmed)
        await to_thread.run_sync(witness.read_ledger, path)
        number, duplicates = len(report.unconfirmed), emulator.state()["duplicates"]
        problems = {
            f"it ended in {ending}, not {endings(case)}": ending not in endings(case),
            f"{emulator.live} tasks run on": emulator.live != left_running(case, ending),
            f"{number} tasks are named": number not in named(case, ending),
            f"created twice: {duplicates}": duplicates,
            "the sums do not agree": add_up(witness.registry).live != number,
        }
    return [problem for problem, present in problems.items() if present]


@pytest.mark.parametrize("case", params())
async def test_a_fault(case: Case, in_a_hurry: None, witness: Witness, path: Path) -> None:
    """It ends as the table says, leaves running what the table says, and shows no secret."""
    assert await disagreements(case, witness, path) == [], witness.logged
    assert witness.rows


async def test_a_create_that_is_not_looked_for(
    in_a_hurry: None, witness: Witness, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without the search of the list, a lost answer is a lost task."""
    monkeypatch.setattr(Reconciler, "look_for", lambda *_: None)
    case = Case("create", create_background, "lost_answer", 1)
    assert await disagreements(case, witness, path) == [
        "it ended in ConnectionFailed, not {'ok'}",
        "1 tasks are named",
    ]


async def test_a_delete_that_is_not_repeated(
    in_a_hurry: None, witness: Witness, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without retries, one 503 leaves a task running."""
    monkeypatch.setattr(Canceller, "_again", lambda self, task, *_, **__: self.give_up(task))
    case = Case("delete", delete_drain, "status 503", 1)
    assert await disagreements(case, witness, path) == ["1 tasks run on", "1 tasks are named"]


async def test_a_create_that_is_repeated(
    in_a_hurry: None, witness: Witness, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a client that sends a POST again creates, and pays for, a second task."""
    once = SigmicClient.create

    async def twice(self: SigmicClient, request: CreateRequest, *, timeout: float) -> str:
        try:
            return await once(self, request, timeout=timeout)
        except ConnectionFailed:
            return await once(self, request, timeout=timeout)

    monkeypatch.setattr(SigmicClient, "create", twice)
    case = Case("create", create_background, "lost_answer", 1)
    assert "created twice: {'background': 2}" in await disagreements(case, witness, path)


async def test_a_page_that_is_believed(
    in_a_hurry: None, witness: Witness, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: who takes a gateway's 403 for the API's word denies a task that exists."""
    monkeypatch.setattr(creating, "refused_outright", lambda error: error.status == 403)
    case = Case("create", create_background, "html 403 with effect", 1)
    found = await disagreements(case, witness, path)
    assert "it ended in ProtocolError, not {'ok'}" in found


def test_no_fault_is_left_out() -> None:
    """The table knows every kind of fault that the emulator has, and every route."""
    assert {kind.split(" ")[0] for kind in MEETS} == KINDS
    assert set(SHAPES) == set(ROUTES)


def test_the_table_is_not_all_one() -> None:
    """Negative control: the table expects retries, errors, callers who wait, and leftovers."""
    found = {ending for case in cases() for ending in endings(case)}
    assert found >= {"ok", WAITS, "ConnectionFailed", "ProtocolError", "ServerError"}
    assert {left_running(case, "ok") for case in cases()} == {0, 1, 3}
