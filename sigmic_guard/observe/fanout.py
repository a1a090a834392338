"""Tell many observers, and let none of them break what it observes: :class:`Observers`."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Final, TypeGuard

from sigmic_guard.observe.wording import whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe.events import ObservedEvent
    from sigmic_guard.observe.observer import Detail, Observer, Operation, Tracer

_log: Final = logging.getLogger("sigmic_guard")
_NOTHING: Final = nullcontext()


class Observers:
    """An observer made of others. It never raises an ``Exception``, whatever they do.

    The first failure of each is reported, once, through the standard library's logger
    ``sigmic_guard``: by type and place, since the text of somebody else's exception may hold
    anything. An observer that failed is called again the next time.
    """

    __slots__ = ("_observers", "_reported", "_tracers", "tracing")

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)
        self._tracers = tuple(filter(_is_tracer, self._observers))
        self._reported: set[int] = set()
        #: Whether anybody wants to be told details. Not a property: asked for each row of a list.
        self.tracing = bool(self._tracers)

    def observe(self, event: ObservedEvent) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.observe(event)
            except Exception as failure:
                self._failed(observer, failure)

    def around(self, operation: Operation, record: Record) -> AbstractContextManager[object]:
        """Return what a request about a task is to be sent within."""
        if not self._tracers:
            return _NOTHING
        return _Around(self, operation, record)

    def detail(self, record: Record, name: Detail, value: str | None) -> None:
        """Tell a text to those who trace."""
        if value is not None:
            for tracer in self._tracers:
                try:
                    tracer.detail(record, name, value)
                except Exception as failure:
                    self._failed(tracer, failure)

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


class _Around:
    """The context managers of all tracers, for one request. What they raise, or return, is lost."""

    __slots__ = ("_entered", "_observers", "_operation", "_record")

    def __init__(self, observers: Observers, operation: Operation, record: Record) -> None:
        self._observers = observers
        self._operation: Operation = operation
        self._record = record
        self._entered: list[tuple[Tracer, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for tracer in self._observers._tracers:  # noqa: SLF001 - a part of it
            try:
                manager = tracer.around(self._operation, self._record)
                manager.__enter__()
            except Exception as failure:
                self._observers._failed(tracer, failure)  # noqa: SLF001
            else:
                self._entered.append((tracer, manager))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._entered:
            tracer, manager = self._entered.pop()
            try:
                manager.__exit__(kind, error, traceback)
            except Exception as failure:
                self._observers._failed(tracer, failure)  # noqa: SLF001


def _is_tracer(observer: Observer) -> TypeGuard[Tracer]:
    return callable(getattr(observer, "around", None)) and callable(
        getattr(observer, "detail", None)
    )
