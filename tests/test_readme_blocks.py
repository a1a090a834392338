"""Blocks end as the README's table says, row by row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import anyio
import prometheus_client
import pytest

from sigmic_guard import SigmicGuardError, Supervisor
from sigmic_guard.testing import FakeSigmic
from tests.backends import TRIO_VIRTUAL
from tests.readme import table

if TYPE_CHECKING:
    from sigmic_guard.lifecycle.policy import OnExit


async def finished(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("finish") as task:
        await task.result()


async def still_running(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("go on"):
        pass


async def body_raises(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("go on"):
        raise LookupError


async def outer_scope(supervisor: Supervisor, fake: FakeSigmic) -> None:
    with anyio.CancelScope() as outer:
        async with supervisor.task("go on"):
            outer.cancel()
            await anyio.sleep_forever()
    assert outer.cancelled_caught


async def deadline(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("go on", timeout=60):
        await anyio.sleep_forever()


async def cancelled_from_elsewhere(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("go on") as task, anyio.create_task_group() as group:
        group.start_soon(supervisor.tasks[task.id].cancel)
        await anyio.sleep_forever()


async def shutdown(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("go on"):
        supervisor.request_shutdown()
        await anyio.sleep_forever()


async def cancelled_remotely(supervisor: Supervisor, fake: FakeSigmic) -> None:
    async with supervisor.task("go on") as task:
        fake.cancel(task.id)
        await anyio.sleep_forever()


SCENARIOS: Final = {
    "body finished, task finished": finished,
    "body finished, task still running": still_running,
    "body raised": body_raises,
    "outer scope or native `Task.cancel()`": outer_scope,
    "its own deadline": deadline,
    "`task.cancel()` from elsewhere": cancelled_from_elsewhere,
    "shutdown": shutdown,
    "cancelled by someone else at the API": cancelled_remotely,
}
BLOCKS: Final = table(
    "How blocks end", "| what happened | the `async with supervisor.task()` block |"
)


def test_each_row_of_the_table_of_blocks_is_done() -> None:
    """Nothing is claimed there that the next test does not do."""
    assert [happened for happened, _ in BLOCKS] == list(SCENARIOS)


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize("row", range(len(BLOCKS)))
async def test_a_block_ends_as_the_table_says(row: int) -> None:
    """The DELETE, the reason and what is raised are those of the row."""
    happened, claim = BLOCKS[row]
    fake, registry = FakeSigmic(), prometheus_client.CollectorRegistry()
    fake.script("finish", duration=1)
    raised = "nothing"
    async with Supervisor(client=fake, ledger="memory:", registry=registry) as supervisor:
        try:
            await SCENARIOS[happened](supervisor, fake)
        except (SigmicGuardError, LookupError) as error:
            raised = type(error).__name__
        assert not fake.live
    assert fake.count("delete") == ("DELETE" in claim)
    if promised := re.search(r"reason `(\w+)`", claim):
        assert reasons(registry) == [promised[1]]
    if promised := re.search(r"raises `(\w+)`", claim):
        assert raised == promised[1]
    else:
        assert raised == ("LookupError" if "exception goes on unchanged" in claim else "nothing")


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize("on_exit, left", [("wait", 0), ("detach", 1)])
async def test_on_exit_waits_or_lets_go(on_exit: OnExit, left: int) -> None:
    """Neither sends a DELETE."""
    fake, registry = FakeSigmic(duration=60), prometheus_client.CollectorRegistry()
    async with Supervisor(client=fake, ledger="memory:", registry=registry) as supervisor:
        async with supervisor.task("go on", on_exit=on_exit):
            pass
        assert len(fake.live) == left
    assert fake.count("delete") == 0


def reasons(registry: prometheus_client.CollectorRegistry) -> list[str]:
    """What the tasks were cancelled for, as operators see it."""
    return [
        sample.labels["reason"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "sigmic_guard_tasks_finished_total" and sample.value
    ]
