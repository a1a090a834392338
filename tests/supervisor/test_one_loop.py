"""A supervisor, and each handle of it, belongs to the loop and the process that entered it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import fail_after, to_thread

from sigmic_guard import ConfigurationError
from tests.backends import ASYNCIO, TRIO, UVLOOP_SLOWLY
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sigmic_guard import RemoteTask, Supervisor
    from sigmic_guard.supervisor.work.events import TaskEvents

    Use = Callable[[Supervisor, RemoteTask, TaskEvents], Awaitable[object]]

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP_SLOWLY, TRIO)
LONG = 20


async def _block(supervisor: Supervisor) -> None:
    async with supervisor.task("m"):
        pass


USES: dict[str, Use] = {
    "run": lambda supervisor, *_: supervisor.run("m"),
    "start": lambda supervisor, *_: supervisor.start("m"),
    "block": lambda supervisor, *_: _block(supervisor),
    "adopt": lambda supervisor, task, _: supervisor.adopt(task.id),
    "reap": lambda supervisor, *_: supervisor.reap(),
    "shutdown": lambda supervisor, *_: supervisor.shutdown(),
    "leave": lambda supervisor, *_: supervisor.__aexit__(None, None, None),
    "result": lambda _, task, __: task.result(),
    "wait": lambda _, task, __: task.wait(),
    "cancel": lambda _, task, __: task.cancel(),
    "send": lambda _, task, __: task.send("more"),
    "approve": lambda _, task, __: task.approve("call"),
    "refresh": lambda _, task, __: task.refresh(),
    "anext": lambda *all_: anext(all_[2]),
    "aclose": lambda *all_: all_[2].aclose(),
}


async def _use(use: Use, *all_: Any) -> str:
    try:
        await use(*all_)
    except ConfigurationError as error:
        return str(error)
    except BaseException as error:
        return "".join(traceback.format_exception(error))
    return "nothing was raised"


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_another_loop_in_another_thread(use: str, other: str) -> None:
    """Awaited from another loop everything refuses at once, and the supervisor goes on."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        events = task.events()
        await anext(events)
        with fail_after(LONG):
            said = await to_thread.run_sync(
                lambda: anyio.run(_use, USES[use], supervisor, task, events, backend=other)
            )
        assert "event loop that entered it" in said
        assert lab.fake.count("create") == 1
        assert lab.deletes() == 0
        assert (await anext(events)).type
        assert (await task.cancel()).result == "acknowledged"


@pytest.mark.parametrize("use", USES)
def test_a_second_loop_in_the_same_thread(use: str) -> None:
    """So it does in the next asyncio.run() of a program that forgot to leave its supervisor."""
    lab = Lab()

    async def forget() -> tuple[Supervisor, RemoteTask, TaskEvents]:
        supervisor = lab.make()
        await supervisor.__aenter__()
        task = await supervisor.start("m")
        events = task.events()
        await anext(events)
        return supervisor, task, events

    async def live() -> int:
        return len(lab.fake.live)

    loop = asyncio.new_event_loop()
    try:
        forgotten = loop.run_until_complete(forget())
        said = asyncio.run(asyncio.wait_for(_use(USES[use], *forgotten), LONG))
        assert "event loop that entered it" in said
        loop.run_until_complete(forgotten[0].shutdown())
        loop.run_until_complete(forgotten[0].__aexit__(ConfigurationError, OSError(), None))
        assert not loop.run_until_complete(live())
    finally:
        loop.close()


@pytest.mark.parametrize("use", USES)
@pytest.mark.backends(ASYNCIO)
async def test_a_forked_child(use: str) -> None:
    """In a forked child everything refuses at once, and the parent's tasks are untouched."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        events = task.events()
        await anext(events)

        def child() -> bool:
            said = anyio.run(_use, USES[use], supervisor, task, events, backend="trio")
            return "before the process was forked" in said

        assert await _in_a_child(child)
        assert lab.deletes() == 0
        assert (await task.cancel()).result == "acknowledged"


@pytest.mark.backends(ASYNCIO)
async def test_plain_calls_in_a_forked_child() -> None:
    """Plain calls and finalizers in a forked child do nothing to the parent."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        events = task.events()
        await anext(events)

        def child() -> bool:
            task.request_cancel()
            events.close()
            supervisor.request_shutdown()
            return True

        assert await _in_a_child(child)
        assert (await task.refresh()).status == "running"
        assert task.reason is None
        assert lab.deletes() == 0
        assert (await anext(events)).type


@pytest.mark.backends(ASYNCIO)
async def test_a_child_has_no_doorbell() -> None:
    """A forked child lets go of the sockets through which a byte would wake its parent."""
    lab = Lab()
    async with lab.open() as supervisor:
        inbox = supervisor._session.inbox
        assert inbox is not None
        assert inbox._writer.fileno() > 0
        assert await _in_a_child(lambda: inbox._writer.fileno() == -1 == inbox._reader.fileno())
        assert inbox._writer.fileno() > 0


async def _in_a_child(function: Callable[[], bool]) -> bool:
    """Fork, and return what the function says in the child."""
    child = os.fork()
    if not child:
        said = False
        try:
            signal.alarm(LONG)
            done: list[bool] = []
            # The loop of the parent is the running one of this thread, here too.
            other = threading.Thread(target=lambda: done.append(function()))
            other.start()
            other.join()
            said = done == [True]
        finally:
            os._exit(0 if said else 1)
    _, status = await to_thread.run_sync(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status) == 0
