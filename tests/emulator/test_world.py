"""The emulator's belief about tasks, without a network and with a clock of the test's own."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.emulator import Script
from sigmic_guard.emulator.sse import Feed
from sigmic_guard.emulator.world import MOVES, STATUSES, TERMINAL, Draft, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.emulator import Task

BEGIN = 1_800_000_000.1
PATHS: dict[str, Callable[[World, Task], object]] = {
    "pending": lambda _world, _task: None,
    "running": lambda world, task: world.settle(task, BEGIN + 1),
    "awaiting_approval": lambda world, task: world.settle(task, BEGIN + 2),
    "completed": lambda world, task: world.complete(task, None, BEGIN + 2),
    "failed": lambda world, task: world.fail(task, "no", BEGIN + 2),
    "cancelled": lambda world, task: world.cancel(task, BEGIN + 2),
}
SCRIPT = Script(pending=1, duration=2, approval="deploy")


def create(world: World, script: Script = SCRIPT, task_id: str = "t") -> Task:
    return world.create(task_id, "owner", Draft("m"), script, BEGIN)


OPERATIONS: dict[str, Callable[[World, Task, float], object]] = {
    "cancel": World.cancel,
    "complete": lambda world, task, now: world.complete(task, "x", now),
    "fail": lambda world, task, now: world.fail(task, "x", now),
    "send": lambda world, task, now: world.send(task, "x", now),
    "ask": lambda world, task, now: world.ask(task, "call-9", "deploy", now),
    "decide": lambda world, task, now: world.decide(task, approved=True, now=now),
    "settle": World.settle,
}


def expected(operation: str, status: str) -> str | None:
    """The status afterwards; None where the operation is refused."""
    live = status not in TERMINAL
    match operation:
        case "cancel":
            return "cancelled" if live else status
        case "complete":
            return "completed" if live else status
        case "fail":
            return "failed" if live else status
        case "send":
            return {"completed": "running", "failed": "running", "cancelled": None}.get(
                status, status
            )
        case "ask":
            return "awaiting_approval" if status == "running" else None
        case "decide":
            return "running" if status == "awaiting_approval" else None
        case _:
            return status


@pytest.mark.parametrize("status,operation", list(itertools.product(STATUSES, OPERATIONS)))
def test_every_operation_in_every_status(status: str, operation: str) -> None:
    """Each operation leads where it should or is refused, and the counts always add up."""
    world = World()
    task = create(world)
    PATHS[status](world, task)
    assert task.status == status
    # Before the next change by itself, so that it is the operation that is seen.
    now = BEGIN + {"pending": 0.5, "running": 1.5}.get(status, 2.5)
    after = expected(operation, status)
    if after is None:
        with pytest.raises(ValueError, match="task t"):
            OPERATIONS[operation](world, task, now)
    else:
        OPERATIONS[operation](world, task, now)
    assert task.status == (after or status)
    assert world.counts[task.status] == sum(world.counts.values()) == 1
    assert ("t" in world.live) == task.live == (task.completed_at is None)
    assert (task.asked is not None) == (task.status == "awaiting_approval")


def test_cancelled_is_final() -> None:
    """Nothing leads out of cancelled, and only a follow-up out of the other ends."""
    assert MOVES["cancelled"] == frozenset()
    assert all(MOVES[status] <= {"running"} for status in TERMINAL)


def test_time_goes_out_as_a_value() -> None:
    """The world says when to come back, changes exactly then, and never again after the end."""
    world = World()
    task = create(world, Script(pending=1, duration=2))
    seen: list[tuple[str, str, object]] = []
    while (due := world.next_due()) < math.inf:
        world.advance(math.nextafter(due, 0))
        before = task.status
        world.advance(due)
        seen.append((before, task.status, due - BEGIN))
    assert seen == [
        ("pending", "running", pytest.approx(1)),
        ("running", "completed", pytest.approx(3)),
    ]
    assert task.said(BEGIN + 9) == "Hello world"


def test_what_was_said_follows_from_the_clock() -> None:
    """The text grows with time, and stops growing when the task is cancelled."""
    world = World()
    task = create(world, Script(duration=4))
    assert [task.said(BEGIN + second) for second in (0, 1.5, 3.5)] == ["", "Hello", "Hello world"]
    world.cancel(task, BEGIN + 1.5)
    assert task.said(BEGIN + 99) == "Hello"


def test_advancing_in_slices() -> None:
    """A bounded advance changes so many tasks, in the order of their times, and no more."""
    world = World()
    for number in range(10):
        create(world, Script(pending=10 - number, hold=True), f"t{number}")
    world.advance(BEGIN + 99, limit=3)
    assert [task.id for task in world.tasks.values() if task.status == "running"] == [
        "t7",
        "t8",
        "t9",
    ]
    recent, total = world.page("owner", 3, 0)
    assert ([task.id for task in recent], total) == (["t7", "t8", "t9"], 10)


def test_a_stream_tells_its_turn_to_the_end() -> None:
    """What the turn said last is told although the next one has begun, and nothing of that."""
    world = World()
    task = create(world, Script(duration=4, answer="Bye"))
    world.settle(task, BEGIN)
    feed = Feed(task, task)
    assert [step.event for step in feed.opening(BEGIN)][-2:] == ["history_done", "status"]
    assert feed.next_at == BEGIN + 1
    world.send(task, "and then?", BEGIN + 9, Script(duration=1, chunks=("Well",)))
    assert feed.over
    told = [step.data for step in feed.fresh(BEGIN + 99)]
    assert told[-1] == {"finalResponse": "Bye"}
    assert [data.get("text") for data in told[:-1]] == ["Hello", " ", "world"]
    assert (feed.fresh(BEGIN + 99), feed.next_at) == ([], math.inf)
    assert task.said(BEGIN + 99) == "Well"


@pytest.mark.parametrize("part", [0.0, 0.5, 0.75])
def test_when_a_task_asks(part: float) -> None:
    """It asks when that part of its duration has passed, and the rest comes after the decision."""
    world = World()
    task = create(world, Script(duration=8, approval="deploy", approval_at=part))
    world.advance(BEGIN + 8 * part)
    assert task.status == "awaiting_approval"
    world.decide(task, approved=True, now=BEGIN + 100)
    assert world.next_due() - BEGIN == pytest.approx(100 + 8 * (1 - part))
