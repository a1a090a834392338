"""Creates whose answer is lost: every task is accounted for, and none is made twice."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from anyio import CapacityLimiter, create_task_group, current_time, fail_after, move_on_after
from prometheus_client import CollectorRegistry

from sigmic_guard import (
    ConnectionFailed,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskPolicy,
    TaskTimedOut,
)
from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.lifecycle.policy import OnShutdown
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.supervisor.recovery.reconciler import Reconciler
from sigmic_guard.testing import LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.observe.sums import add_up
from tests.supervisor.lab import UNAVAILABLE
from tests.supervisor.losses import GONE, LossLab, every_fifth

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

KEY = "sigmic_" + "5e" * 32
#: Tasks in all, and at once.
TASKS, AT_ONCE = 300, 100

#: Returns the id that the caller was given.
Use = Callable[[Supervisor, str], Awaitable[str | None]]


async def scoped(supervisor: Supervisor, message: str) -> str | None:
    async with supervisor.task(message) as task:
        return (await task.result()).id


async def background(supervisor: Supervisor, message: str) -> str | None:
    return (await (await supervisor.start(message)).result()).id


async def one_call(supervisor: Supervisor, message: str) -> str | None:
    return (await supervisor.run(message)).id


USES = (scoped, background, one_call)


async def use(
    supervisor: Supervisor, tasks: int = TASKS
) -> tuple[dict[str, str | None], list[str]]:
    """Run them all; return the ids by message, and the messages that met ConnectionFailed."""
    ids: dict[str, str | None] = {}
    failed: list[str] = []
    limiter = CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        message = f"task {number}"
        async with limiter:
            try:
                ids[message] = await USES[number % len(USES)](supervisor, message)
            except ConnectionFailed:
                failed.append(message)

    async with create_task_group() as group:
        for number in range(tasks):
            group.start_soon(one, number)
    return ids, failed


async def test_every_fifth_answer_is_lost() -> None:
    """At 100 at once every caller whose create was lost gets its own task, and goes on with it."""
    lab = LossLab(duration=0.2)
    lab.fake.always("create", every_fifth())
    with fail_after(50):
        async with lab.open() as supervisor:
            ids, failed = await use(supervisor)
            assert not supervisor.snapshot()
    assert failed == []
    assert ids == {task.message: task.id for task in lab.fake.tasks.values()}
    assert lab.fake.count("create") == TASKS == len(lab.fake.created)
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): TASKS}


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_over_the_wire() -> None:
    """The same over HTTP, where the connection drops behind the effect."""
    registry = CollectorRegistry()
    async with Emulator(script=Script(duration=0.2)) as emulator:
        emulator.fault("create", Fault("lost_answer", every=5))
        async with Supervisor(
            api_key=KEY, base_url=emulator.url, registry=registry, ledger="memory:"
        ) as supervisor:
            with fail_after(50):
                ids, failed = await use(supervisor)
            assert not supervisor.snapshot()
        assert failed == []
        assert ids == {task.message: task.id for task in emulator.tasks.values()}
        assert emulator.count("POST", "create") == TASKS == len(emulator.tasks)
        assert emulator.state()["duplicates"] == {}
        assert emulator.count("DELETE") == emulator.live == 0
    add_up(registry)


@pytest.mark.backends(ASYNCIO)
async def test_nobody_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the search every fifth task is a lost one."""
    monkeypatch.setattr(Reconciler, "look_for", lambda *_: None)
    async with Emulator(script=Script(duration=0.2)) as emulator:
        emulator.fault("create", Fault("lost_answer", every=5))
        async with Supervisor(
            api_key=KEY,
            base_url=emulator.url,
            registry=CollectorRegistry(),
            ledger="memory:",
            create_timeout=1,
        ) as supervisor:
            with fail_after(50):
                _, failed = await use(supervisor, 50)
            assert len(failed) == 10
            report = await supervisor.shutdown(grace=0.1)
            assert [row.state for row in report.unconfirmed] == [State.UNKNOWN] * 10


@virtual
async def test_lost_before_the_effect() -> None:
    """Creates that never arrived are proven absent: a clear error each, and nothing is left."""
    lab = LossLab(duration=0.1)
    lab.fake.always("create", every_fifth(GONE))
    async with lab.open() as supervisor:
        ids, failed = await use(supervisor)
        assert not supervisor.snapshot()
        assert current_time() < 300
    assert len(failed) == TASKS // 5
    assert ids == {task.message: task.id for task in lab.fake.tasks.values()}
    assert lab.fake.count("create") == TASKS
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): TASKS * 4 // 5, ("failed", "none"): TASKS // 5}


async def test_the_error_is_clear() -> None:
    """The error of a create that never arrived says that it was sent, and what went wrong."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=0.1) as supervisor:
        with fail_after(20), pytest.raises(ConnectionFailed, match="was reset") as caught:
            await supervisor.run("m")
        assert caught.value.sent


async def test_the_callers_env_is_kept() -> None:
    """A task that was found by its mark has what its caller gave it in env."""
    lab = LossLab(duration=0.1)
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor:
        with fail_after(20):
            result = await supervisor.run("m", env={"MINE": "1"}, secrets={"S": "x"})
    assert result.id is not None
    remote = lab.fake.tasks[result.id]
    assert remote.env.keys() == {"MINE", MARKER}
    assert (remote.env["MINE"], remote.request.secrets) == ("1", {"S": "x"})


async def test_it_ended_before_it_was_found() -> None:
    """A task that completed before the list showed it gives its caller the whole result."""
    lab = LossLab(duration=0.0)
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor:
        with fail_after(20):
            result = await (await supervisor.start("m")).result()
    assert result.final_response == "the answer"
    assert lab.finished == {("completed", "none"): 1}


async def gives_up_by_scope(supervisor: Supervisor) -> None:
    with move_on_after(0.1):
        await supervisor.start("m")


async def gives_up_within_a_block(supervisor: Supervisor) -> None:
    with move_on_after(0.1):
        async with supervisor.task("m", cancel_wait=0):
            raise AssertionError


async def gives_up_by_its_deadline(supervisor: Supervisor) -> None:
    with pytest.raises(TaskTimedOut):
        await supervisor.run("m", timeout=0.1, cancel_wait=0)


@pytest.mark.parametrize(
    "give_up, told",
    [
        (gives_up_by_scope, ("cancelled", "scope")),
        (gives_up_within_a_block, ("cancelled", "scope")),
        (gives_up_by_its_deadline, ("timed_out", "deadline")),
    ],
)
async def test_found_when_nobody_wants_it(
    give_up: Callable[[Supervisor], Awaitable[None]], told: tuple[str, str]
) -> None:
    """A lost create whose caller gave up meanwhile is deleted the moment it is found."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    gate = lab.fake.gate("list")
    async with lab.open() as supervisor:
        with fail_after(20):
            await give_up(supervisor)
            assert len(lab.fake.live) == 1
            gate.open()
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.deletes() == 1
    assert lab.finished == {told: 1}


@pytest.mark.parametrize("on_shutdown", ["cancel", "detach"])
async def test_lost_during_a_shutdown(on_shutdown: OnShutdown) -> None:
    """A create that is lost while the supervisor shuts down is found, and seen to, within grace."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    held = lab.fake.gate("create", answer=True)
    detach = on_shutdown == "detach"
    policy = TaskPolicy(on_shutdown=on_shutdown)
    async with (
        lab.open(left=int(detach), grace=5, policy=policy) as supervisor,
        create_task_group() as group,
    ):

        async def start() -> None:
            with contextlib.suppress(SupervisorShutdown):
                assert (await supervisor.start("m")).id == lab.fake.created[0]
                assert detach

        group.start_soon(start)
        await held.entered.wait()
        supervisor.request_shutdown()
        held.open()
        with fail_after(20):
            report = await supervisor.shutdown()
        assert report.clean
        assert report.seconds < 5
    assert lab.finished == {("detached", "none") if detach else ("cancelled", "shutdown"): 1}


@virtual
async def test_a_shutdown_looks_at_once() -> None:
    """A search that has slowed down looks at once when a shutdown begins, and finds its task."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(create_timeout=5, grace=2) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        scans = lab.lists()
        with move_on_after(600):
            await lab.fake.until(lambda: lab.lists() == scans + 30)
        lab.fake.always("list", None)
        began = current_time()
        report = await supervisor.shutdown()
        assert current_time() - began < 1
        assert report.clean
    assert lab.finished == {("cancelled", "error"): 1}


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_busy_list_proves_nothing() -> None:
    """A lost create that always moves past the reader of the list is not taken for absent."""
    lab = LossLab()
    world = lab.fake._world
    others = [lab.fake.add() for _ in range(150)]
    calls = count()

    def touch(task_id: str) -> None:
        world.model._touch(*world.tasks[task_id].now())

    def shift(_: object) -> None:
        """Keep it below the first page, and let it be on top when the second is read."""
        for task_id in others[:120] if next(calls) % 2 == 0 else lab.fake.created[-1:]:
            touch(task_id)

    lab.fake.on("create", LOST)
    async with lab.open(left=150, create_timeout=1) as supervisor, create_task_group() as group:

        async def caller() -> None:
            with pytest.raises(ConnectionFailed):
                await supervisor.start("wanted")

        lab.fake.always("list", shift)
        group.start_soon(caller)
        with fail_after(60):
            await lab.fake.until(lambda: lab.fake.count("list") > 150)
        assert [row.state for row in supervisor.snapshot()] == ["unknown"]
        lab.fake.always("list", None)
        await lab.fake.until(lambda: lab.deletes() == 1)
