"""Whether another row shows that somebody wants a task: every case, against the rules in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import msgspec
import pytest

from sigmic_guard.lifecycle import CancelReason, Record, State, TaskPolicy, wants
from sigmic_guard.testing.records import make_record

Wants = Callable[..., bool]
but = msgspec.structs.replace

BOTH = (False, True)


def about_to_be_ended() -> Iterator[Record]:
    """What somebody looks at who is about to end it: left, taken over, decided on, or both."""
    for orphan, reason in product((None, 5.0), (None, CancelReason.SHUTDOWN)):
        yield make_record(
            state=State.RUNNING if reason is None else State.CANCELLING,
            remote_id="r1",
            orphaned_at=orphan,
            reason=reason,
        )


def others() -> Iterator[Record]:
    """Rows of the same task, and of others."""
    for orphan, reason, kept, key, handed_over, finished in product(
        (None, 6.0), (None, CancelReason.USER), BOTH, (None, "k"), BOTH, BOTH
    ):
        row = make_record(
            "intent-2",
            state=State.HANDED_OVER if handed_over else State.RUNNING,
            remote_id="r1",
            orphaned_at=orphan,
            reason=reason,
            key=key,
            policy=TaskPolicy(on_crash="reattach" if kept else "cancel"),
            finished_at=7.0 if finished else None,
        )
        yield row
        yield but(row, intent_id="intent-1")
        yield but(row, remote_id="r2")
        yield but(row, remote_id=None)
        yield but(row, base_url="https://other.test")
        yield but(row, credential_fingerprint="other")


def rightly(other: Record, record: Record, *, alive: bool) -> bool:
    """Whether the rules say so.

    It is another row of the same task, in the same system and with the same credential. It is under
    way, and nobody has decided to end it. Its owner lives, or somebody may ask for its key, which
    nobody can once it was taken over. Who has taken it over may be about to end it himself, so he
    counts only for a task that nobody has taken over or decided on.
    """
    same = (other.remote_id, other.base_url, other.credential_fingerprint) == (
        record.remote_id,
        record.base_url,
        record.credential_fingerprint,
    )
    taken_over = other.orphaned_at is not None
    reattach = other.policy.on_crash == "reattach" or other.state is State.HANDED_OVER
    claimable = reattach and other.key is not None and not taken_over
    settled = record.orphaned_at is not None or record.reason is not None
    return (
        same
        and other.intent_id != record.intent_id
        and other.finished_at is None
        and other.reason is None
        and (alive or claimable)
        and not (taken_over and settled)
    )


def complaints(judge: Wants) -> Iterator[str]:
    """Sweep every case; yield where the answer is not the one of the rules."""
    for record, other, alive in product(about_to_be_ended(), others(), BOTH):
        if judge(other, record, alive=alive) is not rightly(other, record, alive=alive):
            yield f"{other}, {alive=}, for {record}"


def test_every_case_is_told_by_the_rules() -> None:
    """All rows, about to be ended or not, and owners alive or dead."""
    assert list(complaints(wants)) == []


def test_two_that_are_about_to_end_a_task_do_not_spare_it_for_each_others_sake() -> None:
    """Whichever of them asks, and whoever of them lives."""
    ending = [one for one in about_to_be_ended() if one.orphan or one.reason]
    for one, other in product(ending, ending):
        another = but(other, intent_id="intent-2")
        assert not (wants(another, one, alive=True) and wants(one, another, alive=True))


@pytest.mark.parametrize(
    "field, value",
    [
        ("intent_id", "intent-2"),
        ("remote_id", "r1"),
        ("base_url", "https://sigmic.test"),
        ("credential_fingerprint", "fake"),
        ("finished_at", None),
        ("reason", None),
        ("orphaned_at", None),
    ],
)
def test_who_does_not_look_at_a_field_is_found(field: str, value: Any) -> None:
    """Negative control: each field of the other row makes a difference."""

    def blind(other: Record, record: Record, *, alive: bool) -> bool:
        return wants(but(other, **{field: value}), record, alive=alive)

    assert any(complaints(blind))


@pytest.mark.parametrize("changes", [{"orphaned_at": None}, {"reason": None}])
def test_who_does_not_see_that_it_is_to_end_is_found(changes: dict[str, Any]) -> None:
    """Negative control: what was taken over, and what was decided on, is spared for less."""

    def blind(other: Record, record: Record, *, alive: bool) -> bool:
        return wants(other, but(record, **changes), alive=alive)

    assert any(complaints(blind))


@pytest.mark.parametrize("alive", BOTH)
def test_who_guesses_whether_its_owner_lives_is_found(alive: bool) -> None:
    """Negative control: neither the dead nor the living are all alike."""
    assert any(complaints(lambda other, record, **_: wants(other, record, alive=alive)))
