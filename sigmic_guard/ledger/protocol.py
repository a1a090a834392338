"""What the supervisor needs of a ledger: the store of one durable row per task.

A row is a :class:`~sigmic_guard.lifecycle.Record`. There is one way to write it, and that is
:meth:`Ledger.commit`: inserting an intent, moving it on and taking over a dead owner's row are all
the same compare-and-set on the row's version. ``sigmic_guard.testing.ledger_suite`` says in tests
what is said here in words.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sigmic_guard.lifecycle import Record

if TYPE_CHECKING:
    from collections.abc import Sequence


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


class Ledger(Protocol):
    """The store of the rows. Every method raises :class:`~sigmic_guard.errors.LedgerError`."""

    async def open(self, owner_id: str) -> None:
        """Make ready, and announce that this owner is alive."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        """Do all the writes in one transaction, in order; durable on return.

        Returns for each write ``None``, or why it was refused; a refused write does not hinder the
        others. After a :class:`LedgerError` none of them was done.
        """

    async def get(self, intent_id: str) -> Record | None:
        """Return one row."""

    async def unfinished(self, namespace: str) -> Sequence[Record]:
        """Return the rows of the namespace that have no ``finished_at``, whoever owns them."""

    async def owner_alive(self, owner_id: str) -> bool:
        """Tell whether the process behind a row still lives. In doubt, it does."""

    async def aclose(self) -> None:
        """Withdraw the announcement and let go of everything; calling it again does nothing."""
