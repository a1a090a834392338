"""Making records and the entries of the roster."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle import Record
from sigmic_guard.supervisor.ground.durations import begin_in_the_past
from sigmic_guard.supervisor.ground.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.supervisor.ground.ground import Ground

_TIME: Final = (1 << 48) - 1


def new_intent_id(now: float) -> str:
    """Return an id that nobody else has.

    It begins with the time, in milliseconds, so that rows of one time lie together in a ledger:
    random ids cost twice as much to write. Source: RFC 9562, section 6.11, which it follows in
    spirit.
    """
    return f"{int(now * 1000) & _TIME:012x}{token_hex(10)}"


class Entries:
    """Makes them.

    :param deadline_reached: is called with a task that is late.
    """

    def __init__(self, ground: Ground, deadline_reached: Callable[[Entry], None]) -> None:
        self._ground = ground
        self._deadline_reached = deadline_reached
        ground.roster.finished.append(self._finished)

    def intend(
        self,
        policy: TaskPolicy,
        deadline: float | None,
        key: str | None,
        *,
        message_digest: str | None = None,
        orphaned_at: float | None = None,
    ) -> Record:
        """Make the record of a task that is wanted.

        :param deadline: absolute, on anyio's clock.
        """
        ground, now = self._ground, self._ground.lifetime.now()
        return Record(
            intent_id=new_intent_id(now),
            namespace=ground.settings.namespace,
            base_url=ground.api.base_url,
            credential_fingerprint=ground.api.credential_fingerprint,
            owner_id=ground.owner_id,
            policy=policy,
            created_at=now,
            deadline_at=None if deadline is None else now + deadline - ground.lifetime.moment(),
            key=key,
            message_digest=message_digest,
            orphaned_at=orphaned_at,
        )

    def enlist(self, record: Record, deadline: float | None) -> Entry:
        """Make the entry of a new record, and enter it in the roster."""
        task = Entry(self._ground.lifetime, record, deadline)
        self._ground.roster.enter(task)
        if deadline is not None:
            task.deadline_alarm = self._ground.timer.at(deadline, self._deadline_reached, task)
        return task

    def inherit(self, record: Record) -> Entry:
        """Make the entry of a dead owner's row that is ours by now."""
        task = Entry(self._ground.lifetime, record, None)
        begin_in_the_past(task, record)
        return task

    def _finished(self, task: Entry) -> None:
        self._ground.timer.forget(task.deadline_alarm)
        task.deadline_alarm = None
