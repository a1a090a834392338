"""One task in the roster: its record, and what the rooms of the supervisor note beside it.

An entry does nothing by itself: there may be 100,000 of them. Its state is the immutable record
that the roster replaces; whoever waits for a change leaves an event here. Users hold a
:class:`~sigmic_guard.RemoteTask`, which shows what concerns them.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sigmic_guard.lifecycle import CancelReason, State
from sigmic_guard.lifecycle.states import SETTLED
from sigmic_guard.lifecycle.text import shown_id
from sigmic_guard.supervisor.ground.audience import Audience
from sigmic_guard.supervisor.ground.phases import (
    Block,
    BlockPhase,
    Cancelling,
    Create,
    Ending,
    FollowUps,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import ReferenceType

    from anyio import Event

    from sigmic_guard.lifecycle import CancelResult, Record
    from sigmic_guard.supervisor.ground.lag import End
    from sigmic_guard.supervisor.ground.lifetime import Lifetime
    from sigmic_guard.supervisor.ground.timer import Alarm


class Inheritance(NamedTuple):
    """What a task has from another owner who began it; noted by the roster as it becomes ours."""

    #: When that was, on anyio's clock.
    at: float
    #: When that owner was about to send its last follow-up, if it was.
    last_follow_up_at: float | None


class Entry:
    """A task that the supervisor watches over."""

    __slots__ = (
        "_waiters",
        "audience",
        "begun_at",
        "block",
        "cancelling",
        "create",
        "deadline",
        "deadline_alarm",
        "ending",
        "follow_ups",
        "handle",
        "inheritance",
        "lifetime",
        "prompt",
        "record",
        "seen_at",
        "written_at",
    )

    def __init__(self, lifetime: Lifetime, record: Record, deadline: float | None) -> None:
        self.lifetime = lifetime
        #: What is known of the task; replaced by the roster alone.
        self.record = record
        #: Absolute, on anyio's clock; ``None`` for none.
        self.deadline = deadline
        self.deadline_alarm: Alarm | None = None
        #: When it was taken on, on anyio's clock.
        self.begun_at = lifetime.moment()
        #: What users hold of it, as long as they do.
        self.handle: ReferenceType[Any] | None = None
        #: What somebody waits for, and what wakes him.
        self._waiters: list[tuple[Callable[[Any], bool], Event]] | None = None

        #: Its create, until its id is known.
        self.create: Create | None = None
        #: What tells the message that it was asked for with, until something has shown that the id
        #: is its own. A dead owner's create may have said something else.
        self.prompt: int | None = None
        #: What is known of it because another owner began it, if one did.
        self.inheritance: Inheritance | None = None

        #: The block that owns it, if one ever did.
        self.block: Block | None = None

        #: Who consumes its events, if anybody ever did.
        self.audience: Audience | None = None
        #: When it was last seen in the list, on anyio's clock.
        self.seen_at = 0.0
        #: When the API answered a create or a follow-up last, or may have, on anyio's clock.
        self.written_at = -inf
        #: The follow-ups that it was sent, if there were any.
        self.follow_ups: FollowUps | None = None

        #: What is known of its end, once that is wanted or was seen.
        self.ending: Ending | None = None
        #: How its end is brought about, if one DELETE did not do.
        self.cancelling: Cancelling | None = None

    def __repr__(self) -> str:
        remote_id = self.record.remote_id
        return f"<Entry {shown_id(remote_id) if remote_id else 'without id'} {self.record.state}>"

    @property
    def id(self) -> str:
        """The remote id, where it is known to be known."""
        assert self.record.remote_id is not None
        return self.record.remote_id

    @property
    def state(self) -> State:
        """What is known of the remote task now."""
        return self.record.state

    @property
    def reason(self) -> CancelReason | None:
        """Why it is to end: the first cause."""
        return self.record.reason

    @property
    def unsupervised(self) -> bool:
        """Whether the supervisor has closed: nothing will change any more."""
        return self.lifetime.closed

    @property
    def inherited_at(self) -> float | None:
        """When it was taken over, if it was a dead owner's, on anyio's clock."""
        return None if self.inheritance is None else self.inheritance.at

    @property
    def marked(self) -> bool:
        """Whether its create carries the intent id, so that the list can tell the task."""
        return self.record.message_digest is None

    @property
    def pursued(self) -> bool:
        """Whether somebody here works on bringing the task to an end, or on finding it."""
        state = self.record.state
        if state is State.UNKNOWN:  # what a dead owner left can be looked for by anybody, later
            return self.marked and not self.record.orphan
        return state not in SETTLED

    def wake(self) -> None:
        """Wake those whose condition holds now. To be called after whatever may have met one."""
        if self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                condition, woken = waiter
                if condition(self):
                    woken.set()
                elif self._waiters is None:
                    self._waiters = [waiter]
                else:
                    self._waiters.append(waiter)

    async def until(self, condition: Callable[[Self], bool]) -> None:
        """Wait until the condition holds; looked at after each change, and again before going on.

        It must be a plain function of what the supervisor knows, and raise nothing.
        """
        while not condition(self):
            waiter = condition, self.lifetime.make_event()
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)
            try:
                await waiter[1].wait()
            finally:
                if self._waiters is not None and waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def until_changed(self, version: int) -> None:
        """Wait until the record is a later one."""
        await self.until(lambda task: task.record.version > version or task.unsupervised)

    async def until_found(self) -> None:
        """Wait while it is not known which task it is."""
        await self.until(lambda task: task.record.state is not State.UNKNOWN or task.unsupervised)

    async def until_settled(self) -> None:
        """Wait until nobody here works on the task any more."""
        await self.until(lambda task: task.record.state in SETTLED or task.unsupervised)

    @property
    def listening(self) -> bool:
        """Whether somebody waits for an event at this moment."""
        return self.audience is not None and self.audience.listening > 0

    @property
    def streams(self) -> int:
        """How many iterators over the task's events are neither at their end nor closed."""
        return 0 if self.audience is None else len(self.audience.readers)

    def gather_audience(self) -> Audience:
        """Return who consumes its events, for one who is about to."""
        if self.audience is None:
            self.audience = Audience()
        return self.audience

    def hang_up(self) -> None:
        """End the streams that are being read: nothing is to be heard from this task."""
        if self.audience is not None:
            self.audience.hang_up()

    def forget_what_was_read(self) -> None:
        """Begin anew with all that was read of the task: it was about another one."""
        if self.audience is not None:
            self.audience.start_over()

    def note_write(self) -> None:
        """Note that the API has answered a create or a follow-up, or may have, just now."""
        self.written_at = self.lifetime.moment()

    @property
    def generation(self) -> int:
        """Grows with each follow-up: what was read before one says nothing after it."""
        return 0 if self.follow_ups is None else self.follow_ups.generation

    @property
    def sending(self) -> bool:
        """Whether a follow-up is under way."""
        return self.follow_ups is not None and self.follow_ups.sending > 0

    def begin_follow_up(self) -> FollowUps:
        """Return the follow-ups that it was sent, for whoever sends one."""
        if self.follow_ups is None:
            self.follow_ups = FollowUps()
        return self.follow_ups

    @property
    def retry_alarm(self) -> Alarm | None:
        """When the next DELETE is due, if one is."""
        return None if self.cancelling is None else self.cancelling.retry_alarm

    def begin_cancelling(self) -> Cancelling:
        """Return how its end is brought about, for the canceller."""
        if self.cancelling is None:
            self.cancelling = Cancelling()
        return self.cancelling

    def begin_ending(self) -> Ending:
        """Return what is known of its end, for the roster."""
        if self.ending is None:
            self.ending = Ending()
        return self.ending

    @property
    def ended_at(self) -> float | None:
        """When it came to its end, on anyio's clock."""
        return None if self.ending is None else self.ending.ended_at

    @property
    def answer(self) -> str | None:
        """The agent's final response."""
        return None if self.ending is None else self.ending.answer

    @property
    def last_end(self) -> End | None:
        """How the last turn ended, of a task that may be asked again."""
        return None if self.ending is None else self.ending.last_end

    @property
    def failure(self) -> Any:
        """The create's exception, or the API's error."""
        if self.create is not None:
            return self.create.failure
        return None if self.ending is None else self.ending.error

    @property
    def cancel_result(self) -> CancelResult | None:
        """What came of bringing about its end, once that is known."""
        return None if self.ending is None else self.ending.result

    @property
    def has_body(self) -> bool:
        """Whether a block owns it whose body is not over, as far as is known."""
        return self.block is not None and self.block.phase is BlockPhase.BODY

    @property
    def claimed(self) -> bool:
        """Whether a group owns it, beside its block or alone."""
        return self.block is not None and self.block.claimed

    def claim(self, group: object) -> bool:
        """Note that a group owns it too; ``False`` if it did before."""
        if self.block is None:
            self.block = Block(None)
        return self.block.claim(group)

    def unclaim(self, group: object) -> bool:
        """Note that it does so no more; ``False`` if it did not before."""
        return self.block is not None and self.block.unclaim(group)

    @property
    def accepts_follow_up(self) -> bool:
        """Whether a block may still send a follow-up."""
        return self.block is not None and self.block.phase is not BlockPhase.LEFT

    @property
    def interruption(self) -> CancelReason | None:
        """Why the body of its block was cancelled by us, if it was."""
        return None if self.block is None else self.block.interruption

    def interrupt(self, reason: CancelReason) -> None:
        """Cancel the body of its block, if it has one; the first interruption stays."""
        if self.block is not None:
            self.block.interrupt(reason)

    def note_interruption(self, reason: CancelReason) -> None:
        """Do the same; whoever waits for the task learns that reason, also where it has no body."""
        if self.block is None:
            self.block = Block(None)
        self.block.note_interruption(reason)
