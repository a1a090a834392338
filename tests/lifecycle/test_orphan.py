"""What becomes of a dead owner's task: every case, against the rules in words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from sigmic_guard.lifecycle import (
    CancelReason,
    Record,
    State,
    TaskPolicy,
    Verdict,
    claimable_for,
    judge,
)
from sigmic_guard.lifecycle.states import ENDED, OPEN
from sigmic_guard.testing.records import make_record

Judge = Callable[..., Verdict]
but = msgspec.structs.replace

URL, CREDENTIAL = "https://sigmic.test", "fake"
DIED, WITHIN = 1000.0, 30.0
CREATED = 100.0
#: Of tasks that were given so many seconds.
DEADLINES = [None, CREATED + 10, CREATED + 30, CREATED + 50]
#: Seconds since the owner's death was seen.
PASSED = [0.0, 9.5, 10.0, 29.5, 30.0, 49.5, 50.0, 5000.0]
#: By which a wall clock may be wrong.
HOUR = 3600.0
WRONG = [-2 * HOUR, -HOUR, 0.0, 2 * HOUR - 0.5, 2 * HOUR + WITHIN, 3 * HOUR]
NOT_TO_END = {State.RUNNING, State.HANDED_OVER}
TO_END = {State.CANCELLING, State.UNCONFIRMED}


def records() -> list[Record]:
    """Every unfinished record that there can be, as far as its orphan's fate depends on it."""
    found = []
    for state, reason, on_crash, key, deadline_at in itertools.product(
        State, [None, *CancelReason], ("cancel", "reattach", "abandon"), (None, "k"), DEADLINES
    ):
        if state in ENDED - OPEN:
            continue  # finished: nobody's orphan
        if (state in NOT_TO_END and reason is not None) or (state in TO_END and reason is None):
            continue  # there is no such record: tests/lifecycle/test_properties.py
        found.append(
            make_record(
                state=state,
                reason=reason,
                policy=TaskPolicy().but(on_crash=on_crash, reattach_within=WITHIN),
                key=key,
                deadline_at=deadline_at,
                created_at=CREATED,
                base_url=URL,
                credential_fingerprint=CREDENTIAL,
            )
        )
    return found


RECORDS = records()


def rightly(
    verdict: Verdict,
    record: Record,
    url: str,
    credential: str,
    passed: float,
    wrong: float,
    wanted: bool,
) -> bool:
    """Whether the rules allow the verdict, each for itself: they exclude each other, and all fit.

    What somebody else wants is released instead of reaped. A decision to cancel is never taken back
    otherwise. What had completed may have been asked again, so it is
    judged like what runs. ``reattach`` rows are left for who asks for the key, and so is what an
    orderly deploy left, which is no crash. A row made with another credential is left and reported.
    ``reattach_within`` bounds how long an unclaimed one may run, and so does the time-out that it
    was given. No two clocks that are wrong by an hour each cut that short, and none makes it last
    for ever.
    """
    ours = record.base_url == url and record.credential_fingerprint == credential
    to_end = record.reason is not None
    crash = record.policy.on_crash
    abandoned = crash == "abandon" and record.state is not State.HANDED_OVER
    allowed = WITHIN if record.deadline_at is None else min(WITHIN, record.deadline_at - CREATED)
    late = passed >= allowed or wrong + passed >= allowed + 2 * HOUR
    handed_over = record.state is State.HANDED_OVER
    claimable = (crash == "reattach" or handed_over) and record.key is not None and not late
    to_reap = to_end or (not abandoned and not claimable)
    return {
        Verdict.OTHER_SYSTEM: record.base_url != url,
        Verdict.OTHER_CREDENTIAL: (
            record.base_url == url and record.credential_fingerprint != credential
        ),
        Verdict.RELEASE: ours and ((not to_end and abandoned) or (to_reap and wanted)),
        Verdict.WAIT: ours and not to_end and claimable,
        Verdict.REAP: ours and to_reap and not wanted,
    }[verdict]


def complaints(judges: Judge) -> Iterator[str]:
    """Sweep every case; yield where the verdict is not the one that the rules allow."""
    for record, url, credential, passed, wrong, wanted in itertools.product(
        RECORDS, (URL, "https://other.test"), (CREDENTIAL, "other"), PASSED, WRONG, (False, True)
    ):
        verdict = judges(
            record,
            base_url=url,
            credential_fingerprint=credential,
            orphaned_at=DIED,
            dead_for=passed,
            now=DIED + passed + wrong,
            wanted=wanted,
        )
        if not rightly(verdict, record, url, credential, passed, wrong, wanted):
            yield f"{verdict} for {record} of {url}, {credential} at {passed}, {wrong}, {wanted}"


def test_every_case_is_judged_by_the_rules() -> None:
    """All states, reasons, policies, keys, deadlines, systems, credentials and times."""
    assert list(complaints(judge)) == []


@pytest.mark.slow
def test_the_rules_leave_one_verdict_for_every_case() -> None:
    """The rules as they stand here allow exactly one verdict, and need each of them."""
    needed = set()
    for record, url, credential, passed, wrong, wanted in itertools.product(
        RECORDS, (URL, "https://other.test"), (CREDENTIAL, "other"), PASSED, WRONG, (False, True)
    ):
        rules = record, url, credential, passed, wrong, wanted
        [verdict] = [it for it in Verdict if rightly(it, *rules)]
        needed.add(verdict)
    assert needed == set(Verdict)


def test_a_key_can_be_claimed_until_the_bound_or_the_deadline() -> None:
    """Whichever is shorter, counted from when the death was seen, whatever wall clocks say."""
    record = make_record(policy=TaskPolicy(reattach_within=WITHIN), created_at=CREATED)
    for wrong in (-2 * HOUR, -HOUR, 0.0, HOUR, 2 * HOUR - 5):
        left = [
            claimable_for(but(record, deadline_at=it), DIED, 5.0, DIED + 5 + wrong)
            for it in DEADLINES
        ]
        assert left == [25.0, 5.0, 25.0, 25.0]


def test_repeated_restarts_do_not_keep_a_task_for_ever() -> None:
    """Who sees the death for the first time hours after it waits no more."""
    record = make_record(policy=TaskPolicy(reattach_within=WITHIN), created_at=CREATED)
    assert claimable_for(record, DIED, 0.0, DIED + 2 * HOUR + WITHIN) == 0.0


def test_the_time_out_counts_and_not_two_clocks() -> None:
    """Who claimed a task wrote its deadline, and somebody else when it was created."""
    for wrong in (-HOUR, 0.0, HOUR):
        terms = TaskPolicy(reattach_within=WITHIN, timeout=20)
        deadline_at = CREATED + 20 + wrong
        record = make_record(policy=terms, created_at=CREATED, deadline_at=deadline_at)
        assert claimable_for(record, DIED, 5.0, DIED) == 15.0
        record = but(record, policy=TaskPolicy(reattach_within=WITHIN))
        assert claimable_for(record, DIED, 5.0, DIED) == (15.0 if wrong == 0 else 25.0)


def test_what_a_reaper_took_over_is_not_waited_for_again() -> None:
    """Its time was over when it was taken over, however young the reaper's own death is."""
    terms = TaskPolicy(on_crash="reattach")
    record = make_record(key="k", policy=terms, base_url=URL, credential_fingerprint=CREDENTIAL)
    verdicts = [
        judge(
            but(record, orphaned_at=at),
            base_url=URL,
            credential_fingerprint=CREDENTIAL,
            orphaned_at=DIED,
            dead_for=0.0,
            now=DIED,
        )
        for at in (None, DIED)
    ]
    assert verdicts == [Verdict.WAIT, Verdict.REAP]


def test_who_waited_is_reaped_and_nothing_else_comes_of_it() -> None:
    """As time goes on the only verdict that changes is WAIT, and it changes to REAP."""
    for record in RECORDS:
        verdicts = [
            judge(
                record,
                base_url=URL,
                credential_fingerprint=CREDENTIAL,
                orphaned_at=DIED,
                dead_for=passed,
                now=DIED + passed,
            )
            for passed in PASSED
        ]
        changes = {pair for pair in itertools.pairwise(verdicts) if pair[0] is not pair[1]}
        assert changes <= {(Verdict.WAIT, Verdict.REAP)}


# --- negative controls --------------------------------------------------------------------------


def reaps_other_credentials(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"credential_fingerprint": record.credential_fingerprint})


def reaps_other_systems(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"base_url": record.base_url})


def never_reaps_a_reattach_row(record: Record, **case: Any) -> Verdict:
    return judge(but(record, deadline_at=None), **case | {"now": DIED, "dead_for": 0.0})


def waits_beyond_the_deadline(record: Record, **case: Any) -> Verdict:
    return judge(but(record, deadline_at=None), **case)


def waits_beyond_the_bound(record: Record, **case: Any) -> Verdict:
    return judge(but(record, policy=record.policy.but(reattach_within=1e6)), **case)


def waits_an_instant_too_long(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"dead_for": case["dead_for"] - 0.25})


def does_not_wait(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"dead_for": 1e9})


def believes_another_clock(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"dead_for": case["now"] - case["orphaned_at"]})


def waits_for_ever_anew(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"orphaned_at": case["now"]})


def waits_without_a_key(record: Record, **case: Any) -> Verdict:
    return judge(but(record, key="k"), **case)


def ignores_the_key(record: Record, **case: Any) -> Verdict:
    return judge(but(record, key=None), **case)


def takes_the_cancel_back(record: Record, **case: Any) -> Verdict:
    return judge(but(record, reason=None), **case)


def obeys_only_deadlines(record: Record, **case: Any) -> Verdict:
    kept = record.reason if record.reason is CancelReason.DEADLINE else None
    return judge(but(record, reason=kept), **case)


def believes_completed(record: Record, **case: Any) -> Verdict:
    over = record.state is State.COMPLETED
    return judge(but(record, reason=CancelReason.ORPHAN) if over else record, **case)


def abandons_nothing(record: Record, **case: Any) -> Verdict:
    verdict = judge(record, **case)
    return Verdict.REAP if verdict is Verdict.RELEASE else verdict


def abandons_what_can_be_claimed(record: Record, **case: Any) -> Verdict:
    verdict = judge(record, **case)
    return Verdict.RELEASE if verdict is Verdict.WAIT else verdict


def takes_a_deploy_for_a_crash(record: Record, **case: Any) -> Verdict:
    handed_over = record.state is State.HANDED_OVER
    return judge(but(record, state=State.RUNNING) if handed_over else record, **case)


def keeps_what_was_handed_over_for_ever(record: Record, **case: Any) -> Verdict:
    handed_over = record.state is State.HANDED_OVER and record.key is not None
    return judge(record, **case | ({"dead_for": 0.0, "now": DIED} if handed_over else {}))


def spares_nothing(record: Record, **case: Any) -> Verdict:
    return judge(record, **case | {"wanted": False})


def spares_what_waits(record: Record, **case: Any) -> Verdict:
    verdict = judge(record, **case)
    return Verdict.RELEASE if verdict is Verdict.WAIT and case["wanted"] else verdict


def reaps_only_what_has_a_name(record: Record, **case: Any) -> Verdict:
    verdict = judge(record, **case)
    nameless = record.state in {State.INTENT, State.CREATING, State.UNKNOWN}
    return Verdict.RELEASE if nameless and verdict is Verdict.REAP else verdict


@pytest.mark.parametrize(
    "judges",
    [
        reaps_other_credentials,
        reaps_other_systems,
        never_reaps_a_reattach_row,
        waits_beyond_the_deadline,
        waits_beyond_the_bound,
        waits_an_instant_too_long,
        does_not_wait,
        believes_another_clock,
        waits_for_ever_anew,
        waits_without_a_key,
        ignores_the_key,
        takes_the_cancel_back,
        obeys_only_deadlines,
        believes_completed,
        abandons_nothing,
        abandons_what_can_be_claimed,
        takes_a_deploy_for_a_crash,
        keeps_what_was_handed_over_for_ever,
        spares_nothing,
        spares_what_waits,
        reaps_only_what_has_a_name,
    ],
)
def test_a_judge_that_breaks_a_rule_is_found(judges: Judge) -> None:
    """Negative control: each wrong judge is found by the sweep."""
    assert any(complaints(judges))
