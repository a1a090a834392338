"""What a :class:`~sigmic_guard.testing.FakeSigmic` believes of one task: the truth about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sigmic_guard.emulator import Task
    from sigmic_guard.sigmic.models import CreateRequest


class Signal:
    """Wakes whoever waits for the next change; nobody waiting costs nothing."""

    def __init__(self) -> None:
        self._events: set[anyio.Event] = set()

    async def wait(self, seconds: float) -> None:
        """Wait until :meth:`fire`, at most ``seconds``."""
        event = anyio.Event()
        self._events.add(event)
        try:
            with anyio.move_on_after(seconds):
                await event.wait()
        finally:
            self._events.discard(event)

    def fire(self) -> None:
        """Wake them all."""
        while self._events:
            self._events.pop().set()


class FakeTask:
    """A remote task as it really is, whatever the answers told about it. To be read, not written.

    It is brought up to date whenever it is looked at; outside of an event loop it is as it was when
    last looked at. Times are on the clock of ``anyio.current_time()``.

    :ivar request: what it was created with; ``message`` and ``env`` are short for its fields.
    :ivar approvals: the decisions that were taken on its tool calls, in order.
    """

    def __init__(self, model: Task, request: CreateRequest, settle: Callable[[], float]) -> None:
        self.request = request
        self.approvals: list[str] = []
        self.changed = Signal()
        self._model = model
        self._settle = settle

    def __repr__(self) -> str:
        return f"<FakeTask {self.id} {self.status}: {self.message!r}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self._model.id

    @property
    def message(self) -> str:
        """The message that created it."""
        return self.request.message

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that it was created with."""
        return self.request.env

    @property
    def created_at(self) -> float:
        """When it was created."""
        return self._model.created_at

    @property
    def current(self) -> str:
        """The remote status when last looked at."""
        return self._model.status

    @property
    def status(self) -> str:
        """The remote status at this instant."""
        return self.now()[0].status

    @property
    def live(self) -> bool:
        """Whether it still costs money."""
        return self.now()[0].live

    @property
    def completed_at(self) -> float | None:
        """When it ended; ``None`` while it has not."""
        return self.now()[0].completed_at

    @property
    def error(self) -> str | None:
        """Why it failed, if it did."""
        return self.now()[0].error

    @property
    def content(self) -> str:
        """What it has said in its current turn; the final response, once there is one."""
        model, now = self.now()
        return model.said(now)

    @property
    def messages(self) -> list[tuple[str, str]]:
        """The saved messages, as pairs of role and content."""
        return [(message.role, message.content) for message in self.now()[0].messages]

    def now(self) -> tuple[Task, float]:
        """Return the model's task, up to date, and the time."""
        now = self._settle()
        return self._model, now
