"""The windows in which a task may outlive its code: each is as wide as stated, and no wider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard import CancelResult, ConnectionFailed, State, Supervisor, TaskPolicy
from sigmic_guard.emulator import Emulator, Fault, Script
from tests.faults.witness import KEY, secret_options
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.witness import Witness

pytestmark = pytest.mark.usefixtures("transport")

HOLD = Script(duration=0.0, hold=True)


def guard(emulator: Emulator, witness: Witness, **options: Any) -> Supervisor:
    options = {
        "create_timeout": 0.3,
        "grace": 1.0,
        "policy": TaskPolicy(cancel_wait=0.2),
        **options,
    }
    return Supervisor(api_key=KEY, base_url=emulator.url, registry=witness.registry, **options)


@pytest.mark.parametrize("way", ["files", "no marker"])
async def test_a_create_without_a_marker(
    way: str, tmp_path: Path, in_a_hurry: None, witness: Witness
) -> None:
    """Where a create cannot carry its mark and its answer is lost, the task is named, not found."""
    (tmp_path / "data.csv").write_text("a,b\n")
    options: dict[str, Any] = {"files": [tmp_path / "data.csv"]} if way == "files" else {}
    async with Emulator(script=HOLD) as emulator:
        supervisor = guard(emulator, witness, marker=way == "files")
        async with supervisor:
            emulator.fault("create", Fault("lost_answer", times=1))
            with pytest.raises(ConnectionFailed) as caught:
                await supervisor.start("m", **options)
            assert caught.value.sent
            witness.catch(caught.value)
        report = await supervisor.shutdown()
        (row,) = report.unconfirmed
        assert (row.id, row.state) == (None, State.UNKNOWN)
        assert emulator.state()["created"] == emulator.live == 1
        assert "task.unknown" in witness.logged
        assert add_up(witness.registry).live == 1


async def test_the_same_create_with_a_marker(in_a_hurry: None, witness: Witness) -> None:
    """Negative control: with its mark the list finds it, and nothing is left."""
    async with Emulator(script=HOLD) as emulator:
        supervisor = guard(emulator, witness)
        async with supervisor:
            emulator.fault("create", Fault("lost_answer", times=1))
            await supervisor.start("m", **secret_options())
        assert (await supervisor.shutdown()).clean
        assert emulator.state()["created"] == 1
        assert emulator.live == 0


async def test_a_refused_connection_leaves_nothing(witness: Witness) -> None:
    """A create that never left is a clean failure: there is nothing to look for."""
    async with Emulator() as emulator:
        supervisor = guard(emulator, witness)
    async with supervisor:
        with pytest.raises(ConnectionFailed) as caught:
            await supervisor.start("m", **secret_options())
        assert not caught.value.sent
        witness.catch(caught.value)
    assert (await supervisor.shutdown()).clean


async def test_a_lie_that_is_taken_for_the_truth(in_a_hurry: None, witness: Witness) -> None:
    """confirm="accepted" takes the server's word: a DELETE that lies leaves its task running."""
    async with Emulator(script=HOLD) as emulator:
        supervisor = guard(emulator, witness)
        async with supervisor:
            emulator.fault("delete", Fault("lie"))
            task = await supervisor.start("m")
            cancellation = await task.cancel()
            assert cancellation.result is CancelResult.ACKNOWLEDGED
        assert emulator.live == 1
        assert (await supervisor.shutdown()).clean


@pytest.mark.parametrize("times", [1, 2])
async def test_a_lie_that_is_looked_into(
    times: int, in_a_hurry: None, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """confirm="terminal" looks, finds the task running, and asks again until it is not."""
    monkeypatch.setattr("sigmic_guard.supervisor.work.canceller.MAX_LOOKS", 1)
    async with Emulator(script=HOLD) as emulator:
        supervisor = guard(emulator, witness, grace=20)
        async with supervisor:
            emulator.fault("delete", Fault("lie", times=times))
            task = await supervisor.start("m", confirm="terminal", cancel_wait=20)
            cancellation = await task.cancel()
            assert cancellation.result is CancelResult.CONFIRMED
        assert emulator.live == 0
        assert emulator.state()["deletes_received"] == times + 1
        assert (await supervisor.shutdown()).clean


async def test_a_lie_that_never_ends(in_a_hurry: None, witness: Witness) -> None:
    """confirm="terminal" never calls a task cancelled that runs on: it is named in the report."""
    async with Emulator(script=HOLD) as emulator:
        supervisor = guard(emulator, witness)
        async with supervisor:
            emulator.fault("delete", Fault("lie"))
            task = await supervisor.start("m", confirm="terminal")
            cancellation = await task.cancel()
            assert cancellation.result is CancelResult.UNCONFIRMED
        report = await supervisor.shutdown()
        assert [row.id for row in report.unconfirmed] == [task.id]
        assert emulator.live == 1
        assert "task.unconfirmed" in witness.logged
