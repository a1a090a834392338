"""Items of the list that tell no task, times that cannot be, and marks that were copied."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from anyio import current_time, fail_after, sleep

from sigmic_guard import ConnectionFailed, Outcome
from sigmic_guard.lifecycle import State
from sigmic_guard.sigmic.models import Scrap, TaskInfo, TaskPage
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.testing import LOST
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.losses import GONE, LossLab, change

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
FUTURE = "2099-01-01T00:00:00.000Z"


def scrap(**fields: object) -> Scrap:
    message = fields.get("message")
    return Scrap(json.dumps(fields).encode(), message if isinstance(message, str) else None)


def among(lab: LossLab, *scraps: Scrap) -> None:
    """Show these at the top of the list, and let them count there."""

    def bend(page: TaskPage, offset: int) -> TaskPage:
        total = None if page.total is None else page.total + len(scraps)
        return change(page, total=total, scraps=scraps if offset == 0 else ())

    lab.fake.bend = bend


@pytest.mark.parametrize(
    "odd",
    [
        scrap(status="running", message="another", env={"X": "1"}),
        scrap(status="running", env=None),
        scrap(id=7, status="running"),
        scrap(status="completed", env={MARKER: "another's"}),
        scrap(status="completed", env="text"),
    ],
)
async def test_what_is_evidently_anothers_blocks_no_proof(odd: Scrap) -> None:
    """An object without an id, and without our mark, is somebody else's task."""
    lab = LossLab()
    among(lab, odd)
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=10) as supervisor:
        with pytest.raises(ConnectionFailed), fail_after(40):
            await supervisor.start("m")
        assert not supervisor.snapshot()


@pytest.mark.parametrize("raw", [b"null", b"7", b'"x"', b"[]", b"{}", b""])
async def test_what_tells_nothing_may_be_anybody(raw: bytes) -> None:
    """It blocks the proof for as long as it is there."""
    lab = LossLab()
    among(lab, Scrap(raw))
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=10) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        await sleep(100)
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        among(lab)
        await sleep(60)
        assert not supervisor.snapshot()


@pytest.mark.parametrize("shape", ["object", "pairs", "text"])
async def test_our_mark_without_an_id_is_no_absence(shape: str) -> None:
    """In whatever form ``env`` comes back."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    shown: list[Scrap] = []

    def bend(page: TaskPage, _: int) -> TaskPage:
        intent_id = lab.fake.sent[0].env[MARKER]
        env: object = {MARKER: intent_id}
        if shape == "pairs":
            env = [{"name": MARKER, "value": intent_id}]
        elif shape == "text":
            env = f"{MARKER}={intent_id}"
        shown[:] = [scrap(status="running", env=env)]
        return change(page, total=(page.total or 0) + 1, scraps=tuple(shown))

    lab.fake.bend = bend
    async with lab.open(create_timeout=10) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        await sleep(100)
        assert shown
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]


async def test_scraps_count_in_the_paging() -> None:
    """A page with items that tell no task takes as many places as it had items."""
    lab = LossLab()
    rows = [
        TaskInfo(id=f"t{n}", status="completed", last_activity_at="2026-01-26T15:50:54.870Z")
        for n in range(250)
    ]
    asked: list[int] = []

    async def pages(*, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        asked.append(offset)
        some = rows[offset : offset + limit]
        odd = tuple(scrap(status="x", message=it.id) for it in some[::5])
        told = [it for at, it in enumerate(some) if at % 5]
        return TaskPage(told, len(rows), offset + limit < len(rows), odd)

    lab.fake.list = pages  # type: ignore[method-assign]
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=10) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        assert not supervisor.snapshot()
    assert set(asked) <= {0, 100, 200}


# --- times in the future --------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["one", "thirty", "all"])
async def test_times_in_the_far_future_hide_no_change(which: str) -> None:
    """An end behind the first page is seen within seconds."""
    lab = LossLab()
    crowd = [lab.fake.add("other") for _ in range(300)]
    few = {"one": crowd[-1:], "thirty": crowd[-30:], "all": crowd}[which]

    def bend(page: TaskPage, _: int) -> TaskPage:
        tasks = [
            change(it, last_activity_at=FUTURE) if which == "all" or it.id in few else it
            for it in page.tasks
        ]
        return change(page, tasks=tasks)

    lab.fake.bend = bend
    async with lab.open(left=300) as supervisor:
        tasks = [await supervisor.start("m") for _ in range(150)]
        await sleep(30)
        # All of them change at once: some of the ends are behind the first page.
        for task in tasks:
            lab.fake.complete(task.id)
        with fail_after(10):
            for task in tasks:
                await task.wait()


async def test_a_time_in_the_near_future_hides_no_change() -> None:
    """A few tasks that seem ahead by an hour are no measure of how far to read."""
    lab = LossLab()
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    top = [TaskInfo(id=f"t{n}", status="running", last_activity_at=ahead) for n in range(40)]
    plain = lab.fake.list

    async def listing(*, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        first, second = [await plain(limit=100, offset=at, timeout=timeout) for at in (0, 100)]
        rows = [*top, *first.tasks, *second.tasks]
        more = offset + limit < len(rows)
        return TaskPage(rows[offset : offset + limit], len(rows), more)

    lab.fake.list = listing  # type: ignore[method-assign]
    async with lab.open() as supervisor:
        tasks = [await supervisor.start("m") for _ in range(120)]
        await sleep(30)
        for task in tasks:
            lab.fake.complete(task.id)
        with fail_after(10):
            for task in tasks:
                await task.wait()


# --- marks that were copied -----------------------------------------------------------------------


@pytest.mark.parametrize("after, others", [(0.05, 0), (30, 0), (1000, 0), (1000, 150)])
async def test_a_copied_mark_is_not_ours(after: float, others: int) -> None:
    """Of two tasks with our mark it is the one that was created first; the other runs on."""
    lab = LossLab()
    lab.fake.always("list", GONE)
    lab.fake.on("create", LOST)
    async with lab.open(left=1 + others) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        (ours,) = lab.fake.live
        await sleep(after)
        for _ in range(others):
            lab.fake.add("other")
        copy = lab.fake.add("a copy", **lab.fake.sent[0].env)
        lab.fake.always("list", None)
        await sleep(60)
        assert copy in lab.fake.live
        assert ours not in lab.fake.live  # nobody waited for it any more
        assert lab.deletes() == 1


async def test_the_only_one_with_the_mark_is_ours_whatever_its_age() -> None:
    """A server's clock may be ahead."""
    lab = LossLab()
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    lab.fake.bend_rows(lambda info: change(info, created_at=ahead))
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor:
        began = current_time()
        await supervisor.start("m")
        assert current_time() - began < 10
    assert lab.deletes() == 1


# --- completed, and running again -----------------------------------------------------------------


async def test_completed_that_flaps_back_stays_completed() -> None:
    """An end that was seen stands: who runs it again later is somebody else."""
    lab = LossLab(duration=2)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert (await task.wait()).outcome is Outcome.COMPLETED
        flap = lambda info: change(info, status="running", completed_at=None)  # noqa: E731
        lab.fake.bend_get = flap
        lab.fake.bend_rows(flap)
        await sleep(100)
        assert (await task.wait()).outcome is Outcome.COMPLETED
        assert not supervisor.snapshot()
    assert lab.deletes() == 0


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_long_list_that_tells_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing says when tasks were active, two whole scans are all the proof there can be."""
    lab = LossLab()
    for _ in range(150):
        lab.fake.add()
    told = lab.fake.list

    async def untimed(**options: Any) -> TaskPage:
        page = await told(**options)
        return change(page, tasks=[change(info, last_activity_at=None) for info in page.tasks])

    monkeypatch.setattr(lab.fake, "list", untimed)
    lab.fake.on("create", ConnectionFailed("reset", sent=True))
    async with lab.open(left=150, create_timeout=1) as supervisor:
        with fail_after(60), pytest.raises(ConnectionFailed):
            await supervisor.start("lost, and never created")
        with fail_after(60):
            while supervisor.snapshot():
                await sleep(1)
