"""What is noted of a task for one phase of its life, in small records beside its entry.

There may be 100,000 entries, most of which are in none of these phases: a record is made when its
phase begins. Each is written in one place alone, which its docstring names.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigmic_guard.errors import ApiError
    from sigmic_guard.lifecycle import CancelResult
    from sigmic_guard.supervisor.ground.timer import Alarm


class Ending:
    """What is known of a task's end, once it is wanted; written by the roster."""

    __slots__ = ("result", "wanted_at")

    def __init__(self) -> None:
        #: When it was wanted first, on anyio's clock.
        self.wanted_at: float | None = None
        #: What came of bringing it about.
        self.result: CancelResult | None = None


class NextRequest(Enum):
    """What is sent next for a task that is to end."""

    DELETE = auto()
    #: A GET, for a DELETE was acknowledged, and that is no proof.
    GET_TO_CONFIRM = auto()
    #: A GET, for the API has said why it did not end the task, and no GET has told since how it is.
    GET_AFTER_REFUSAL = auto()


class Cancelling:
    """How a task's end is brought about, where one DELETE did not do; written by the canceller."""

    __slots__ = ("looks", "next_request", "refusal", "refusals", "retry_alarm")

    def __init__(self) -> None:
        self.next_request = NextRequest.DELETE
        #: When that is due.
        self.retry_alarm: Alarm | None = None
        #: How often a GET has shown it running since a DELETE was acknowledged.
        self.looks = 0
        #: The API's own word why it did not end the task, with ``GET_AFTER_REFUSAL``.
        self.refusal: ApiError | None = None
        #: How often the API has refused with 401 or 403 to end it, or to tell how it is.
        self.refusals = 0
