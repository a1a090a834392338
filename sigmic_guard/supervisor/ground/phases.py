"""What is noted of a task for one phase of its life, in small records beside its entry.

There may be 100,000 entries, most of which are in none of these phases: a record is made when its
phase begins. Each is written in one place alone, which its docstring names.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

if TYPE_CHECKING:
    from weakref import ReferenceType

    from sigmic_guard.errors import ApiError, SigmicGuardError
    from sigmic_guard.lifecycle import CancelReason, CancelResult
    from sigmic_guard.sigmic.models import CreateRequest
    from sigmic_guard.supervisor.ground.lag import End
    from sigmic_guard.supervisor.ground.timer import Alarm


class Create:
    """A task's create, until its id is known; written by the creator, let go by the roster."""

    __slots__ = ("admitted", "failure", "posted_at", "request")

    def __init__(self, request: CreateRequest) -> None:
        #: What it is to send; let go once it is sent, for it holds secrets.
        self.request: CreateRequest | None = request
        #: Whether it has one of the places that ``max_tasks`` allows; written by ``Capacity``.
        self.admitted = False
        #: When its POST was about to be sent, on anyio's clock.
        self.posted_at: float | None = None
        #: Why it failed, or may have.
        self.failure: SigmicGuardError | None = None


class BlockPhase(Enum):
    """How far a block is."""

    #: Its body runs, and can be cancelled.
    BODY = auto()
    #: The body is over, and the task is being ended, waited for or let go.
    LEAVING = auto()
    #: It is over: no follow-up comes from it any more.
    LEFT = auto()


class Interruptible(Protocol):
    """A block around a body."""

    @property
    def is_hosted_here(self) -> bool:
        """Whether the running asyncio or trio task is the one that entered it."""

    def interrupt(self) -> None:
        """Cancel the body."""

    def leave_behind(self, error: BaseException | None) -> bool:
        """Leave its scope where its code was left behind; whether that accounts for ``error``."""


class Block:
    """The block that owns a task, and the groups that do; written by them, through its methods."""

    __slots__ = ("_block", "_claims", "interruption", "phase")

    def __init__(self, block: Interruptible | None) -> None:
        #: Only its caller keeps it alive: a scope leads to the task that entered it, and from there
        #: to the body's frames.
        self._block = None if block is None else ref(block)
        self.phase = BlockPhase.LEFT if block is None else BlockPhase.BODY
        #: Why the body was cancelled by us, if it was: the first cause.
        self.interruption: CancelReason | None = None
        #: The groups that own the task beside the block: the last owner to leave ends it. A group
        #: that nobody holds any more will not.
        self._claims: tuple[ReferenceType[object], ...] = ()

    @property
    def alive(self) -> Interruptible | None:
        """The block itself, if its body is not over and it was not left behind for good."""
        return None if self._block is None else self._block()

    @property
    def claimed(self) -> bool:
        """Whether a group owns the task too."""
        return any(claim() is not None for claim in self._claims)

    def claim(self, group: object) -> bool:
        """Note that a group owns the task too; ``False`` if it did before."""
        if any(claim() is group for claim in self._claims):
            return False
        self._claims = (*self._claims, ref(group))
        return True

    def unclaim(self, group: object) -> bool:
        """Note that it does so no more; ``False`` if it did not before."""
        before = self._claims
        self._claims = tuple(claim for claim in before if claim() is not group)
        return len(self._claims) < len(before)

    def interrupt(self, reason: CancelReason) -> None:
        """Cancel the body, if it runs."""
        block = self.alive
        if block is not None and self.interruption is None:
            self.interruption = reason
            block.interrupt()

    def note_interruption(self, reason: CancelReason) -> None:
        """Let who waits for the task learn this reason, if there was none, body or not."""
        self.interrupt(reason)
        self.interruption = self.interruption or reason

    def body_over(self) -> None:
        """Cancel nothing any more."""
        self._block, self.phase = None, BlockPhase.LEAVING

    def leave(self) -> None:
        """Take no follow-up any more."""
        self._block, self.phase = None, BlockPhase.LEFT


class FollowUps:
    """The messages that a task was sent after its create; written by ``CallerRequests``."""

    __slots__ = ("generation", "sending")

    def __init__(self) -> None:
        #: How many are under way.
        self.sending = 0
        #: Grows as each begins and ends: what was read before says nothing after it.
        self.generation = 0


class Ending:
    """What is known of a task's end, once it is wanted or was seen.

    Written by the roster, and as to what was read of it, by ``Readings``.
    """

    __slots__ = ("answer", "ended_at", "error", "last_end", "result", "wanted_at")

    def __init__(self) -> None:
        #: When it was wanted first, on anyio's clock.
        self.wanted_at: float | None = None
        #: What came of bringing it about.
        self.result: CancelResult | None = None
        #: When it came, on anyio's clock.
        self.ended_at: float | None = None
        #: The agent's final response.
        self.answer: str | None = None
        #: The API's error.
        self.error: Any = None
        #: How the last turn ended, of a task that may be asked again.
        self.last_end: End | None = None


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
