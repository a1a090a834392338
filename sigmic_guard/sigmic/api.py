"""The one small protocol between the supervisor and whatever speaks to the remote system.

:class:`~sigmic_guard.sigmic.client.SigmicClient` implements it over HTTP; tests and other
transports implement it with something else. Every call is bounded by its ``timeout`` (seconds) and
raises nothing but :class:`~sigmic_guard.errors.ApiError`, ``ProtocolError``, ``ConnectionFailed``
and ``ConfigurationError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo, TaskPage
    from sigmic_guard.sigmic.sse import ServerSentEvent

ApprovalOutcome = Literal["proceed_once", "proceed_always", "cancel"]


class EventStream(Protocol):
    """An open event stream. A plain object: no scope or task hangs on it."""

    async def receive(self) -> Sequence[ServerSentEvent]:
        """Return the next events, at least one; an empty sequence at the stream's clean end.

        :raises ConnectionFailed: the stream broke, or stayed silent for too long.
        :raises ProtocolError: one event is larger than 8 MiB.
        """

    def close(self) -> None:
        """Drop the connection at once; a ``receive`` under way raises. Again does nothing."""


class TaskApi(Protocol):
    """The remote system, as far as this library needs it."""

    @property
    def base_url(self) -> str:
        """Where the API is, without a trailing slash; names the system in a ledger row."""

    @property
    def credential_fingerprint(self) -> str:
        """A short hash that tells one credential from another and gives neither away."""

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        """Create a task and return its id. Never retried: a repeated POST is a second task."""

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        """Read a task."""

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        """Read one page of the list, most recent activity first."""

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        """Cancel a task; ``True`` for the documented answer, ``False`` for any other 2xx."""

    async def send(
        self, task_id: str, message: str, *, files: Sequence[Path] = (), timeout: float
    ) -> str:
        """Send a follow-up message and return the task's status."""

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        """Decide on a tool call; ``True`` if it was approved."""

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> EventStream:
        """Open the event stream; it breaks after ``silence`` seconds without a byte."""

    async def aclose(self) -> None:
        """Close every connection."""
