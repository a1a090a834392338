"""What can be said of a task when it is asked for, and how it becomes an order."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

from anyio import current_time

from sigmic_guard.errors import ConfigurationError, bare
from sigmic_guard.lifecycle.values import (
    check_moment,
    check_number,
    check_paths,
    check_text,
    no_such_options,
    shown,
)
from sigmic_guard.sigmic import CreateRequest, check_create
from sigmic_guard.supervisor.face.intake import Order
from sigmic_guard.supervisor.ground.marking import MARKER

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.lifecycle.policy import Confirm, OnCrash, OnExit, OnLost, OnShutdown
    from sigmic_guard.supervisor.work.wish import Wish


#: Seconds from now after which a deadline on anyio's clock is taken for one on another clock: that
#: of ``time.time()`` is some fifty years ahead.
LATEST_DEADLINE: Final = 10 * 365 * 86_400.0


class Watch(TypedDict, total=False):
    """How a task is supervised: options of ``adopt``, and of all that creates a task.

    ``deadline`` is absolute: a float on anyio's clock (``anyio.current_time() + 60``) within ten
    years, or an aware ``datetime``. Where a ``timeout`` is given too, the earlier of them counts.
    ``key`` makes the task the only live one of that name in the namespace. The rest are the fields
    of :class:`~sigmic_guard.TaskPolicy`.
    """

    key: str | None
    deadline: float | datetime | None
    timeout: float | timedelta | None
    on_exit: OnExit
    on_shutdown: OnShutdown
    on_crash: OnCrash
    confirm: Confirm
    cancel_wait: float | timedelta
    reattach_within: float | timedelta
    on_lost: OnLost


class TaskOptions(Watch, total=False):
    """What a task is to be: options of ``task``, ``run`` and ``start``.

    ``files`` are paths, at most 20 of 50 MB each, streamed from disk; they cannot be combined with
    ``env`` (stored with the task and shown by the API) or ``secrets`` (never stored or shown).
    Source: the API page, "create".
    """

    files: Iterable[str | os.PathLike[str]]
    system_prompt: str | None
    auto_execute: bool
    show_in_history: bool
    env: Mapping[str, str] | None
    secrets: Mapping[str, str] | None


_WATCH_OPTIONS: Final = Watch.__optional_keys__
_TASK_OPTIONS: Final = TaskOptions.__optional_keys__


def make_order(wish: Wish, policy: TaskPolicy, *, marker: bool) -> Order:
    """Check everything that can be checked before anything is begun.

    :raises ConfigurationError: the API would refuse it, or an option makes no sense.
    """
    try:
        return _create_order(wish.message, wish.options, policy, marker=marker)
    except ConfigurationError as error:
        problem = bare(error)
    raise problem


def make_watch(wish: Wish, policy: TaskPolicy) -> Order:
    """Check the options of supervision alone.

    :raises ConfigurationError: one of them makes no sense.
    """
    try:
        return _watch_order(wish.options, policy, CreateRequest(message=""))
    except ConfigurationError as error:
        problem = bare(error)
    raise problem


def _create_order(
    message: str, options: Mapping[str, Any], policy: TaskPolicy, *, marker: bool
) -> Order:
    if unknown := options.keys() - _TASK_OPTIONS:
        raise ConfigurationError(no_such_options(unknown, _TASK_OPTIONS))
    rest = dict(options)
    request = CreateRequest(
        message=message,
        files=check_paths("files", rest.pop("files", ())),
        system_prompt=rest.pop("system_prompt", None),
        auto_execute=rest.pop("auto_execute", True),
        show_in_history=rest.pop("show_in_history", True),
        env=rest.pop("env", None),
        secrets=rest.pop("secrets", None),
    )
    check_create(request)
    if marker and MARKER in request.env:
        raise ConfigurationError(f"{MARKER} is set by the supervisor: leave it out of env")
    return _watch_order(rest, policy, request)


def _watch_order(options: Mapping[str, Any], policy: TaskPolicy, request: CreateRequest) -> Order:
    if unknown := options.keys() - _WATCH_OPTIONS:
        raise ConfigurationError(no_such_options(unknown, _WATCH_OPTIONS))
    rest = dict(options)
    key = rest.pop("key", None)
    if key is not None:
        key = check_text("key", key, empty=False)
    deadline = _on_our_clock(rest.pop("deadline", None))
    return Order(request=request, policy=policy.but(**rest), deadline=deadline, key=key)


def _on_our_clock(deadline: object) -> float | None:
    if deadline is None:
        return None
    if issubclass(type(deadline), datetime):
        return current_time() + check_moment("deadline", deadline) - time.time()
    try:
        at = check_number("deadline", deadline)
    except ConfigurationError:
        raise ConfigurationError(
            "deadline must be a finite number on anyio's clock or an aware datetime, "
            f"not {shown(deadline)}"
        ) from None
    if at - current_time() > LATEST_DEADLINE:
        raise ConfigurationError(
            f"deadline {at:.15g} is years from now on anyio's clock: give anyio.current_time() + "
            "seconds, or of a moment like time.time() + seconds a datetime: "
            "datetime.fromtimestamp(moment, UTC)"
        )
    return at
