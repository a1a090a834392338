"""How users call the library, as type checkers see it: checked by mypy, never run.

`assert_type` holds the inferred types; an ignore that is no longer needed is an error itself, so
what must be refused is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Unpack, assert_type

import prometheus_client

from sigmic_guard import (
    ApiError,
    Cancellation,
    CancelReason,
    CancelResult,
    ConnectionFailed,
    DuplicateKey,
    Outcome,
    RemoteTask,
    ShutdownReport,
    SigmicClient,
    Snapshot,
    State,
    Supervisor,
    TaskApi,
    TaskCancelled,
    TaskError,
    TaskEvent,
    TaskFailed,
    TaskInfo,
    TaskOptions,
    TaskPolicy,
    TaskResult,
    TaskRow,
    TaskTimedOut,
    Watch,
    serve,
)
from sigmic_guard.integrations.asgi import Guard, RequestTasks, TaskStream
from sigmic_guard.testing import FakeSigmic


async def scoped() -> TaskResult:
    """A block, its events and its result."""
    async with Supervisor(api_key="sigmic_key", grace=8.0) as supervisor:
        assert_type(supervisor, Supervisor)
        async with supervisor.task("Summarise", files=["data.csv"], timeout=60) as task:
            assert_type(task, RemoteTask)
            async for event in task.events():
                assert_type(event, TaskEvent)
                assert_type(event.type, str)
                assert_type(event.text, str)
                assert_type(event.data, Any)
                assert_type(event.replayed, bool)
            async with task.events() as events:
                assert_type(await anext(events), TaskEvent)
            return await task.result()


async def ways_to_begin(supervisor: Supervisor) -> None:
    """One call, background, adopted; with every option."""
    result = await supervisor.run("What is 2+2?", timeout=30)
    assert_type(result, TaskResult)
    assert_type(result.id, str | None)
    assert_type(result.outcome, Outcome)
    assert_type(result.final_response, str | None)
    assert_type(result.cancellation, Cancellation | None)
    assert_type(result.duration, float)
    background = await supervisor.start(
        "Reconcile",
        files=[Path("a.csv"), "b.csv"],
        system_prompt="Be brief.",
        auto_execute=False,
        show_in_history=False,
        env={"REGION": "eu"},
        secrets={"TOKEN": "t"},
        key="ledgers",
        deadline=datetime.now(UTC) + timedelta(hours=1),
        timeout=None,
        on_exit="wait",
        on_shutdown="detach",
        on_crash="reattach",
        confirm="terminal",
        cancel_wait=1,
        reattach_within=60,
        on_lost="cancel",
    )
    assert_type(background, RemoteTask)
    adopted = await supervisor.adopt("c37c1d78", deadline=12.5, key="ledgers")
    assert_type(adopted, RemoteTask)


async def handle(task: RemoteTask) -> None:
    """All that a handle can be asked."""
    assert_type(task.id, str)
    assert_type(task.state, State)
    assert_type(task.outcome, Outcome | None)
    assert_type(task.reason, CancelReason | None)
    assert_type(task.deadline, float | None)
    assert_type(task.created_at, float)
    assert_type(await task.wait(), TaskResult)
    cancellation = await task.cancel()
    assert_type(cancellation, Cancellation)
    assert_type(cancellation.result, CancelResult)
    task.request_cancel()
    await task.send("And then?", files=[Path("more.csv")])
    assert_type(await task.approve("call-1", "proceed_always"), bool)
    info = await task.refresh()
    assert_type(info, TaskInfo)
    assert_type(info.completed_at, str | None)


async def operate(supervisor: Supervisor) -> None:
    """What a supervisor tells, and how it ends."""
    assert_type(supervisor.tasks, Mapping[str, RemoteTask])
    snapshot = supervisor.snapshot()
    assert_type(snapshot, Snapshot)
    assert_type(snapshot[0], TaskRow)
    assert_type(snapshot[1:], Snapshot)
    assert_type([row.age for row in snapshot], list[float])
    supervisor.request_shutdown()
    report = await supervisor.shutdown(grace=2)
    assert_type(report, ShutdownReport)
    assert_type(report.unconfirmed, Sequence[TaskRow])
    assert_type(report.clean, bool)


async def fail(supervisor: Supervisor) -> float | None:
    """The errors, with their fields."""
    try:
        await supervisor.run("hello")
    except TaskTimedOut as error:
        timeout: TimeoutError = error
        assert_type(error.task_id, str | None)
        raise timeout from None
    except (TaskCancelled, TaskFailed) as error:
        base: TaskError = error
        assert_type(base.message, str)
    except DuplicateKey as error:
        assert_type(error.key, str)
    except ConnectionFailed as error:
        assert_type(error.sent, bool)
    except ApiError as error:
        assert_type(error.status, int)
        return error.retry_after
    return None


def configure() -> Supervisor:
    """Every argument; the real client and the fake one are both a `TaskApi`."""
    real: TaskApi = SigmicClient("sigmic_key", "https://sigmic.test")
    fake: TaskApi = FakeSigmic(duration=1.0)
    policy = TaskPolicy(timeout=60, confirm="terminal", reattach_within=2.5)
    return Supervisor(
        api_key=None,
        base_url=None,
        client=fake if policy.timeout else real,
        ledger="memory:",
        policy=policy.but(on_exit="wait"),
        grace=5,
        max_tasks=100,
        max_cancels=16,
        create_timeout=10,
        namespace="billing",
        marker=False,
        registry=prometheus_client.CollectorRegistry(),
        signals=True,
    )


async def pass_on(supervisor: Supervisor, **options: Unpack[TaskOptions]) -> None:
    """Options can be collected, and passed on."""
    await supervisor.run("hello", **options)
    watch: Watch = {"timeout": 60, "on_exit": "cancel"}
    more: TaskOptions = {"timeout": 60, "files": ["a.csv"]}
    await supervisor.adopt("c37c1d78", **watch)
    await supervisor.start("hello", **more)


async def several(supervisor: Supervisor) -> None:
    """A group has the supervisor's own ways to have a task."""
    forget: Callable[[], None] = supervisor.on_drain(supervisor.snapshot)
    async with supervisor.group() as group:
        assert_type(await group.start("hello", timeout=60), RemoteTask)
        assert_type(await group.run("hello"), TaskResult)
        async with group.task("hello", on_exit="wait") as task:
            await task.result()
    if supervisor.draining:
        forget()


async def requests(tasks: RequestTasks) -> None:
    """A request's tasks are had as the supervisor's are, and may outlive its client."""
    guard = Guard(on_disconnect=timedelta(seconds=5), retry_after=2, policy=TaskPolicy(timeout=60))
    assert_type(guard.supervisor, Supervisor)
    assert_type(await tasks.run("hello", on_disconnect="keep", timeout=60), TaskResult)
    assert_type(await tasks.start("hello", on_disconnect="cancel"), RemoteTask)
    TaskStream(tasks, "hello", encode=lambda event: event.text, heartbeat=None, on_disconnect=5)
    TaskStream(tasks, "hello", on_exit="maybe")  # type: ignore[arg-type]
    Guard(on_disconnect="stop")  # type: ignore[arg-type]
    await tasks.run("hello", on_disconnect="stop")  # type: ignore[arg-type]


async def refused(supervisor: Supervisor, task: RemoteTask) -> None:
    """Slips that a type checker finds."""
    await supervisor.run("hello", timeot=5)  # type: ignore[call-arg]
    await supervisor.run("hello", on_exit="maybe")  # type: ignore[arg-type]
    await supervisor.adopt("c37c1d78", files=["a.csv"])  # type: ignore[call-arg]
    await task.approve("call-1", "yes")  # type: ignore[arg-type]
    Supervisor("sigmic_key")  # type: ignore[call-arg]
    TaskPolicy(60)  # type: ignore[call-arg]
    supervisor.tasks["c37c1d78"] = task  # type: ignore[index]
    task.cancel()  # type: ignore[unused-coroutine]


async def main(supervisor: Supervisor) -> int:
    return len(supervisor.tasks)


def whole_programs() -> None:
    assert_type(serve(main), int)
    serve(main, signals="auto", max_tasks=5, grace=timedelta(seconds=5))
    serve(main, signals="sometimes")  # type: ignore[arg-type]
    serve(whole_programs)  # type: ignore[arg-type]
