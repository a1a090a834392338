"""Blocks that are left behind, or left in another task than entered them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import types
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import create_task_group, fail_after, get_current_task, sleep, sleep_forever

from sigmic_guard import (
    CancelReason,
    ConfigurationError,
    SupervisorShutdown,
    TaskCancelled,
    TaskTimedOut,
)
from sigmic_guard.observe import DeleteAnswered
from sigmic_guard.supervisor.face.host import Host, HostedScope
from tests.backends import ASYNCIO, UVLOOP
from tests.supervisor.lab import Lab
from tests.supervisor.places import PLACES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from sigmic_guard import RemoteTask, Supervisor
    from sigmic_guard.observe import ObservedEvent

pytestmark = [
    pytest.mark.backends(ASYNCIO, UVLOOP),
    pytest.mark.may_leak("a scope that nobody left"),
]
LONG = 20


async def answers(supervisor: Supervisor, **options: Any) -> AsyncGenerator[RemoteTask]:
    """What a service hands to its framework: a generator with a block in it."""
    async with supervisor.task("m", **options) as task:
        while True:
            yield task
            await sleep(0.001)


async def gone(lab: Lab) -> None:
    """Wait until nothing runs any more, letting the collector find what there is."""
    with fail_after(LONG):
        while lab.fake.live:
            gc.collect()
            await sleep(0.01)


# --- left behind ----------------------------------------------------------------------------------


async def _hang_up(supervisor: Supervisor, seen: list[RemoteTask]) -> None:
    generator = answers(supervisor)  # which the traceback keeps
    async for task in generator:
        seen.append(task)
        raise ConnectionResetError("the client hung up")


async def _stall(supervisor: Supervisor, seen: list[RemoteTask]) -> None:
    generator = answers(supervisor)
    async for task in generator:
        seen.append(task)
        await sleep_forever()


async def _stall_in_a_group(supervisor: Supervisor, seen: list[RemoteTask]) -> None:
    async with create_task_group() as group:
        group.start_soon(_stall, supervisor, seen)
        await sleep_forever()


async def _return(supervisor: Supervisor, seen: list[RemoteTask]) -> None:
    async for task in answers(supervisor):
        seen.append(task)
        return


@pytest.mark.parametrize("handler", [_hang_up, _stall, _stall_in_a_group, _return])
async def test_a_generator_at_its_yield(
    handler: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A generator that nobody reads any more ends its task: reason scope, and a log line."""
    lab, seen = Lab(), list[Any]()
    async with lab.open() as supervisor:
        handlers = [asyncio.create_task(handler(supervisor, seen)) for _ in range(10)]
        with fail_after(LONG):
            await lab.fake.until(lambda: len(seen) == 10)
        for each in handlers:
            each.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        del handlers, each
        await gone(lab)
        assert {task.reason for task in seen} == {CancelReason.SCOPE}
        assert lab.deletes() == 10
    assert caplog.text.count("task.abandoned") == 10


async def test_a_generator_that_somebody_keeps() -> None:
    """A generator that is kept is not left behind: its task runs on until it is closed."""
    lab, seen = Lab(), list[Any]()
    async with lab.open() as supervisor:
        generator = answers(supervisor)

        async def take() -> None:
            seen.append(await anext(generator))
            raise ConnectionResetError("the client hung up")

        await asyncio.gather(asyncio.create_task(take()), return_exceptions=True)
        gc.collect()
        await sleep(0.01)
        assert seen[0].reason is None
        assert lab.deletes() == 0
        await asyncio.create_task(generator.aclose())
        await gone(lab)
        assert seen[0].reason is CancelReason.SCOPE


@pytest.mark.parametrize("place", PLACES)
async def test_a_block_that_is_collected(place: Any) -> None:
    """A block that was entered by hand and dropped ends its task, wherever the collector runs."""
    lab = Lab()
    async with lab.open() as supervisor:

        async def drop() -> RemoteTask:
            stack = AsyncExitStack()
            stack.itself = stack  # type: ignore[attr-defined]
            return await stack.enter_async_context(supervisor.task("m"))

        task = await asyncio.create_task(drop())
        gc.disable()
        try:
            place(gc.collect)
            with fail_after(LONG):
                assert (await task.wait()).reason is CancelReason.SCOPE
        finally:
            gc.enable()


@types.coroutine
def _drive(coroutine: Coroutine[Any, Any, None], until: Callable[[], bool]) -> Generator[Any]:
    """Run a coroutine as far as that, and close it where it waits."""
    while True:
        waited_for = coroutine.send(None)
        if until():
            break
        yield waited_for
    coroutine.close()


async def test_a_coroutine_that_is_closed() -> None:
    """A coroutine that is closed in its block ends its task, and is not kept from closing."""
    lab, begun = Lab(), list[bool]()
    async with lab.open() as supervisor:

        async def body() -> None:
            async with supervisor.task("m"):
                begun.append(True)
                await sleep_forever()

        with fail_after(LONG):
            await _drive(body(), lambda: bool(begun))
        await gone(lab)
        assert lab.deletes() == 1


async def test_closing_in_the_same_task(caplog: pytest.LogCaptureFixture) -> None:
    """A generator that its own reader closes ends its task, as it should, without a word."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with aclosing(answers(supervisor)) as generator:
            task = await anext(generator)
        await gone(lab)
        assert task.reason is CancelReason.SCOPE
        with anyio.move_on_after(0.01):  # the scopes of this task are in order
            await sleep_forever()
    assert "task.abandoned" not in caplog.text


async def test_a_scope_that_keeps_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: if the scope kept its host alive, nobody could find out."""
    lab, seen = Lab(), list[Any]()
    async with lab.open() as supervisor:
        monkeypatch.setattr(HostedScope, "let_go", lambda *_: None)
        each = asyncio.create_task(_hang_up(supervisor, seen))
        await asyncio.gather(each, return_exceptions=True)
        del each
        monkeypatch.undo()
        gc.collect()
        await sleep(0.01)
        gc.collect()
        await sleep(0.01)
        assert lab.fake.live


# --- in another task ------------------------------------------------------------------------------


async def _step(generator: AsyncGenerator[Any]) -> Any:
    """Take one step in a task of its own, as asyncio.wait_for() does before Python 3.12."""
    return await asyncio.create_task(generator.__anext__())


async def test_a_task_for_each_step() -> None:
    """A reader with a task for each step leaves nothing behind while it reads."""
    lab = Lab()
    async with lab.open() as supervisor:
        generator = answers(supervisor)
        task = await _step(generator)
        for _ in range(20):
            gc.collect()
            assert await _step(generator) is task
        assert task.reason is None
        await generator.aclose()
        await gone(lab)


async def _until_told(
    supervisor: Supervisor, tasks: list[RemoteTask], **options: Any
) -> AsyncGenerator[str]:
    async with supervisor.task("m", **options) as task:
        tasks.append(task)
        async for event in task.events():
            yield event.type


@pytest.mark.parametrize(
    "how, error",
    [
        ("deadline", TaskTimedOut),
        ("cancel", TaskCancelled),
        ("shutdown", SupervisorShutdown),
        ("remote", TaskCancelled),
        ("completes", ConfigurationError),
    ],
)
async def test_what_the_next_step_learns(how: str, error: type[Exception]) -> None:
    """With a task for each step the body still learns of a deadline, a cancel or a shutdown."""
    lab, tasks = Lab(), list[Any]()
    async with lab.open() as supervisor:
        generator = _until_told(supervisor, tasks, timeout=0.2 if how == "deadline" else None)
        await _step(generator)
        match how:
            case "cancel":
                tasks[0].request_cancel()
            case "shutdown":
                supervisor.request_shutdown()
            case "remote":
                lab.fake.cancel(tasks[0].id)
            case "completes":
                lab.fake.complete(tasks[0].id, "42")
        with fail_after(LONG), pytest.raises(error) as caught:
            while True:
                await _step(generator)
        told = caught.value if how == "completes" else caught.value.__cause__
        assert isinstance(told, ConfigurationError)
        assert "entered in one asyncio task and left in another" in str(told)
        assert "supervisor.start()" in str(told)


async def test_a_task_at_the_same_address_is_another_one() -> None:
    """The id of an asyncio task is its address, which the next one may have."""
    hosts: dict[int, Host] = {}

    async def enter() -> AsyncGenerator[Host | None]:
        host = Host()
        assert host.is_current
        earlier = hosts.pop(get_current_task().id, None)
        hosts[get_current_task().id] = host
        assert earlier is None or not earlier.is_current
        yield earlier

    met = [await _step(enter()) for _ in range(1000)]
    assert any(met), "no id was given again"


async def test_leaving_a_block_in_another_task() -> None:
    """A block that another task leaves ends its task, and says what happened and what to do."""
    lab = Lab()
    async with lab.open() as supervisor:
        stack = AsyncExitStack()
        task = await asyncio.create_task(stack.enter_async_context(supervisor.task("m")))
        with pytest.raises(ConfigurationError, match="left in another"):
            await asyncio.create_task(stack.aclose())
        assert (task.reason, lab.deletes(task)) == (CancelReason.SCOPE, 1)


async def test_an_error_in_another_task(caplog: pytest.LogCaptureFixture) -> None:
    """The body's own error goes on unchanged from a block that another task leaves."""
    lab = Lab()
    async with lab.open() as supervisor:
        stack = AsyncExitStack()
        task = await asyncio.create_task(stack.enter_async_context(supervisor.task("m")))

        async def fail() -> None:
            async with stack:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(fail())
        assert (task.reason, lab.deletes(task)) == (CancelReason.ERROR, 1)
    assert "task.abandoned" in caplog.text


async def test_leaving_a_supervisor_in_another_task() -> None:
    """It ends every task; and says what happened, if the one that entered it goes on."""
    lab = Lab()
    stack, left = AsyncExitStack(), asyncio.Event()
    supervisor = lab.make()

    async def enter_and_go_on() -> None:
        await stack.enter_async_context(supervisor)
        entered.set()
        await left.wait()

    entered = asyncio.Event()
    host = asyncio.create_task(enter_and_go_on())
    await entered.wait()
    task = await supervisor.start("m")
    with pytest.raises(ConfigurationError, match="left in another"), fail_after(LONG):
        await asyncio.create_task(stack.aclose())
    left.set()
    await host
    assert (task.reason, lab.deletes(task)) == (CancelReason.SHUTDOWN, 1)
    assert "closed" in repr(supervisor)
    assert not [each for each in asyncio.all_tasks() if "sigmic_guard" in each.get_name()]


@pytest.mark.parametrize("kept", [False, True], ids=["collected", "kept"])
async def test_leaving_a_supervisor_whose_task_is_over(*, kept: bool) -> None:
    """Hooks of a framework, and fixtures, run in a task each: there is no body to be cancelled."""
    lab = Lab()
    stack = AsyncExitStack()
    host = asyncio.create_task(stack.enter_async_context(lab.make()))
    supervisor = await host
    if not kept:
        del host
    task = await supervisor.start("m")
    with fail_after(LONG):
        await asyncio.create_task(stack.aclose())
    assert (task.reason, lab.deletes(task)) == (CancelReason.SHUTDOWN, 1)
    assert not [each for each in asyncio.all_tasks() if "sigmic_guard" in each.get_name()]


async def test_a_shutdown_of_a_supervisor_whose_task_is_over() -> None:
    """A signal or a bug can cancel no body; a bug comes out of the end."""
    lab = Lab()
    stack = AsyncExitStack()
    supervisor = await asyncio.create_task(stack.enter_async_context(lab.make()))
    await supervisor.start("m")
    supervisor._session._crashed("a worker", ZeroDivisionError())
    await lab.fake.until(lambda: not lab.fake.live)
    with pytest.raises(ZeroDivisionError), fail_after(LONG):
        await asyncio.create_task(stack.aclose())


async def test_a_block_left_behind_in_the_supervisor_s_own_task() -> None:
    """Where a generator was dropped in it, a supervisor cannot leave its scope, and says so."""
    lab = Lab()

    async def main() -> None:
        async with lab.make() as supervisor:
            async for _ in answers(supervisor):
                break
            await gone(lab)

    with pytest.raises(ConfigurationError, match="aclosing"):
        await asyncio.create_task(main())
    assert lab.deletes() == 1


# --- whose context --------------------------------------------------------------------------------


async def test_workers_carry_nobody_s_context() -> None:
    """What a worker does for one user carries no variable of the user who caused its hiring."""
    lab = Lab()
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen = set[str]()

    class Spy:
        def observe(self, event: ObservedEvent) -> None:
            if isinstance(event, DeleteAnswered):
                seen.add(user.get())

    async with lab.open(observers=[Spy()], max_cancels=2) as supervisor:

        async def ask(name: str) -> None:
            user.set(name)
            task = await supervisor.start(name)
            await task.cancel()
            (await supervisor.start(name)).request_cancel()

        async with create_task_group() as group:
            for name in ("ada", "bob", "eve"):
                group.start_soon(ask, name)
    assert seen == {"nobody"}
