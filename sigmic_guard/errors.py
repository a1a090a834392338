"""Every error a user of sigmic_guard can meet, split by whose fault it is.

::

    SigmicGuardError
    ├── the caller's side
    │   ├── TaskError                  a task has no result to give: task_id, result
    │   │   ├── TaskCancelled          … because it was cancelled: reason
    │   │   ├── TaskTimedOut           … because its deadline passed (also a TimeoutError)
    │   │   └── TaskFailed             … because the agent failed: error
    │   ├── SupervisorShutdown         the supervisor is closing, or closed
    │   ├── DuplicateKey               a live task holds that key already: key
    │   └── ConfigurationError         an argument cannot be right (also a ValueError)
    ├── the remote side
    │   ├── ApiError                   the API refused: code, status, message, retry_after
    │   │   ├── AuthenticationError    401
    │   │   ├── PermissionDenied       403
    │   │   ├── TaskNotFound           404
    │   │   ├── ValidationError        any other 4xx
    │   │   ├── RateLimited            429
    │   │   └── ServerError            5xx
    │   ├── ProtocolError              the answer was not the API's, or not of the documented
    │   │                              shape: status, retry_after
    │   └── ConnectionFailed           no answer: refused, reset, silent, too slow
    └── storage
        └── LedgerError                the ledger cannot be read or written

All of them survive pickling with their fields, and none carries a credential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

ErrorT = TypeVar("ErrorT", bound=BaseException)
GuardErrorT = TypeVar("GuardErrorT", bound="SigmicGuardError")

__all__ = [
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionFailed",
    "DuplicateKey",
    "LedgerError",
    "PermissionDenied",
    "ProtocolError",
    "RateLimited",
    "ServerError",
    "SigmicGuardError",
    "SupervisorShutdown",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskNotFound",
    "TaskTimedOut",
    "ValidationError",
]


class SigmicGuardError(Exception):
    """The root: catching it catches whatever this library raises."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Callable[..., SigmicGuardError], tuple[Any, ...]]:
        """Pickle by fields: the constructors of the subclasses take keywords."""
        return _rebuild, (type(self), self.args, self.__dict__)


def fresh(error: GuardErrorT) -> GuardErrorT:
    """Return an equal error that nobody has raised yet.

    One that several callers meet must not be one object: each raise adds to its traceback and keeps
    frames alive, and a note or a cause that one caller gives it would show up in another.
    """
    again: GuardErrorT = _rebuild(type(error), error.args, error.__dict__)  # type: ignore[assignment]
    if (notes := getattr(again, "__notes__", None)) is not None:
        again.__notes__ = list(notes)
    again.__cause__ = error.__cause__
    return again


def _rebuild(
    cls: type[SigmicGuardError], args: tuple[Any, ...], fields: dict[str, Any]
) -> SigmicGuardError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def bare(error: ErrorT) -> ErrorT:
    """Return the error without the frames that it passed: they may hold what nobody is to see.

    What it was raised from stays, without its frames.
    """
    waiting: list[BaseException | None] = [error]
    seen = set[int]()
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            waiting += [link.__cause__, link.__context__]
    return error


class TaskError(SigmicGuardError):
    """A task ended without a result.

    :ivar task_id: the remote id; ``None`` if the task was never created.
    :ivar result: the :class:`~sigmic_guard.TaskResult` that tells the rest, if there is one.
    """

    def __init__(self, message: str, *, task_id: str | None = None, result: Any = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.result = result


class TaskCancelled(TaskError):
    """The task was cancelled; ``reason`` (a :class:`~sigmic_guard.CancelReason`) tells by what."""

    def __init__(
        self, message: str, *, task_id: str | None = None, reason: Any = None, result: Any = None
    ) -> None:
        super().__init__(message, task_id=task_id, result=result)
        self.reason = reason


class TaskTimedOut(TaskError, TimeoutError):
    """The task's deadline passed before it ended, and the task was cancelled for it."""


class TaskFailed(TaskError):
    """The agent ended in failure; ``error`` is what the API told of it."""

    def __init__(
        self, message: str, *, task_id: str | None = None, error: Any = None, result: Any = None
    ) -> None:
        super().__init__(message, task_id=task_id, result=result)
        self.error = error


class SupervisorShutdown(SigmicGuardError):
    """The supervisor is closing, or closed: it has no task to give."""


class DuplicateKey(SigmicGuardError):
    """A live task holds this key already. Nothing was sent.

    :ivar key: the key.
    :ivar task_id: the id of the task that holds it; ``None`` if that is not known here, or not yet.
    :ivar intent_id: that of its intent, which ``sigmic-guard explain`` takes as well.
    :ivar owner_id: of the process whose it is, or was: a random id of each of its supervisors.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str,
        task_id: str | None = None,
        intent_id: str | None = None,
        owner_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.key = key
        self.task_id = task_id
        self.intent_id = intent_id
        self.owner_id = owner_id


class ConfigurationError(SigmicGuardError, ValueError):
    """An argument, a credential or a setting cannot be right. Nothing was sent."""


class ApiError(SigmicGuardError):
    """The API refused a request, in its own words: the documented envelope.

    :ivar code: the API's own word (``"NOT_FOUND"``); of a :class:`ServerError` also
        ``"HTTP_<status>"``, where there was none.
    :ivar status: the HTTP status.
    :ivar retry_after: seconds the server asked to wait, or ``None``.

    Source: the API page, "Base, authentication, envelope".
    """

    def __init__(
        self, message: str, *, code: str, status: int, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, HTTP {self.status})"


class AuthenticationError(ApiError):
    """401: no credential, or one that is malformed, unknown or expired."""


class PermissionDenied(ApiError):
    """403: the credential is valid but may not do this."""


class TaskNotFound(ApiError):
    """404: no such task (or tool call) for this credential."""


class ValidationError(ApiError):
    """400, and any other 4xx without a class of its own: the request was refused as it stands."""


class RateLimited(ApiError):
    """429: too many requests; ``retry_after`` tells how long to wait."""


class ServerError(ApiError):
    """5xx: the server failed, and may or may not have done what was asked.

    The only refusal that need not be in the API's words: a gateway's 5xx says no less.
    """


class ProtocolError(SigmicGuardError):
    """An answer was not of the documented shape: the request may or may not have been obeyed.

    Whatever comes without the API's envelope is one, a gateway's page with 401, 403, 404 or 429
    included: it says nothing about the task, the credential or what the API did.

    :ivar status: the HTTP status it came with, or ``None``.
    :ivar retry_after: seconds that it asked to wait, or ``None``.
    :ivar unreadable: whether it was a success that is too large, or whose JSON is broken: a smaller
        one may be readable.
    :ivar broken: whether it was the latter, which another attempt may well mend.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        unreadable: bool = False,
        broken: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.unreadable = unreadable
        self.broken = broken


class ConnectionFailed(SigmicGuardError):
    """No complete answer came.

    :ivar sent: ``False`` only if the request provably never left (the connection was never made);
        ``True`` means that the server may have obeyed it.
    :ivar timed_out: whether it was the request's own time-out that ended the waiting.
    """

    def __init__(self, message: str, *, sent: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class LedgerError(SigmicGuardError):
    """The ledger cannot be read or written; the message says what to do about it."""
