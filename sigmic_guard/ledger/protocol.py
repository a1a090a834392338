"""What the supervisor needs of a ledger: the store of one durable row per task.

A row is a :class:`~sigmic_guard.lifecycle.Record`. There is one way to write it, and that is
:meth:`Ledger.commit`: inserting an intent, moving it on and taking over a dead owner's row are all
the same compare-and-set on the row's version. Whether an owner lives is asked of the ledger too,
and never assumed. ``sigmic_guard.testing.ledger_suite`` says in tests what is said here in words.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sigmic_guard.errors import LedgerError
from sigmic_guard.lifecycle import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class Write(NamedTuple):
    """Store ``record``, provided that the stored row still has version ``expected``.

    ``expected`` is 0 for a row that must not exist yet. Versions may be skipped: several steps of
    one record can be written as one.
    """

    record: Record
    expected: int


class Refusal(StrEnum):
    """Why one write of a batch was not done."""

    CONFLICT = "conflict"  # the stored row has another version: somebody else wrote it
    DUPLICATE_KEY = "duplicate_key"  # an unfinished row of the namespace holds the key


class CorruptRows(LedgerError):
    """Some of the rows that were asked for cannot be read here, or contradict themselves.

    :ivar corrupt: why not, by intent id.
    :ivar readable: the others that were asked for.
    """

    def __init__(self, corrupt: Mapping[str, str], readable: Sequence[Record] = ()) -> None:
        self.corrupt = corrupt
        self.readable = readable
        named = [f"{intent_id!r} ({why})" for intent_id, why in islice(corrupt.items(), _NAMED)]
        more = len(corrupt) - len(named)
        super().__init__(
            f"of the ledger's rows {', '.join(named)}{f' and {more} more' if more else ''} "
            "cannot be read, and is left alone; was it written by a newer sigmic-guard, or by "
            "hand? If by hand, see to its task, and delete the row"
        )


#: Rows that a message names.
_NAMED: Final = 3


class Ledger(Protocol):
    """The store of the rows. Every method raises :class:`~sigmic_guard.errors.LedgerError`.

    A ledger holds as many owners' rows as there are handles open on it, and those of the dead.
    """

    async def open(self, owner_id: str) -> None:
        """Make ready, and announce that this owner is alive."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        """Do all the writes in one transaction, in order; durable on return.

        Returns for each write ``None``, or why it was refused; a refused write does not hinder the
        others. After a :class:`LedgerError` none of them was done. A caller who is cancelled
        cannot know: :meth:`get` tells, and the same write may be repeated. If the stored row
        equals its record it changes nothing, and is answered ``None``; where a ledger has forgotten
        a row that finished, it may be a ``CONFLICT``.
        """

    async def get(self, intent_id: str) -> Record | None:
        """Return one row."""

    async def find(self, identifier: str) -> Sequence[Record]:
        """Return the rows, of any namespace, whose intent id or remote id it is; may take long."""

    async def holder(self, namespace: str, key: str) -> Record | None:
        """Return the unfinished row that holds the key."""

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        """Return the rows that have no ``finished_at``.

        :param namespace: default: of all.
        :param owner_id: default: whoever owns them.
        :param remote_id: default: of whatever remote task.
        :raises CorruptRows: some of them are corrupt; it has the others.
        """

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        """Return the ids of those who own unfinished rows; cheap, however many rows there are."""

    async def absent(self, namespace: str, since: float) -> Sequence[Record]:
        """Return the rows whose create's answer was lost, and whose absence was proven since.

        That is ``NEVER_CREATED`` with a ``lost_at``, finished at ``since`` or later. A task that
        appears all the same is told by them.
        """

    async def owner_alive(self, owner_id: str) -> bool:
        """Tell whether the process behind a row still lives. In doubt, it does."""

    async def last_seen(self, owner_id: str) -> float | None:
        """Return an owner's last sign of life in seconds since the epoch, if it is known.

        Says nothing about whether the owner lives. When the owner died it was at most as old as the
        pause between two calls of :meth:`upkeep`; better ledgers tell it to the second.
        """

    async def dead_for(self, owner_id: str) -> float:
        """Return the seconds since somebody first saw that an owner is dead; 0.0 at the first time.

        It is asked of owners that :meth:`owner_alive` said are dead, and that counts as seeing it.
        They are seconds that passed by a monotonic clock: no step of a wall clock changes them.
        Where no such clock is shared by all who may ask, each counts from when it first asked.
        """

    async def upkeep(self, now: float) -> None:
        """Do what is due now and again.

        Leave a sign of life, clear away what dead owners left beside their rows, and forget rows
        that finished long ago.

        :param now: seconds since the epoch, by the caller's clock; what :meth:`last_seen` returns.
        """

    async def aclose(self) -> None:
        """Withdraw the announcement and let go of everything; calling it again does nothing."""
