"""Every field of an entry, and of the records beside it, is written in one room alone."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sigmic_guard import supervisor
from sigmic_guard.supervisor.ground.audience import Audience
from sigmic_guard.supervisor.ground.entry import Entry
from sigmic_guard.supervisor.ground.phases import Block, Cancelling, Create, Ending, FollowUps
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(supervisor.__file__).parent

#: By record: which module writes which of its fields. Those that are not here are written by
#: the methods of the record itself.
WRITERS: Final[dict[type, dict[str, set[str]]]] = {
    Entry: {
        "ground/roster.py": {"record", "inheritance"},
        "ground/durations.py": {"begun_at"},
        "ground/entries.py": {"deadline_alarm"},
        "ground/origins.py": {"prompt"},
        "work/watcher.py": {"seen_at"},
        "work/creating.py": {"block", "create"},
        "face/task.py": {"handle"},
    },
    Create: {
        "work/creating.py": {"request", "posted_at", "failure"},
        "work/capacity.py": {"admitted"},
    },
    Block: {},
    FollowUps: {"work/caller_requests.py": {"generation", "sending"}},
    Ending: {
        "ground/roster.py": {"ended_at", "result", "wanted_at"},
        "ground/readings.py": {"answer", "error", "last_end"},
    },
    Cancelling: {
        "work/canceller.py": {"looks", "next_request", "refusal", "refusals", "retry_alarm"},
    },
    Audience: {
        "work/events.py": {"listening"},
        "work/watcher.py": {"glance_alarm", "pause_alarm", "pauses"},
    },
}
#: Who may drop a record, beside the one who makes it: ``None`` is all that they write.
DROPPERS: Final = {("ground/roster.py", "create"), ("work/canceller.py", "cancelling")}
#: What has fields of the same names, and is none of these.
OTHERS: Final = {
    ("work/caller_requests.py", "waiting"),
    ("recovery/reaper.py", "round_"),
    ("ground/outbox.py", "batch"),
    ("ground/outbox.py", "self._under_way"),
}


def slots(record: type) -> set[str]:
    names: tuple[str, ...] = record.__slots__  # type: ignore[attr-defined]
    # Cancel scopes have a deadline too; a task's is never changed.
    return set(names) - {"_waiters", "deadline"}


FIELDS: Final = set[str]().union(*map(slots, WRITERS))


def writes(source: str) -> Iterator[tuple[str, str, bool]]:
    """Yield of whom which field is written, and whether it is dropped."""
    targets: list[ast.expr]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=targets, value=value):
                dropped = isinstance(value, ast.Constant) and value.value is None
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                targets, dropped = [target], False
            case ast.Delete(targets=targets):
                dropped = False
            case _:
                continue
        for one in targets:
            for part in ast.walk(one):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store | ast.Del):
                    yield ast.unparse(part.value), part.attr, dropped


def trespasses(module: str, source: str) -> list[str]:
    """Name what is written in a module that is not the one to write it."""
    allowed = set[str]().union(*(rooms.get(module, ()) for rooms in WRITERS.values()))
    return [
        f"{module} writes {of}.{name}"
        for of, name, dropped in writes(source)
        if name in FIELDS - allowed
        and of != "self"
        and (module, of) not in OTHERS
        and not (dropped and (module, name) in DROPPERS)
    ]


def test_nobody_writes_what_is_anothers() -> None:
    """Whoever looks for what changes a field finds it in one file."""
    found: list[str] = []
    for path in sorted(ROOT.rglob("*.py")):
        found += trespasses(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    assert found == []


@pytest.mark.parametrize("record", WRITERS, ids=lambda record: record.__name__)
def test_each_field_has_one_writer_who_does_write_it(record: type) -> None:
    """A field that is new, or gone, or belongs to two is noticed here."""
    rooms = WRITERS[record]
    named = [name for fields in rooms.values() for name in fields]
    assert sorted(named) == sorted(set(named))
    assert set(named) <= slots(record)
    for room, fields in rooms.items():
        written = {name for _, name, _ in writes((ROOT / room).read_text("utf-8"))}
        assert fields <= written, room


@pytest.mark.parametrize(
    "source",
    [
        "task.ending.result = 1",
        "task.record, other = after, 1",
        "follow_ups.sending += 1",
        "cancelling.refusals: int = 1",
        "del task.create",
        "task.create = Create(request)",
        "with lock:\n    task.block.phase = LEFT",
    ],
)
def test_a_trespass_is_found(source: str) -> None:
    """Negative control: each way to write a field is seen."""
    assert len(trespasses("recovery/tally.py", source)) == 1
    assert len(trespasses("ground/roster.py", source)) == (
        "record" not in source and "result" not in source
    )


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_task_that_just_runs_has_none_of_them() -> None:
    """There may be 100,000: a record is made when there is something to note, and not before."""
    lab = Lab()
    async with lab.open() as supervisor:
        entry = (await supervisor.start("m"))._entry
        names = ["create", "block", "follow_ups", "ending", "cancelling", "audience"]
        assert [name for name in names if getattr(entry, name) is not None] == []
        async with supervisor.task("m") as task:
            await task.send("more")
            entry = task._entry
        assert [name for name in names if getattr(entry, name) is None] == [
            "create",
            "cancelling",
            "audience",
        ]
