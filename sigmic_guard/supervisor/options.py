"""What can be said of a task when it is asked for, and how it becomes an order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from anyio import current_time

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.sigmic import CreateRequest, check_create
from sigmic_guard.supervisor.intake import Order
from sigmic_guard.supervisor.marking import MARKER

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.lifecycle.policy import Confirm, OnCrash, OnExit, OnLost, OnShutdown


class Watch(TypedDict, total=False):
    """How a task is supervised: options of ``adopt``, and of all that creates a task.

    ``deadline`` is absolute: a float on anyio's clock (``anyio.current_time() + 60``), or an aware
    ``datetime``. Where a ``timeout`` is given too, the earlier of them counts. ``key`` makes the
    task the only live one of that name in the namespace. The rest are the fields of
    :class:`~sigmic_guard.TaskPolicy`.
    """

    key: str | None
    deadline: float | datetime | None
    timeout: float | None
    on_exit: OnExit
    on_shutdown: OnShutdown
    on_crash: OnCrash
    confirm: Confirm
    cancel_wait: float
    reattach_within: float
    on_lost: OnLost


class TaskOptions(Watch, total=False):
    """What a task is to be: options of ``task``, ``run`` and ``start``.

    ``files`` are paths, at most 20 of 50 MB each, streamed from disk; they cannot be combined with
    ``env`` (stored with the task and shown by the API) or ``secrets`` (never stored or shown).
    Source: the API page, "create".
    """

    files: Iterable[str | Path]
    system_prompt: str | None
    auto_execute: bool
    show_in_history: bool
    env: Mapping[str, str] | None
    secrets: Mapping[str, str] | None


class _Secrets(dict[str, str]):
    """What tools that print the locals of a traceback show as nothing but its size."""

    def __repr__(self) -> str:
        return f"<{len(self)} secrets>"


def hide_secrets(options: TaskOptions) -> None:
    """Let nobody read the secrets off the frames that the options pass through."""
    secrets = options.get("secrets")
    if isinstance(secrets, Mapping):
        options["secrets"] = _Secrets(secrets)


def make_order(
    message: str, options: Mapping[str, Any], policy: TaskPolicy, *, marker: bool
) -> Order:
    """Check everything that can be checked before anything is begun.

    :raises ConfigurationError: the API would refuse it, or an option makes no sense.
    """
    rest = dict(options)
    files = rest.pop("files", ())
    if isinstance(files, str | bytes | Path) or not isinstance(files, Iterable):
        raise ConfigurationError("files must be a list of paths")
    env = dict(_mapping("env", rest.pop("env", None)))
    if marker and MARKER in env:
        raise ConfigurationError(f"{MARKER} is set by the supervisor: leave it out of env")
    request = CreateRequest(
        message=message,
        files=tuple(map(_path, files)),
        system_prompt=rest.pop("system_prompt", None),
        auto_execute=rest.pop("auto_execute", True),
        show_in_history=rest.pop("show_in_history", True),
        env=env,
        secrets=_mapping("secrets", rest.pop("secrets", None)),
    )
    check_create(request)
    return make_watch(rest, policy, request)


def make_watch(options: Mapping[str, Any], policy: TaskPolicy, request: CreateRequest) -> Order:
    """Check the options of supervision alone.

    :raises ConfigurationError: one of them makes no sense.
    """
    rest = dict(options)
    key = rest.pop("key", None)
    if key is not None and (not isinstance(key, str) or not key):
        raise ConfigurationError("key must be a string that is not empty")
    deadline = _on_our_clock(rest.pop("deadline", None))
    return Order(request=request, policy=policy.but(**rest), deadline=deadline, key=key)


def _mapping(name: str, value: Any) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must map names to strings")
    return value


def _path(file: str | Path) -> Path:
    if not isinstance(file, str | Path):
        raise ConfigurationError(f"files must be paths, not {type(file).__name__}")
    return Path(file)


def _on_our_clock(deadline: float | datetime | None) -> float | None:
    match deadline:
        case None:
            return None
        case datetime(tzinfo=None):
            raise ConfigurationError("deadline must have a time zone: datetime.now(UTC) + …")
        case datetime():
            return current_time() + deadline.timestamp() - time.time()
        case bool() | str():
            pass
        case int() | float() if isfinite(deadline):
            return float(deadline)
    raise ConfigurationError(
        f"deadline must be a finite number on anyio's clock or an aware datetime, not {deadline!r}"
    )
