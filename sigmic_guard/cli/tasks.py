"""``sigmic-guard cancel``, ``status`` and ``list``: tasks that exist already."""

from __future__ import annotations

import sys
from random import random
from typing import TYPE_CHECKING, Any, Final

import msgspec
from anyio import create_task_group, current_time, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard import (
    CancelResult,
    ConfigurationError,
    ConnectionFailed,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicClient,
    SigmicGuardError,
    Supervisor,
    TaskInfo,
    TaskPolicy,
)
from sigmic_guard.cli.codes import DONE, NOT_DONE, code_of
from sigmic_guard.cli.identifiers import remote_id_of
from sigmic_guard.lifecycle import Backoff
from sigmic_guard.supervisor.work.listing import MAX_AIMLESS, MAX_PAGE, Lister

if TYPE_CHECKING:
    from sigmic_guard import Cancellation, RemoteTask
    from sigmic_guard.cli.terminal import Terminal

#: Seconds that one request may take.
REQUEST_TIMEOUT: Final = 30.0

_WORTH_RETRYING: Final = (ConnectionFailed, ProtocolError, RateLimited, ServerError)
_WIDTHS: Final = (36, 17, 24, 0)


# --- cancel -----------------------------------------------------------------------------------


async def cancel(
    terminal: Terminal, task_ids: list[str], *, wait: float, base_url: str | None
) -> int:
    """End tasks, and say of each what came of it.

    :param task_ids: or beginnings of those that the ledger knows.
    """
    codes: list[int] = []
    untold: dict[str, RemoteTask] = {}
    supervisor = Supervisor(
        base_url=base_url,
        ledger="memory:",  # who cancels by hand neither writes down nor reaps
        policy=TaskPolicy(confirm="terminal", cancel_wait=wait),
        registry=CollectorRegistry(),
        grace=1.0,
        signals=True,
    )

    async def refuse(task_id: str, error: SigmicGuardError) -> None:
        await _show_refusal(terminal, task_id, error)
        codes.append(code_of(error))

    async def end(task_id: str) -> None:
        try:
            task = await _adopt(supervisor, task_id, current_time() + wait)
        except SigmicGuardError as error:
            await refuse(task_id, error)
            return
        untold[task_id] = task
        cancellation = await task.cancel()
        if cancellation.result is not CancelResult.UNCONFIRMED:
            del untold[task_id]
            codes.append(await _show_cancellation(terminal, task_id, cancellation))

    try:
        meant: dict[str, None] = {}
        for told in task_ids:
            try:
                meant[await remote_id_of(told)] = None
            except SigmicGuardError as error:
                await refuse(told, error)
        async with supervisor, create_task_group() as group:
            for task_id in meant:
                group.start_soon(end, task_id)
    finally:  # the shutdown has tried once more, and nothing is left to wait for
        for task_id, task in untold.items():
            if (last := (await task.wait()).cancellation) is not None:
                codes.append(await _show_cancellation(terminal, task_id, last))
    return max(codes, default=DONE)


async def _adopt(supervisor: Supervisor, task_id: str, until: float) -> RemoteTask:
    """Adopt the task; ask again for as long as there is time and hope."""
    backoff, failures = Backoff(), 0
    while True:
        try:
            return await supervisor.adopt(task_id)
        except _WORTH_RETRYING as error:
            failures += 1
            retry_after = getattr(error, "retry_after", None)
            delay = backoff.delay(failures, random(), retry_after=retry_after)
            if current_time() + delay > until:
                raise
            await sleep(delay)


async def _show_cancellation(terminal: Terminal, task_id: str, cancellation: Cancellation) -> int:
    """Say what came of it, and return the exit code for it."""
    unproven = cancellation.result is CancelResult.UNCONFIRMED
    if terminal.json:
        fields = {"result": cancellation.result, "state": cancellation.state}
        more = {"attempts": cancellation.attempts, "error": cancellation.error}
        await terminal.object({"kind": "cancellation", "id": task_id, **fields, **more})
    else:
        columns = [task_id, cancellation.result.value, cancellation.state.value]
        if unproven and cancellation.error:
            columns.append(cancellation.error)
        await terminal.row(*columns, widths=_WIDTHS[: len(columns)])
    return NOT_DONE if unproven else DONE


async def _show_refusal(terminal: Terminal, task_id: str, error: SigmicGuardError) -> None:
    if terminal.json:
        fields = {"error": type(error).__name__, "message": str(error)}
        await terminal.object({"kind": "cancellation", "id": task_id, "result": None, **fields})
    # What was asked for is no id: the message holds it, made fit to be shown.
    name = "" if isinstance(error, ConfigurationError) else f"{task_id}: "
    terminal.problem(f"{name}{error}")


# --- status and list --------------------------------------------------------------------------


async def status(terminal: Terminal, task_id: str, *, base_url: str | None) -> int:
    """Show one task.

    :param task_id: or the beginning of one that the ledger knows.
    """
    task_id = await remote_id_of(task_id)
    async with SigmicClient(base_url=base_url) as client:
        info = await client.get(task_id, timeout=REQUEST_TIMEOUT)
    if terminal.json:
        await terminal.object({"kind": "task", **_fields(info)})
        return DONE
    output = info.output.content if info.output is not None else None
    shown = {
        "id": info.id,
        "status": info.status,
        "created": info.created_at,
        "started": info.started_at,
        "completed": info.completed_at,
        "message": info.message,
        "error": info.error,
        "output": output,
    }
    for name, value in shown.items():
        if value is not None:
            await terminal.row(name, str(value), widths=(9, 0))
    for approval in info.pending_approvals or ():
        call = f"{approval.call_id} {approval.tool_name or ''}"
        await terminal.row("waits for", call, widths=(9, 0))
    return DONE


async def list_tasks(terminal: Terminal, *, limit: int | None, base_url: str | None) -> int:
    """Show tasks, most recent activity first; ``None`` shows all."""
    shown: set[str] = set()  # pages shift while tasks are active
    left = sys.maxsize if limit is None else limit
    async with SigmicClient(base_url=base_url) as client:
        lister = Lister(client)
        lister.limit(min(MAX_PAGE, left))
        listing = lister.read(aimless=MAX_AIMLESS, trust_total=True)
        while left > 0 and (page := (await listing.next_page())[:left]):
            left -= len(page)
            for info in page:
                if info.id not in shown:
                    shown.add(info.id)
                    await _show_task(terminal, info)
    if listing.scraps:
        terminal.problem(f"{len(listing.scraps)} of the list's items could not be read")
    return DONE


async def _show_task(terminal: Terminal, info: TaskInfo) -> None:
    if terminal.json:
        await terminal.object({"kind": "task", **_fields(info)})
    else:
        created, message = info.created_at or "", info.message or ""
        await terminal.row(info.id, info.status, created, message, widths=_WIDTHS)


def _fields(info: TaskInfo) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(info)
    return {name: value for name, value in fields.items() if value is not None}
