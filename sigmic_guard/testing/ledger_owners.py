"""The part of the ledgers' conformance suite that is about owners: their lives, and their heirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import Refusal, Write
from sigmic_guard.lifecycle import CancelReason, Event, State, TakeOver, step
from sigmic_guard.testing.ledger_handles import ids, opened, write
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from sigmic_guard.testing.ledger_handles import LedgerFactory

YEAR: Final = 365 * 86_400.0


class OwnerTests:
    """What a ledger has to say of owners, and what ``upkeep`` does and does not do."""

    # --- alive or dead ------------------------------------------------------------------------

    async def test_open_announces_the_owner(self, ledger_factory: LedgerFactory) -> None:
        """An owner is alive for every handle, its own included, from open to aclose."""
        async with opened(ledger_factory) as ledger:
            assert await ledger.owner_alive("owner-1")
            assert not await ledger.owner_alive("owner-2")
            async with opened(ledger_factory, "owner-2") as other:
                assert await ledger.owner_alive("owner-2")
                assert await other.owner_alive("owner-1")
            assert not await ledger.owner_alive("owner-2")
            assert await ledger.owner_alive("owner-1")

    async def test_nobody_is_not_alive(self, ledger_factory: LedgerFactory) -> None:
        """An owner that was never announced is dead, whatever its rows say."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record(owner_id="owner-9"), 0)
            for nobody in "owner-9", "", "../owner-1", "owner-1 ":
                assert not await ledger.owner_alive(nobody)

    async def test_a_task_that_was_taken_over_is_out_of_reach(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """After a take-over the old owner's next write is a conflict, and the heir's is not."""
        async with opened(ledger_factory) as old, opened(ledger_factory, "owner-2") as heir:
            running = make_record(state=State.RUNNING, remote_id="r1", key="k")
            await write(old, running, 0)
            taken = step(running, Event.TAKE_OVER, 9.0, heir=TakeOver("owner-2", 5.0))
            assert await write(heir, taken, running.version) is None
            late = step(running, Event.FAIL, 10.0)
            assert await write(old, late, running.version) is Refusal.CONFLICT
            assert await ids(old, owner_id="owner-1") == []
            assert list(await old.unfinished(owner_id="owner-2")) == [taken]
            assert await old.holder("default", "k") == taken
            ending = step(taken, Event.CANCEL, 11.0, reason=CancelReason.ORPHAN)
            assert await write(heir, ending, taken.version) is None
            assert await old.get("intent-1") == ending

    # --- upkeep -------------------------------------------------------------------------------

    async def test_upkeep_neither_kills_nor_wakes(self, ledger_factory: LedgerFactory) -> None:
        """Upkeep makes no dead owner live and no idle one dead, however late it comes."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "idle") as idle:
            async with opened(ledger_factory, "owner-3") as gone:
                await gone.upkeep(YEAR)
                await write(gone, make_record("a", owner_id="owner-3"), 0)
            await write(ledger, make_record("b", owner_id="owner-9"), 0)
            for now in YEAR + 1, 2 * YEAR, 20 * YEAR:
                await ledger.upkeep(now)
                for handle in ledger, idle:
                    assert await handle.owner_alive("owner-1")
                    assert await handle.owner_alive("idle")
                    assert not await handle.owner_alive("owner-3")
                    assert not await handle.owner_alive("owner-9")

    async def test_upkeep_takes_no_unfinished_row(self, ledger_factory: LedgerFactory) -> None:
        """Upkeep leaves every unfinished row, its key and its owner, after decades too."""
        live = [State.INTENT, State.CREATING, State.UNKNOWN, State.RUNNING, State.CANCELLING]
        rows = [
            make_record(f"{owner}-{state}", owner_id=owner, state=state, created_at=1.0)
            for owner in ("owner-1", "owner-2", "dead")
            for state in (
                *live,
                State.TAKEN_OVER,
                State.UNCONFIRMED,
                State.COMPLETED,
                State.HANDED_OVER,
            )
        ]
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            await ledger.commit([Write(row, 0) for row in rows])
            keyed = make_record("keyed", owner_id="dead", key="k", created_at=1.0)
            await write(ledger, keyed, 0)
            for handle in ledger, other:
                await handle.upkeep(50 * YEAR)
                left = {row.intent_id: row for row in await handle.unfinished()}
                assert left == {row.intent_id: row for row in (*rows, keyed)}
                assert await handle.holder("default", "k") == keyed
                assert sorted(await handle.owners()) == ["dead", "owner-1", "owner-2"]

    # --- signs of life ------------------------------------------------------------------------

    async def test_upkeep_is_a_sign_of_life(self, ledger_factory: LedgerFactory) -> None:
        """An owner was last seen when it last called upkeep, as every handle can tell."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            assert await other.last_seen("owner-1") is None
            for now in 1000.25, 1060.5, 1_769_442_654.75:
                await ledger.upkeep(now)
                for handle in ledger, other:
                    assert await handle.last_seen("owner-1") == now
            assert await ledger.last_seen("owner-2") is None

    async def test_a_sign_of_life_is_ones_own(self, ledger_factory: LedgerFactory) -> None:
        """Upkeep by others changes nothing about when an owner was last seen, with rows or not."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            await ledger.upkeep(1000.0)
            await other.upkeep(1060.0)
            assert await other.last_seen("owner-1") == 1000.0
            assert await ledger.last_seen("owner-2") == 1060.0

    async def test_the_dead_were_last_seen_when_they_lived(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """A dead owner's last sign of life stays for as long as it has left an unfinished row."""
        async with opened(ledger_factory) as ledger:
            async with opened(ledger_factory, "owner-2") as dies:
                await write(dies, make_record(owner_id="owner-2"), 0)
                await dies.upkeep(1000.5)
            for now in 1060.0, 2000.0, YEAR:
                await ledger.upkeep(now)
                assert await ledger.last_seen("owner-2") == 1000.5
            await write(ledger, make_record(version=2, owner_id="owner-2", finished_at=1.0), 1)
            await ledger.upkeep(2 * YEAR)
            assert await ledger.last_seen("owner-2") in (None, 1000.5)

    async def test_nobody_was_never_seen(self, ledger_factory: LedgerFactory) -> None:
        """Of an owner that never called upkeep no sign of life is known, whatever its rows say."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record(owner_id="owner-9"), 0)
            await ledger.upkeep(1000.0)
            for nobody in "owner-9", "", "../owner-1", "owner-1 ":
                assert await ledger.last_seen(nobody) is None

    # --- how long an owner has been dead ------------------------------------------------------

    async def test_a_death_counts_from_when_it_was_seen(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """From the first time that anybody asked, for all handles, whatever wall clocks say."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            await write(ledger, make_record(owner_id="dead"), 0)
            assert await ledger.dead_for("dead") == 0.0
            for now in 1000.0, YEAR, 50 * YEAR, 1.0:
                await ledger.upkeep(now)
                before = 0.0
                for handle in other, ledger:
                    passed = await handle.dead_for("dead")
                    assert before <= passed < 60.0
                    before = passed

    async def test_nobody_alive_has_been_seen_dead(self, ledger_factory: LedgerFactory) -> None:
        """Who lives has been dead for no time, and asking does not begin to count."""
        async with opened(ledger_factory) as ledger:
            async with opened(ledger_factory, "owner-2") as other:
                await write(other, make_record(owner_id="owner-2"), 0)
                assert await ledger.dead_for("owner-2") == 0.0
                assert await ledger.owner_alive("owner-2")
            assert await ledger.dead_for("owner-2") == 0.0

    # --- open and closed ----------------------------------------------------------------------

    @pytest.mark.parametrize("closed", [False, True])
    async def test_only_an_open_handle_works(
        self, ledger_factory: LedgerFactory, *, closed: bool
    ) -> None:
        """Before open and after aclose every method raises LedgerError, and writes nothing."""
        ledger = ledger_factory()
        async with opened(ledger_factory, "owner-2") as other:
            if closed:
                await ledger.open("owner-1")
                await ledger.aclose()
            for call in (
                lambda: ledger.commit([Write(make_record(), 0)]),
                lambda: ledger.get("intent-1"),
                lambda: ledger.find("intent-1"),
                lambda: ledger.holder("default", "k"),
                lambda: ledger.unfinished("default"),
                ledger.unfinished,
                ledger.owners,
                lambda: ledger.absent("default", 0.0),
                lambda: ledger.owner_alive("owner-1"),
                lambda: ledger.last_seen("owner-1"),
                lambda: ledger.dead_for("owner-1"),
                lambda: ledger.upkeep(1000.0),
            ):
                with pytest.raises(LedgerError):
                    await call()
            assert await ids(other) == []
            assert await other.last_seen("owner-1") is None

    async def test_closing_again_does_nothing(self, ledger_factory: LedgerFactory) -> None:
        """A handle can be closed twice, and without having been opened."""
        async with opened(ledger_factory) as ledger:
            await ledger.aclose()
        await ledger_factory().aclose()
