"""What the two sets of books look like: where the tasks are now, and how each act ended.

Everything shown comes from the books; nothing is counted here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from demo.counts import Counts
    from demo.verdict import Act, Killed, Truth, Verdict

_REASONS: Final = {
    "user": "a user pressed cancel",
    "scope": "the caller left",
    "error": "the block raised",
    "deadline": "the deadline passed",
    "shutdown": "SIGTERM",
    "remote": "by somebody else",
    "orphan": "its owner had died",
}


# --- while it runs --------------------------------------------------------------------------------


def states(counts: Counts, truth: Truth | None) -> Table:
    """Where the tasks of act one are now, as both sides see it."""
    theirs = truth.by_status if truth is not None else {}
    cancelled = counts.with_outcome("cancelled", "timed_out") - counts.never_sent
    return _now(
        *_living(counts, truth),
        ("completed", counts.with_outcome("completed"), theirs.get("completed", 0)),
        ("failed", counts.with_outcome("failed"), theirs.get("failed", 0)),
        ("cancelled", cancelled, theirs.get("cancelled", 0)),
    )


def orphans(counts: Counts, truth: Truth | None) -> Table:
    """Where the tasks of act two are now; the next start's own counts begin at 0."""
    theirs = truth.by_status if truth is not None else {}
    reaped = counts.reaped
    return _now(
        *_living(counts, truth),
        ("reaped: finished", reaped.get("already_finished", 0), theirs.get("completed", 0)),
        ("reaped: no effect", reaped.get("never_created", 0), None),
        ("reaped: cancelled", reaped.get("cancelled", 0), theirs.get("cancelled", 0)),
    )


_Row = tuple[str, int, int | None]


def _living(counts: Counts, truth: Truth | None) -> tuple[_Row, ...]:
    live = counts.live
    waiting = live.get("intent", 0) + live.get("creating", 0)
    return (
        ("waiting for a place, or being created", waiting, None),
        ("created, but the answer was lost", live.get("unknown", 0), None),
        ("running", live.get("running", 0), truth.live if truth is not None else 0),
        ("being cancelled", live.get("cancelling", 0) + live.get("unconfirmed", 0), None),
    )


def _now(*rows: _Row) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("now")
    table.add_column("supervisor", justify="right", min_width=10)
    table.add_column("emulator", justify="right", min_width=10)
    for name, ours, theirs in rows:
        table.add_row(name, str(ours), "" if theirs is None else str(theirs))
    return table


# --- the end --------------------------------------------------------------------------------------


def last_screen(acts: Iterable[Act]) -> RenderableType:
    """Of each act both sets of books, what is behind them, and the verdict."""
    return Group(*(part for act in acts for part in _parts(act)))


def _parts(act: Act) -> Iterator[RenderableType]:
    books = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    books.add_column("tasks")
    books.add_column("supervisor\n(Prometheus)", justify="right")
    books.add_column("emulator\n(its truth)", justify="right")
    books.add_column("", justify="left")
    for check in act.verdict.checks:
        word = Text("agree", "green") if check.agrees else Text("DIFFER", "bold red")
        books.add_row(check.name, str(check.ours), str(check.theirs), word)

    behind = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    behind.add_column("behind the numbers\n", ratio=1)
    behind.add_column("\n", justify="right")
    for name, value in act.details:
        behind.add_row(name, value)

    yield Text(act.story)
    yield Columns([books, behind], padding=(0, 3))
    yield _last_word(act.verdict)
    yield Text()


def _last_word(verdict: Verdict) -> Text:
    if verdict.good:
        return Text(f"{verdict.left_running} tasks left running. The books agree.", "bold green")
    differ = [] if all(check.agrees for check in verdict.checks) else ["The books differ."]
    problems = [f"{problem}." for problem in verdict.problems]
    left = f"{verdict.left_running} tasks left running."
    return Text(" ".join((left, *differ, *problems)), "bold red")


def shutdown_details(counts: Counts) -> Iterator[tuple[str, str]]:
    """Name what the counts of act one are made of."""
    reasons: dict[str, int] = {}
    for outcome in ("cancelled", "timed_out"):
        for reason, number in counts.finished.get(outcome, {}).items():
            reasons[reason] = reasons.get(reason, 0) + number
    for reason in sorted(reasons, key=[*_REASONS].index):
        yield f"cancelled: {_REASONS[reason]}", str(reasons[reason])
    if counts.never_sent:
        yield "… of these, had no place yet", str(counts.never_sent)
    for result, number in counts.cancellations.items():
        if number:
            yield f"cancellations {result.replace('_', ' ')}", str(number)
    yield from _deletes(counts)


def death_details(
    counts: Counts, truth: Truth, killed: Killed, *, seconds: float | None
) -> Iterator[tuple[str, str]]:
    """Name what the counts of act two are made of.

    :param seconds: from the next start, its imports included, to the last DELETE that ended a task,
        if one did.
    """
    yield "live when SIGKILL came", str(killed.live)
    yield "in flight: a task was made", str(killed.effective)
    yield "in flight: none was made", str(killed.in_flight - killed.effective)
    yield "created twice", str(truth.repeated)
    yield "task-seconds without an owner", f"{counts.orphan_seconds:.1f}"
    if seconds is not None:
        yield "seconds to the last DELETE", f"{seconds:.1f}"
    yield from _deletes(counts)


def _deletes(counts: Counts) -> Iterator[tuple[str, str]]:
    for status, number in sorted(counts.deletes.items()):
        kind = f"answered {status}" if status.isdigit() else "not answered"
        yield f"DELETEs {kind}", str(number)
