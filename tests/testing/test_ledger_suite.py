"""The conformance suite is content with a good ledger, and finds each way to break one."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import msgspec
import pytest

from sigmic_guard.ledger import Ledger, MemoryLedger, MemoryStore
from sigmic_guard.lifecycle import Record
from sigmic_guard.testing.ledger_suite import LedgerSuite
from sigmic_guard.testing.records import FULL_RECORD
from tests.testing import broken_ledgers as broken

SUITE = dict(inspect.getmembers(LedgerSuite(), inspect.iscoroutinefunction))

# What each broken ledger has to fail at least: the test that is about what it breaks.
FOUND_BY: list[tuple[Callable[[MemoryStore], Ledger], str]] = [
    (broken.IgnoresExpected, "test_a_conflict_leaves_the_row"),
    (broken.IgnoresExpected, "test_a_task_that_was_taken_over_is_out_of_reach"),
    (broken.LosesTheTail, "test_a_batch_may_be_large"),
    (broken.StopsAtARefusal, "test_a_refusal_hinders_no_other"),
    (broken.IgnoresKeys, "test_a_key_has_one_unfinished_row"),
    (broken.KeepsKeys, "test_a_key_is_free_after_its_row_finished"),
    (broken.MixesNamespaces, "test_a_namespace_has_its_own_rows"),
    (broken.OnlyItsOwn, "test_a_namespace_has_its_own_rows"),
    (broken.ForgetsAField, "test_every_field_survives"),
    (broken.EverybodyLives, "test_nobody_is_not_alive"),
    (broken.NobodyLives, "test_open_announces_the_owner"),
    (broken.StaysOpen, "test_only_an_open_handle_works"),
    (broken.Alone, "test_handles_see_each_others_rows"),
    (broken.KnowsNoRepeat, "test_a_repeated_write_changes_nothing"),
    (broken.RepeatsByVersion, "test_only_the_same_is_a_repeat"),
    (broken.RepeatsThePast, "test_a_repeat_that_comes_too_late_is_a_conflict"),
    (broken.FreesTheKeyAgain, "test_a_repeated_end_ends_nothing_else"),
    (broken.FindsNoRemoteId, "test_a_row_is_found_by_either_id"),
    (broken.FindsTheFirst, "test_all_rows_with_an_id_are_found"),
    (broken.FindsParts, "test_only_whole_ids_are_found"),
    (broken.FindsWhatWas, "test_a_finished_row_is_found_or_forgotten"),
    (broken.HolderOfAnyNamespace, "test_keys_are_data"),
    (broken.HolderStaysAsItWas, "test_the_holder_of_a_key_is_its_unfinished_row"),
    (broken.HolderMayHaveFinished, "test_a_finished_row_holds_no_key"),
    (broken.UnfinishedOfAnyTask, "test_unfinished_rows_are_chosen_by_the_remote_task"),
    (broken.UnfinishedOfAnybody, "test_unfinished_rows_are_chosen_by_namespace_and_owner"),
    (broken.ForgetsOwners, "test_the_owners_are_those_of_unfinished_rows"),
    (broken.OwnersByRow, "test_the_owners_are_those_of_unfinished_rows"),
    (broken.OwnersOfAnyTime, "test_who_owns_nothing_any_more_is_no_owner"),
    (broken.RefusedIsAbsent, "test_only_lost_creates_are_absent"),
    (broken.FoundIsAbsent, "test_only_lost_creates_are_absent"),
    (broken.AbsentAfter, "test_a_proven_absence_is_told"),
    (broken.ForgetsAbsences, "test_an_absence_outlives_the_next_upkeep"),
    (broken.WakesTheDead, "test_upkeep_neither_kills_nor_wakes"),
    (broken.KillsTheIdle, "test_upkeep_neither_kills_nor_wakes"),
    (broken.PrunesByAge, "test_upkeep_takes_no_unfinished_row"),
    (broken.BuriesTheDead, "test_upkeep_takes_no_unfinished_row"),
    (broken.NeverSaw, "test_upkeep_is_a_sign_of_life"),
    (broken.SeesAllAtOnce, "test_a_sign_of_life_is_ones_own"),
    (broken.DeadSinceItsSign, "test_a_death_counts_from_when_it_was_seen"),
    (broken.SeesTheLivingDead, "test_nobody_alive_has_been_seen_dead"),
    (broken.ForgetsTheDead, "test_the_dead_were_last_seen_when_they_lived"),
    (broken.SawEverybody, "test_nobody_was_never_seen"),
]


async def fails(kind: Callable[[MemoryStore], Ledger], name: str) -> bool:
    """Run one test of the suite by hand, each of its cases on a store of its own."""
    cases: list[dict[str, object]] = [{}]
    for mark in getattr(SUITE[name], "pytestmark", []):
        if mark.name == "parametrize":
            cases = [{mark.args[0]: value} for value in mark.args[1]]
    for case in cases:
        store = MemoryStore()
        try:
            await SUITE[name](lambda store=store: kind(store), **case)
        except (AssertionError, pytest.fail.Exception):
            return True
    return False


async def test_the_suite_is_content_with_the_memory_ledger() -> None:
    """The way in which these controls run the suite finds nothing by itself."""
    assert [name for name in SUITE if await fails(MemoryLedger, name)] == []


@pytest.mark.parametrize("kind, name", FOUND_BY)
async def test_the_suite_finds_a_broken_ledger(
    kind: Callable[[MemoryStore], Ledger], name: str
) -> None:
    """Each broken ledger fails at least the test that is about what it breaks."""
    assert await fails(kind, name)


def test_every_broken_ledger_is_looked_for() -> None:
    """No broken ledger is without the test that finds it."""
    kinds = {
        kind
        for _, kind in inspect.getmembers(broken, inspect.isclass)
        if kind.__module__ == broken.__name__
    }
    assert {kind for kind, _ in FOUND_BY} == kinds


def test_the_round_trip_tries_every_field() -> None:
    """A field that is new in the record has to get a value of its own in the suite's row."""
    for field in msgspec.structs.fields(Record):
        assert getattr(FULL_RECORD, field.name) != field.default, field.name
    default = type(FULL_RECORD.policy)()
    for name in default.__slots__:
        assert getattr(FULL_RECORD.policy, name) != getattr(default, name), name
