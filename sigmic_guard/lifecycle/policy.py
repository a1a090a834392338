"""What shall happen to a task, and when: :class:`TaskPolicy`, validated once and then frozen."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.values import check_choice, check_seconds, no_such_options, shown

if TYPE_CHECKING:
    from datetime import timedelta

OnExit = Literal["cancel", "wait", "detach"]
OnShutdown = Literal["cancel", "detach", "reattach"]
OnCrash = Literal["cancel", "reattach", "abandon"]
OnLost = Literal["report", "cancel"]
Confirm = Literal["accepted", "terminal"]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "on_exit": get_args(OnExit),
    "on_shutdown": get_args(OnShutdown),
    "on_crash": get_args(OnCrash),
    "on_lost": get_args(OnLost),
    "confirm": get_args(Confirm),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPolicy:
    """How a task is bound to the code that started it. Every field can also be given per task.

    Seconds are numbers, or a ``timedelta``.

    :param timeout: seconds from entering the block (the create included) to the deadline;
        ``None``, the default, means no deadline.
    :param on_exit: a block's body finished while its task still runs: ``"cancel"`` it (default),
        ``"wait"`` for it, or ``"detach"`` it and let it run.
    :param on_shutdown: the supervisor shuts down: ``"cancel"`` (default); ``"detach"``: it may run
        on, and nobody watches it; or ``"reattach"``, for an orderly deploy: it runs on, its key
        stays taken, and the next process that asks for the same key goes on with it, whatever
        ``on_crash`` says. Without a key ``"reattach"`` is the same as ``"cancel"``.
    :param on_crash: the process died: ``"cancel"`` (default), ``"reattach"`` for the next process
        that asks for the same key, or ``"abandon"``: it may run on. Without a key nobody can ask
        for it, and ``"reattach"`` is the same as ``"cancel"``.
    :param reattach_within: seconds after its owner's end for which a task that is kept for its key
        (``"reattach"``) may run without anybody asking for it; default 300. Then it is cancelled.
    :param on_lost: the answer of a create was lost that carried no marker (it had files, or the
        supervisor has ``marker=False``): the running tasks that have its message and were created
        at that time are only logged (``"report"``, the default), or cancelled (``"cancel"``).
    :param confirm: what ends a cancellation: ``"accepted"`` (default), the API acknowledged the
        DELETE, or ``"terminal"``, a GET showed a terminal status.
    :param cancel_wait: seconds a block waits for that; default 5. Afterwards the supervisor goes
        on with it in the background.
    :raises ConfigurationError: a value is out of range.
    """

    timeout: float | None = None
    on_exit: OnExit = "cancel"
    on_shutdown: OnShutdown = "cancel"
    on_crash: OnCrash = "cancel"
    confirm: Confirm = "accepted"
    cancel_wait: float = 5.0
    reattach_within: float = 300.0
    on_lost: OnLost = "report"

    if TYPE_CHECKING:  # what is given may be of more types than what is kept

        def __init__(
            self,
            *,
            timeout: float | timedelta | None = None,
            on_exit: OnExit = "cancel",
            on_shutdown: OnShutdown = "cancel",
            on_crash: OnCrash = "cancel",
            confirm: Confirm = "accepted",
            cancel_wait: float | timedelta = 5.0,
            reattach_within: float | timedelta = 300.0,
            on_lost: OnLost = "report",
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in _FIELDS:
            object.__setattr__(self, name, _exact(name, getattr(self, name)))

    def but(self, **changes: Any) -> TaskPolicy:
        """Return this policy with some fields changed.

        :raises ConfigurationError: a field does not exist, or its value is out of range.
        """
        if not changes:
            return self
        if unknown := changes.keys() - _FIELDS:
            raise ConfigurationError(no_such_options(unknown, _FIELDS))
        # Tasks that ask for the same share one policy: it is made once, and takes no memory.
        return _changed(self, tuple((name, _exact(name, it)) for name, it in changes.items()))


@lru_cache(maxsize=1024)
def _changed(policy: TaskPolicy, changes: tuple[tuple[str, str | float | None], ...]) -> TaskPolicy:
    return replace(policy, **dict(changes))  # type: ignore[arg-type]


_FIELDS: Final = frozenset(field.name for field in fields(TaskPolicy))


def _exact(name: str, value: object) -> str | float | None:
    """Return the value of a field as it is kept.

    :raises ConfigurationError: it is out of range.
    """
    if name in _CHOICES:
        return check_choice(name, value, _CHOICES[name])
    return None if name == "timeout" and value is None else check_seconds(name, value)


def check_policy(value: object) -> TaskPolicy:
    """Return a policy that is one, and no subclass with methods of its own.

    :raises ConfigurationError: it is none.
    """
    if type(value) is TaskPolicy:
        return value
    if not issubclass(type(value), TaskPolicy):
        raise ConfigurationError(f"policy must be a TaskPolicy, not {shown(value)}")
    return TaskPolicy(**{name: getattr(value, name) for name in _FIELDS})
