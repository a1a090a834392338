"""``sigmic-guard run``: one task, bound to this process."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anyio import get_cancelled_exc_class
from prometheus_client import CollectorRegistry

from sigmic_guard import Outcome, RemoteTask, Supervisor, TaskError, TaskPolicy
from sigmic_guard.cli.codes import DONE

if TYPE_CHECKING:
    from sigmic_guard import TaskEvent, TaskOptions, TaskResult
    from sigmic_guard.cli.terminal import Terminal


async def run(
    terminal: Terminal, message: str, options: TaskOptions, *, base_url: str | None
) -> int:
    """Run a task and show what it does. When this has ended, however it did, so has the task."""
    show = _Show(terminal)
    supervisor = Supervisor(
        base_url=base_url,
        policy=TaskPolicy(confirm="terminal"),
        registry=CollectorRegistry(),
        signals=True,
    )
    entered = AsyncExitStack()
    await entered.enter_async_context(supervisor)
    try:
        async with entered, supervisor.task(message, **options) as task:
            await show.follow(task)
    except TaskError as error:
        if error.result is None or error.result.outcome is not Outcome.COMPLETED:
            raise
        await show.rest_of_answer(error.result)  # it completed before the DELETE reached it
    finally:
        with suppress(OSError):
            await show.end()
        for row in (await supervisor.shutdown()).unconfirmed:
            terminal.problem(
                f"the task {row.id or f'with {row.intent_id} in its env'} is {row.state} "
                "and may still run: look with `sigmic-guard list`"
            )
    return DONE


class _Show:
    """Shows one task: its answer on stdout, the rest on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._task: RemoteTask | None = None
        self._said: list[str] = []

    async def follow(self, task: RemoteTask) -> None:
        """Show the task until it ends.

        :raises TaskError: it ends without an answer.
        :raises BrokenPipeError: nobody reads the answer any more.
        """
        self._task = task
        if self._terminal.json:
            await self._terminal.object({"kind": "started", "id": task.id})
        else:
            self._terminal.status(f"task {task.id}")
        try:
            async for event in task.events():
                if self._terminal.json:
                    fields = {"type": event.type, "data": event.data, "replayed": event.replayed}
                    await self._terminal.object({"kind": "event", **fields})
                elif not event.replayed:
                    await self._event(event)
            await self.rest_of_answer(await task.result())
        except get_cancelled_exc_class():
            self._terminal.status("cancelling the task …")
            raise

    async def _event(self, event: TaskEvent) -> None:
        if event.text:
            self._said.append(event.text)
            await self._terminal.answer(event.text)
        elif status := _status(event.type, event.data):
            self._terminal.status(status)

    async def rest_of_answer(self, result: TaskResult) -> None:
        """Show what of the final answer the stream did not bring."""
        final, said = result.final_response or "", "".join(self._said)
        if not self._terminal.json and final.startswith(said):
            await self._terminal.answer(final[len(said) :])
            self._said = [final]

    async def end(self) -> None:
        """Say how the task ended. It has, or nobody here pursues it any more."""
        if self._task is None:
            return
        result = await self._task.wait()
        if self._terminal.json:
            await self._terminal.object({"kind": "result", **asdict(result)})
            return
        await self._terminal.end_answer()
        proof = f", {result.cancellation.result}" if result.cancellation is not None else ""
        self._terminal.status(
            f"{self._task.state}{proof}, after {result.duration:.1f} s", **_LOOKS[result.outcome]
        )


_LOOKS: dict[Outcome, dict[str, Any]] = {
    Outcome.COMPLETED: {"fg": "green"},
    Outcome.FAILED: {"fg": "red"},
    Outcome.CANCELLED: {"fg": "yellow"},
    Outcome.TIMED_OUT: {"fg": "yellow"},
    Outcome.DETACHED: {"fg": "yellow"},
}


def _status(kind: str, data: Any) -> str | None:
    """Return what an event is worth saying beside the answer."""
    if not isinstance(data, dict):
        return None
    match kind:
        case "status":
            return str(data.get("status", ""))
        case "tool_call":
            waits = " (waits for an approval)" if data.get("status") == "awaiting_approval" else ""
            return f"tool {data.get('toolName')}: {data.get('status')}{waits}"
        case "tool_result":
            return f"tool {data.get('toolName') or data.get('callId')}: done"
        case "subagent_start" | "subagent_end":
            return f"subagent {data.get('name')}: {kind.removeprefix('subagent_')}"
        case "error":
            return f"error: {data.get('message')}"
        case _:
            return None


def parse_pairs(pairs: list[str], *, from_environment: bool) -> dict[str, str]:
    """Parse ``NAME=VALUE`` arguments.

    :param from_environment: a ``NAME`` alone takes its value from the environment.
    :raises ValueError: one of them is neither; the message does not hold the value.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and from_environment and name in os.environ:
            value = os.environ[name]
        elif not equals or not name:
            expected = "NAME=VALUE, or NAME of a variable that is set" if from_environment else ""
            raise ValueError(f"expected {expected or 'NAME=VALUE'}")
        found[name] = value
    return found
