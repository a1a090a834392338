"""Asks for one task by its key, and says what it gets, a line of JSON for each thing.

Run as ``python program.py HOW ON_CRASH ON_SHUTDOWN BEFORE AFTER``; HOW is ``task``, ``run`` or
``start``. Its wall clock is ahead by so many seconds before it is ready, and after that.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio

from sigmic_guard import DuplicateKey, Supervisor, TaskCancelled, TaskFailed, TaskPolicy

if TYPE_CHECKING:
    from sigmic_guard import TaskResult


def say(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


async def ask(supervisor: Supervisor, how: str) -> TaskResult:
    if how == "run":
        return await supervisor.run("the job", key="job")
    if how == "start":
        task = await supervisor.start("the job", key="job")
        say("task", id=task.id)
        return await task.wait()
    async with supervisor.task("the job", key="job") as task:
        say("task", id=task.id)
        async for event in task.events():
            say(event.type, text=event.text)
        return await task.result()


def set_clock(ahead: float) -> None:
    time.time = lambda: _right() + ahead


async def main(how: str, on_crash: Any, on_shutdown: Any, before: float, after: float) -> None:
    set_clock(before)
    policy = TaskPolicy(on_crash=on_crash, on_shutdown=on_shutdown)
    async with Supervisor(
        policy=policy, create_timeout=0.5, namespace="crash", signals=True
    ) as supervisor:
        set_clock(after)
        say("ready")
        try:
            result = await ask(supervisor, how)
        except TaskFailed as error:
            say("end", id=error.task_id, outcome="failed", error=str(error.error))
        except TaskCancelled as error:
            say("end", id=error.task_id, outcome="cancelled", reason=error.reason)
        except DuplicateKey as error:
            say("end", outcome="duplicate", key=error.key)
        else:
            say("end", id=result.id, outcome=result.outcome, answer=result.final_response)


_right = time.time
_how, _on_crash, _on_shutdown, _before, _after = sys.argv[1:]
anyio.run(main, _how, _on_crash, _on_shutdown, float(_before), float(_after))
