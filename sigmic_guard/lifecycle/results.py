"""What came of a cancellation, and of an orphan: the words of reports, metrics and logs."""

from __future__ import annotations

from enum import StrEnum


class CancelResult(StrEnum):
    """What came of a cancellation."""

    ACKNOWLEDGED = "acknowledged"  # DELETE was answered 2xx
    CONFIRMED = "confirmed"  # and a GET showed a terminal status
    ALREADY_FINISHED = "already_finished"  # the task had ended by itself before
    NOT_FOUND = "not_found"  # 404: gone for this credential
    UNCONFIRMED = "unconfirmed"  # no proof: the budget ran out, or we may not ask


class ReapResult(StrEnum):
    """What came of an orphan."""

    CANCELLED = "cancelled"  # it still ran, and was cancelled
    ALREADY_FINISHED = "already_finished"  # it had ended by itself
    NOT_FOUND = "not_found"  # 404: gone for this credential
    NEVER_CREATED = "never_created"  # its create had had no effect
    RELEASED = "released"  # on_crash="abandon": it may run on
    REATTACHED = "reattached"  # somebody asked for its key, and has it now
