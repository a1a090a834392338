"""Lists that repeat themselves, or never end."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import current_time, fail_after, sleep

from sigmic_guard import ConnectionFailed, Outcome
from sigmic_guard.lifecycle import State
from sigmic_guard.testing import LOST
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.losses import GONE
from tests.supervisor.odd_lists import EndlessRemote, OddLab

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

LONG_AGO = "2026-01-26T15:50:54.870Z"
LISTS: list[dict[str, Any]] = [
    {},
    {"repeats": True},
    {"activity": "2099-01-01T00:00:00.000Z"},
    {"activity": LONG_AGO},
    {"activity": "nonsense"},
    {"shows_ours": True},
    {"shows_ours": True, "repeats": True},
]
endless = pytest.mark.parametrize("options", LISTS, ids=repr)


@endless
async def test_an_end_is_seen_within_seconds(options: dict[str, Any]) -> None:
    """Whatever the list does, a background task's end is, and few pages are read for it."""
    lab = OddLab(EndlessRemote(latency=0.01, **options))
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(100)
        assert lab.fake.count("list") < 5 * 100
        assert lab.fake.count("get") <= 100
        lab.fake.complete(task.id)
        # Where the times lead back, a page without it says that nothing happened to it.
        with fail_after(61 if options == {"activity": LONG_AGO} else 6):
            assert (await task.wait()).outcome is Outcome.COMPLETED


@endless
async def test_a_lost_create_is_neither_absent_nor_sought_without_a_pause(
    options: dict[str, Any],
) -> None:
    """What has no end proves nothing; it is read again later, a few pages a second."""
    lab = OddLab(EndlessRemote(latency=0.01, **options))
    lab.fake.on("create", GONE)
    async with lab.open() as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        await sleep(200)
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        assert lab.fake.count("list") < 3 * 200
        began = current_time()
    assert current_time() - began < 9


@pytest.mark.parametrize("repeats", [False, True])
async def test_a_lost_create_on_the_first_page_is_found_at_once(repeats: bool) -> None:
    """Also while an earlier one is looked for that is nowhere; and at a shutdown."""
    fake = EndlessRemote(latency=0.01, repeats=repeats, shows_ours=True)
    lab = OddLab(fake)
    fake.on("create", GONE, LOST, LOST)
    async with lab.open() as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("nowhere")
        for _ in range(2):
            await sleep(7)
            began = current_time()
            await supervisor.start("m")
            # A reading that had left the first page behind is followed by another 5 s later.
            assert current_time() - began < 6
        assert len(fake.live) == 2
    assert lab.deletes() == 2


async def test_who_is_watched_is_seen_although_there_are_many() -> None:
    """Hundreds of tasks take their turns."""
    lab = OddLab(EndlessRemote(latency=0.01))
    async with lab.open() as supervisor:
        tasks = [await supervisor.start("m") for _ in range(200)]
        await sleep(60)
        for task in tasks:
            lab.fake.complete(task.id)
        with fail_after(40):
            for task in tasks:
                await task.wait()
        assert lab.fake.count("get") < 25 * (current_time() or 1) + 400


@pytest.mark.parametrize("broken", ["offset", "total"])
async def test_a_list_with_an_end_of_its_own_is_read_to_it(broken: str) -> None:
    """A ``total`` or a ``hasMore`` that is wrong alone makes no list endless."""
    lab = OddLab(EndlessRemote())
    fake = lab.fake
    fake.list = super(EndlessRemote, fake).list
    fake.bend = (
        (lambda page, _: type(page)(page.tasks, 10**9, page.has_more))
        if broken == "total"
        else (lambda page, _: type(page)(page.tasks, page.total, bool(page.tasks)))
    )
    fake.on("create", GONE)
    async with lab.open(create_timeout=10) as supervisor:
        with pytest.raises(ConnectionFailed), fail_after(40):
            await supervisor.start("m")
        assert not supervisor.snapshot()
