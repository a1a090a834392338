"""Tell many observers, and let none of them break what it observes: :class:`Observers`."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sigmic_guard.observe.wording import whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigmic_guard.observe.events import ObservedEvent
    from sigmic_guard.observe.observer import Observer

_log: Final = logging.getLogger("sigmic_guard")


class Observers:
    """An observer made of others. It never raises an ``Exception``, whatever they do.

    The first failure of each is reported, once, through the standard library's logger
    ``sigmic_guard``: by type and place, since the text of somebody else's exception may hold
    anything. An observer that failed is called again the next time.
    """

    __slots__ = ("_observers", "_reported")

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)
        self._reported: set[int] = set()

    def observe(self, event: ObservedEvent) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.observe(event)
            except Exception as failure:
                self._failed(observer, failure)

    def _failed(self, observer: Observer, failure: Exception) -> None:
        """Report the first failure of ``observer``; if that fails too, so be it."""
        if id(observer) in self._reported:
            return
        self._reported.add(id(observer))
        with suppress(Exception):
            _log.warning(
                "%s failed, and will not be reported again: %s; tasks are not affected",
                type(observer).__qualname__,
                whereabouts(failure),
            )
