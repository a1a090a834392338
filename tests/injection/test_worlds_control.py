"""The sweep finds who believes what the worlds tell: each world has its negative control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from sigmic_guard.errors import TaskNotFound, ValidationError
from sigmic_guard.supervisor.face import intake
from sigmic_guard.supervisor.ground import clock
from sigmic_guard.supervisor.ground.readings import Readings
from tests.backends import TRIO_VIRTUAL
from tests.injection import uses, worlds
from tests.injection.injections import Injection
from tests.injection.sweep import Case, sweep
from tests.injection.worlds import open_world

if TYPE_CHECKING:
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry
    from tests.injection.uses import Use

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)


async def failures(world_name: str, use: Use) -> str:
    async with open_world(world_name) as world:
        swept = await sweep(world, Case(use, Injection.SCOPE, program=uses.with_the_supervisor))
    return "\n".join(swept.failures)


async def test_who_believes_a_404_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reads lag a task runs on that its DELETE was answered 404 for."""
    monkeypatch.setattr(Readings, "may_lag", lambda *_: False)
    assert ": 1 live tasks" in await failures("lagging", uses.PLAIN)


async def test_who_believes_what_another_task_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task had completed, and so this one seems to have."""
    observe = Readings.observe

    def believe(readings: Readings, task: Entry, info: TaskInfo, turn: int) -> bool:
        mine = replace(info, id=task.record.remote_id or "", env={}, message=None)
        return observe(readings, task, mine, turn)

    monkeypatch.setattr(Readings, "observe", believe)
    assert ": 1 live tasks" in await failures("swapped", uses.EVENTS)


async def test_who_believes_a_page_to_a_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that says 404 in its own words is no word of the API's."""
    gone = TaskNotFound("a page", code="NOT_FOUND", status=404)
    monkeypatch.setattr(worlds, "ProtocolError", lambda *_, **__: gone)
    monkeypatch.setattr(Readings, "may_lag", lambda *_: False)
    assert ": 1 live tasks" in await failures("behind a gateway", uses.PLAIN)


async def test_who_believes_a_page_to_a_create(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that says 409 has refused nothing."""
    refused = ValidationError("a page", code="VALIDATION_ERROR", status=409)
    monkeypatch.setattr(worlds, "ProtocolError", lambda *_, **__: refused)
    assert ": 1 live tasks" in await failures("a gateway answers for it", uses.PLAIN)


async def test_who_goes_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out that is what is left between two readings is over too soon."""
    earlier = intake._earlier

    def by_the_wall(*order: Any) -> float | None:
        wall: Any = vars(clock)["time"]
        began, deadline = wall.time(), earlier(*order)
        return None if deadline is None else deadline - (wall.time() - began)

    monkeypatch.setattr(intake, "_earlier", by_the_wall)
    assert "with nothing in its way it raised TaskTimedOut" in await failures(
        "its clock steps", uses.TIMED
    )
