"""What is left: tasks that run at the remote system, and rows that are not finished."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio

from sigmic_guard.ledger import MemoryLedger, looking
from sigmic_guard.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sigmic_guard.lifecycle import Record


class Remote(Protocol):
    """A ``FakeSigmic`` or an ``Emulator``."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """All tasks by id."""


Place: TypeAlias = Remote | Supervisor | MemoryLedger | os.PathLike[str]


def assert_no_orphans(*places: Place) -> None:
    """Fail if a task is live at one of these places, or a row not finished; it names them.

    A plain call, for tests of any kind.

    :param places: a ``FakeSigmic`` or an ``Emulator``: none of its tasks may be live. A
        ``Supervisor``: it may have no task under way. A ``MemoryLedger``, or the path of a ledger's
        file: every row has to be finished; the supervisor that writes them should be closed by
        then, for it writes a row's end a moment after the task's.
    :raises AssertionError: there are some.
    :raises FileNotFoundError: there is no such ledger.
    :raises LedgerError: the ledger cannot be read.
    :raises TypeError: there is nothing to look at.
    """
    __tracebackhide__ = True
    if not places:
        raise TypeError("assert_no_orphans needs something to look at, such as a FakeSigmic")
    left = {name: what for place in reversed(places) for name, what in left_at(place).items()}
    if left:
        raise AssertionError(tell(left, "left unfinished"))


def left_at(place: Place) -> dict[str, str]:
    """Return what is live, or not finished, there, by id."""
    if isinstance(place, Supervisor):
        return {row.id or row.intent_id: f"{row.state}, supervised" for row in place.snapshot()}
    if isinstance(place, MemoryLedger):
        return _rows(place.store.rows.values())
    if isinstance(place, os.PathLike):
        return _rows_of_file(os.fspath(place))
    tasks: Mapping[str, Any] | None = getattr(place, "tasks", None)
    if tasks is None:
        raise TypeError(f"there are no tasks to be looked for in {place!r}")
    live = {task_id: task for task_id, task in tasks.items() if task.live}
    return {task_id: f"{task.status}: {task.message!r}" for task_id, task in live.items()}


def tell(left: Mapping[str, str], what: str) -> str:
    """Return how many there are, what they did, and a line for each."""
    count = "1 remote task" if len(left) == 1 else f"{len(left)} remote tasks"
    return f"{count} {what}:" + "".join(f"\n  <Task {name} {how}>" for name, how in left.items())


def _rows(records: Iterable[Record]) -> dict[str, str]:
    return {row.remote_id or row.intent_id: f"{row.state}, in the ledger" for row in records}


def _rows_of_file(path: str) -> dict[str, str]:
    # A thread with a loop of its own: the caller may have none, or a running one.
    with ThreadPoolExecutor(1) as pool:
        rows = pool.submit(lambda: anyio.run(looking.unfinished, path)).result()
    if rows is None:
        raise FileNotFoundError(f"there is no ledger at {path}")
    corrupt = {name: f"in a row that cannot be read: {why}" for name, why in rows.corrupt.items()}
    return _rows(owned.record for owned in rows.readable) | corrupt
