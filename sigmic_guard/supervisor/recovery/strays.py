"""Strays: tasks that may appear although it was proven that their create had no effect."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from anyio import current_time

from sigmic_guard.supervisor.ground.lag import BRAND_NEW
from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.recovery.absence import Afterlife

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sigmic_guard.lifecycle import Record


class Strays:
    """Notes the records whose tasks the reconciler has to look for in its next complete scan."""

    def __init__(self) -> None:
        #: For how long they may appear.
        self.afterlife = Afterlife()
        #: By intent id.
        self._records: dict[str, Record] = {}
        #: Until when, on anyio's clock, the list may not show one of them that is brand new.
        self._until: dict[str, float] = {}
        #: More of these. There may be many, so they are sorted in by the worker.
        self._warnings: list[Sequence[Record]] = []

    def __bool__(self) -> bool:
        return bool(self._records)

    def __contains__(self, intent_id: str) -> bool:
        return intent_id in self._records

    def warn_of(self, records: Sequence[Record]) -> None:
        """Note records that were proven absent."""
        self._warnings.append(records)

    def expect(self, record: Record) -> None:
        """Note a record that has lost its task just now: the list may not show that yet."""
        self._records[record.intent_id] = record
        self._until[record.intent_id] = current_time() + BRAND_NEW

    async def sort_in(self) -> None:
        """Take in what there was a warning of."""
        slices = Slices()
        while self._warnings:
            for record in self._warnings[-1]:
                if record.message_digest is None:  # else it carries no mark, and nothing tells it
                    self._records[record.intent_id] = record
                await slices.yield_if_due()
            self._warnings.pop()

    def noted(self) -> dict[str, Record]:
        """Return those that a scan that begins now looks for, by intent id."""
        return dict(self._records)

    def take(self, intent_id: str) -> Record:
        """Return one whose task appeared, and look for it no more."""
        self._until.pop(intent_id, None)
        return self._records.pop(intent_id)

    async def not_seen(self, intent_ids: Iterable[str], began: float) -> None:
        """Look no more for those that a complete scan did not show.

        :param began: when that began, on anyio's clock.
        """
        slices = Slices()
        for intent_id in intent_ids:
            if began >= self._until.get(intent_id, -inf):
                self._records.pop(intent_id, None)
                self._until.pop(intent_id, None)
            await slices.yield_if_due()
