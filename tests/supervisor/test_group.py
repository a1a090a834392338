"""``supervisor.group()``: several tasks that end together; and ``draining`` and ``on_drain``."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from sigmic_guard import (
    CancelReason,
    ConfigurationError,
    Outcome,
    RemoteTaskGroup,
    Supervisor,
    TaskCancelled,
    TaskNotFound,
)
from sigmic_guard.supervisor.face.members import MOST_OVER, Members
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def stand_in(group: RemoteTaskGroup, reasons: list[CancelReason | None]) -> None:
    """Stand in the body of a block until it is cancelled."""
    try:
        async with group.task("scoped"):
            await anyio.sleep_forever()
    except TaskCancelled as error:
        reasons.append(error.reason)


async def generate(group: RemoteTaskGroup) -> AsyncGenerator[int]:
    """Hold a block across a ``yield``."""
    async with group.task("generated"):
        yield 1
        yield 2


def flush(supervisor: Supervisor) -> None:
    """Carry out what finalizers have left."""
    assert supervisor._core is not None
    supervisor._core.ground.inbox.flush()


async def test_leaving_it_ends_what_it_owns_and_nothing_else() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        other = await supervisor.start("not of the group")
        async with supervisor.group() as group:
            await group.start("background")
            await group.start("background")
            assert group.live == 2
        assert lab.fake.live == {other.id}
        assert group.live == 0
        assert lab.finished == {("cancelled", "scope"): 2}


async def test_a_body_in_another_task_is_cancelled_and_told() -> None:
    lab = Lab()
    reasons: list[CancelReason | None] = []
    async with lab.open() as supervisor, anyio.create_task_group() as tasks:
        async with supervisor.group() as group:
            tasks.start_soon(stand_in, group, reasons)
            await lab.fake.until(lambda: len(lab.fake.live) == 1)
        assert not lab.fake.live
    assert reasons == [CancelReason.SCOPE]


async def test_it_takes_no_task_once_it_has_ended() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.group() as group:
            pass
        with pytest.raises(ConfigurationError, match="the group has ended"):
            await group.run("too late")
        with pytest.raises(ConfigurationError, match="the group has ended"):
            await group.start("too late")
        with pytest.raises(ConfigurationError, match="the group has ended"):
            async with group.task("too late"):
                pass
    assert not lab.fake.created


async def test_what_has_ended_by_itself_is_left_alone() -> None:
    lab = Lab(duration=1)
    async with lab.open() as supervisor, supervisor.group() as group:
        result = await group.run("a question")
        assert result.outcome is Outcome.COMPLETED
        assert group.live == 0
    assert lab.deletes() == 0


async def test_a_generator_that_was_left_behind_keeps_no_task() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        group = supervisor.group()
        generator = generate(group)
        assert await anext(generator) == 1
        assert not group.close()
        await lab.fake.until(lambda: not lab.fake.live)
        await anyio.lowlevel.checkpoint()  # nothing was cancelled here
        await generator.aclose()


async def test_a_cancellation_that_came_past_its_generator_is_recognised() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        group = supervisor.group()
        generator = generate(group)
        await anext(generator)
        group.end()
        ours = False
        try:
            await anyio.sleep_forever()  # as a response stands in send()
        except anyio.get_cancelled_exc_class() as error:
            ours = group.close(error)
        assert ours
        await anyio.lowlevel.checkpoint()  # it is over
        await generator.aclose()
        await lab.fake.until(lambda: not lab.fake.live)


async def test_a_foreign_cancellation_is_not_taken_for_ours() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        with anyio.CancelScope() as scope:
            group = supervisor.group()
            generator = generate(group)
            await anext(generator)
            scope.cancel()
            ours = True
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as error:
                ours = group.close(error)
                raise
        assert scope.cancelled_caught
        assert not ours
        await generator.aclose()


async def test_without_the_records_the_task_of_a_lost_generator_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: a group that only knows scopes ends nothing here."""
    monkeypatch.setattr(Members, "add", lambda self, task: None)
    lab = Lab()
    async with lab.open() as supervisor:
        group = supervisor.group()
        generator = generate(group)
        await anext(generator)
        group.close()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert lab.fake.live
        await generator.aclose()


async def test_a_create_under_way_is_withdrawn() -> None:
    lab = Lab()
    reasons: list[CancelReason | None] = []
    gate = lab.fake.gate("create")
    async with lab.open() as supervisor, anyio.create_task_group() as tasks:
        group = supervisor.group()
        tasks.start_soon(stand_in, group, reasons)
        await gate.entered.wait()
        group.end()
        gate.open()
    assert reasons == [CancelReason.SCOPE]


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_it_can_end_later() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        group = supervisor.group()
        await group.start("background")
        group.end(after=60)
        await anyio.sleep(59)
        assert lab.fake.live
        await anyio.sleep(2)
        assert not lab.fake.live


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_what_was_released_is_the_supervisors() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        group = supervisor.group()
        await group.start("background")
        group.end(after=60)
        await anyio.sleep(1)
        group.release()
        await anyio.sleep(100)
        assert len(lab.fake.live) == 1


async def test_a_group_of_many_short_tasks_stays_small() -> None:
    lab = Lab(duration=0)
    async with lab.open() as supervisor, supervisor.group() as group:
        for _ in range(5 * MOST_OVER):
            await group.run("m")
        assert len(group._members._tasks) <= MOST_OVER


async def test_an_exception_goes_on_and_the_tasks_are_ended() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ZeroDivisionError):
            async with supervisor.group() as group:
                await group.start("background")
                raise ZeroDivisionError
        assert not lab.fake.live


async def test_a_group_that_nobody_holds_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.group().start("background")
        await lab.fake.until(lambda: not lab.fake.live)
        assert task.reason is CancelReason.SCOPE
    assert lab.finished == {("cancelled", "scope"): 1}
    assert caplog.text.count("task.abandoned") == 1


async def test_so_has_one_that_only_the_collector_finds() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        gc.disable()  # it is to come when it is called, and not before
        try:
            cycle: list[object] = [supervisor.group()]
            cycle.append(cycle)
            await cast("RemoteTaskGroup", cycle[0]).start("background")
            del cycle
            flush(supervisor)
            assert lab.fake.live
            gc.collect()
        finally:
            gc.enable()
        await lab.fake.until(lambda: not lab.fake.live)


async def test_a_block_s_task_that_was_left_to_such_a_group_ends_too() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        group = supervisor.group()
        async with supervisor.task("adopted") as task:
            await group.adopt(task)
        assert lab.fake.live
        del group
        await lab.fake.until(lambda: not lab.fake.live)


async def test_a_task_with_another_owner_outlives_such_a_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lab = Lab()
    async with (
        lab.open() as supervisor,
        supervisor.group() as owner,
        supervisor.task("in a block") as task,
    ):
        group = supervisor.group()
        await group.adopt(task)
        shared = await group.start("shared")
        await owner.adopt(shared)
        del group
        flush(supervisor)
        assert len(lab.fake.live) == 2
    assert "task.abandoned" not in caplog.text


async def test_a_group_that_ended_or_let_go_leaves_nothing_to_its_collection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.group() as group:
            await group.start("ended")
        other = supervisor.group()
        await other.start("released")
        other.release()
        done = supervisor.group()
        del group, other, done
        gc.collect()
        flush(supervisor)
        assert len(lab.fake.live) == 1
    assert "task.abandoned" not in caplog.text
    assert lab.finished == {("cancelled", "scope"): 1, ("cancelled", "shutdown"): 1}


# --- tasks that exist already ---------------------------------------------------------------------


async def test_an_adopted_task_ends_with_the_group() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("in the background")
        async with supervisor.group() as group:
            assert await group.adopt(task) is task
            assert await group.adopt(task) is task
            assert group.live == 1
        assert not lab.fake.live
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_a_completed_one_is_adopted_by_its_id_and_asked_again() -> None:
    lab = Lab(duration=1)
    async with lab.open() as supervisor:
        first = await supervisor.run("a question")
        assert first.id is not None
        async with supervisor.group() as group:
            task = await group.adopt(first.id, timeout=60)
            await task.send("and then?")
            assert (await task.wait()).outcome is Outcome.COMPLETED
            assert await group.adopt(first.id) is not task
        assert not supervisor.tasks


async def test_the_last_owner_to_leave_ends_it() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        background = await supervisor.start("in the background")
        one, other = supervisor.group(), supervisor.group()
        await one.adopt(background)
        started = await one.start("the first's")
        for task in background, started:
            await other.adopt(task)
        one.close()
        one.close()
        assert lab.fake.live == {background.id, started.id}
        other.close()
        await lab.fake.until(lambda: not lab.fake.live)
    assert lab.finished == {("cancelled", "scope"): 2}


@pytest.mark.parametrize("ending", ["normal", "error", "cancelled", "group"])
async def test_a_block_leaves_its_task_to_the_group_that_adopted_it(ending: str) -> None:
    lab = Lab()
    async with lab.open() as supervisor, supervisor.group() as other:
        first = supervisor.group()
        with anyio.CancelScope() as scope, suppress(ZeroDivisionError, TaskCancelled):
            async with first.task("scoped") as task:
                await other.adopt(task)
                if ending == "error":
                    raise ZeroDivisionError
                if ending == "cancelled":
                    scope.cancel()
                elif ending == "group":
                    first.end()
                    await anyio.sleep_forever()
                await anyio.lowlevel.checkpoint()
        first.close()
        assert lab.fake.live == {task.id}
        assert task.reason is None
        assert lab.deletes() == 0
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_a_block_ends_what_a_group_has_let_go() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("scoped") as task:
            async with supervisor.group() as group:
                await group.adopt(task)
            assert task.reason is None
            released = supervisor.group()
            await released.adopt(task)
            released.release()
            released.release()
        assert not lab.fake.live


async def test_a_group_that_nobody_holds_owns_nothing() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("scoped") as task:
            await supervisor.group().adopt(task)
            gc.collect()
        assert not lab.fake.live


async def test_a_cancel_ends_it_for_all_its_owners() -> None:
    lab = Lab()
    reasons: list[CancelReason | None] = []
    async with (
        lab.open() as supervisor,
        supervisor.group() as first,
        supervisor.group() as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stand_in, first, reasons)
        await lab.fake.until(lambda: len(supervisor.tasks) == 1)
        [task] = supervisor.tasks.values()
        await other.adopt(task)
        await task.cancel()
    assert reasons == [CancelReason.USER]


async def test_a_lost_generator_leaves_its_task_to_the_group_that_adopted_it() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        first, other = supervisor.group(), supervisor.group()
        generator = generate(first)
        await anext(generator)
        [task] = supervisor.tasks.values()
        await other.adopt(task)
        await generator.aclose()
        assert not first.close()
        assert task.reason is None
        other.close()
        await task.wait()
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_what_cannot_be_adopted_is_refused() -> None:
    lab, another = Lab(), Lab()
    async with lab.open() as supervisor, another.open() as stranger:
        task, foreign = await supervisor.start("ours"), await stranger.start("another's")
        async with supervisor.group() as group:
            with pytest.raises(ConfigurationError, match="another supervisor"):
                await group.adopt(foreign)
            with pytest.raises(ConfigurationError, match="must be a RemoteTask"):
                await group.adopt(1)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="give none"):
                await group.adopt(task, timeout=1)
            with pytest.raises(ConfigurationError, match="supervised already"):
                await group.adopt(task.id)
            with pytest.raises(TaskNotFound):
                await group.adopt("unknown")
        for late in task, task.id:
            with pytest.raises(ConfigurationError, match="the group has ended"):
                await group.adopt(late)
        assert lab.fake.live == {task.id}


async def test_a_group_that_ends_while_it_adopts_ends_the_task_once_it_has_it() -> None:
    lab = Lab(duration=1)
    async with lab.open() as supervisor:
        first = await supervisor.run("a question")
        assert first.id is not None
        group = supervisor.group()
        gate = lab.fake.gate("get")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.adopt, first.id)
            await lab.fake.until(lambda: lab.fake.in_flight("get"))
            group.end()
            gate.open()
        assert not supervisor.tasks


async def test_the_drain_keeps_its_reason_and_policies() -> None:
    lab = Lab()
    async with lab.open(left=1) as supervisor, supervisor.group() as group:
        await group.start("to be ended")
        await group.start("to run on", on_shutdown="detach")
        supervisor.request_shutdown()
    assert lab.finished == {("cancelled", "shutdown"): 1, ("detached", "none"): 1}


# --- draining, on_drain -----------------------------------------------------------------------


async def test_who_asked_is_told_once_that_the_drain_begins() -> None:
    lab, told = Lab(), list[str]()
    async with lab.open() as supervisor:
        supervisor.on_drain(lambda: told.append(f"first, {len(lab.fake.live)} live"))
        forget = supervisor.on_drain(lambda: told.append("forgotten"))
        supervisor.on_drain(lambda: told.append("second"))
        forget()
        forget()
        await supervisor.start("m")
        assert not supervisor.draining
        supervisor.request_shutdown()
        assert supervisor.draining
        await supervisor.shutdown()
    assert told == ["first, 1 live", "second"]
    assert supervisor.draining


async def test_who_asks_late_is_told_soon() -> None:
    lab, told = Lab(), anyio.Event()
    async with lab.open() as supervisor:
        gate = lab.fake.gate("delete")
        await supervisor.start("m")
        supervisor.request_shutdown()
        await gate.entered.wait()
        supervisor.on_drain(told.set)
        await told.wait()
        gate.open()


async def test_a_callback_that_raises_keeps_nobody_from_anything() -> None:
    lab, told = Lab(), list[str]()
    async with lab.open() as supervisor:
        supervisor.on_drain(lambda: told.append("before"))
        supervisor.on_drain(lambda: 1 / 0)
        supervisor.on_drain(lambda: told.append("after"))
        await supervisor.start("m")
    assert told == ["before", "after"]


async def test_before_it_is_entered_nothing_can_be_had() -> None:
    supervisor: Supervisor = Lab().make()
    assert not supervisor.draining
    with pytest.raises(ConfigurationError):
        supervisor.on_drain(list)
    with pytest.raises(ConfigurationError):
        supervisor.group()
