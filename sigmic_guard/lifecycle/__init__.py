"""The life of a task, without I/O: states, the record and its funnel, policy, results, backoff.

Nothing in this room reads a clock, draws a random number, opens a socket or awaits.
"""

from sigmic_guard.lifecycle.backoff import Backoff
from sigmic_guard.lifecycle.orphan import (
    REAPABLE,
    WRONG_CLOCK,
    Verdict,
    claimable_for,
    judge,
    may_be_wanted,
    wants,
)
from sigmic_guard.lifecycle.policy import TaskPolicy
from sigmic_guard.lifecycle.record import (
    Reattachment,
    Record,
    TakeOver,
    contradiction,
    step,
    terms_of_orphan,
)
from sigmic_guard.lifecycle.results import CancelResult, ReapResult
from sigmic_guard.lifecycle.states import (
    CancelReason,
    Event,
    IllegalTransition,
    Outcome,
    State,
    outcome_of,
)

__all__ = [
    "REAPABLE",
    "WRONG_CLOCK",
    "Backoff",
    "CancelReason",
    "CancelResult",
    "Event",
    "IllegalTransition",
    "Outcome",
    "ReapResult",
    "Reattachment",
    "Record",
    "State",
    "TakeOver",
    "TaskPolicy",
    "Verdict",
    "claimable_for",
    "contradiction",
    "judge",
    "may_be_wanted",
    "outcome_of",
    "step",
    "terms_of_orphan",
    "wants",
]
