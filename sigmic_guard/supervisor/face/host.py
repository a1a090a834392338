"""The asyncio or trio task that enters a cancel scope: it alone can leave it."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import get_current_task

from sigmic_guard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import CancelScope, TaskInfo


class Host:
    """Remembers the running task, and keeps nothing of it alive."""

    __slots__ = ("_id", "_if_there")

    def __init__(self) -> None:
        task = get_current_task()
        self._id = task.id
        #: The id is given again as soon as the task is gone; so it alone does not tell.
        self._if_there = _weak(task)

    @property
    def is_current(self) -> bool:
        """Whether the running task is that one."""
        return get_current_task().id == self._id and self._if_there() is not None

    @property
    def has_ended(self) -> bool:
        """Whether that task is over: it has no body any more that could be cancelled."""
        there = self._if_there()
        return there is None or bool(getattr(there, "done", bool)())

    def explain(self, what: str, *, instead: str) -> ConfigurationError:
        """Return the error for a scope that could not be left.

        :param what: what was left, and what has become of it.
        :param instead: what to do where one task cannot enter and leave it.
        """
        if not self.is_current:
            return ConfigurationError(
                f"{what}; but it was entered in one asyncio task and left in another, so that its "
                "body could not be cancelled. Enter and leave it in one task (until Python 3.12 "
                "asyncio.wait_for(anext(generator)) makes one for each step), "
                f"{instead}"
            )
        return ConfigurationError(
            f"{what}; but a block that was entered inside it was never left: close async "
            "generators in the task that iterates over them, with contextlib.aclosing(generator), "
            f"{instead}"
        )


class HostedScope:
    """A cancel scope that does not keep its host alive once that has ended without leaving it.

    An entered scope of anyio's refers to its task, and anyio's table of tasks to the scope. So the
    task would stay for ever, and with it its exception, the frames of that, and the generator in
    which the block stands: nobody could find out that it was left behind.
    """

    __slots__ = ("__weakref__", "_ended", "_native", "_scope")

    def __init__(self, scope: CancelScope) -> None:
        self._scope = scope
        # There is no public way to the native task. Without one nothing is done here; on trio
        # nothing needs to be.
        self._native = _weakly(getattr(scope, "_host_task", None))
        self._ended = _Ended(weakref.ref(self))
        native = self._native()
        if native is not None:
            native.add_done_callback(self._ended)

    def left(self) -> None:
        """Stop watching: the scope was left."""
        native = self._native()
        if native is not None:
            native.remove_done_callback(self._ended)

    def let_go(self, native: Any) -> None:
        """Refer to the host no more."""
        scope: Any = self._scope
        with suppress(AttributeError):
            if scope._host_task is native:  # noqa: SLF001
                scope._host_task = None  # noqa: SLF001
                scope._tasks.discard(native)  # noqa: SLF001


class _Ended:
    """A done callback of the host's."""

    __slots__ = ("_hosted",)

    def __init__(self, hosted: weakref.ref[HostedScope]) -> None:
        self._hosted = hosted

    def __call__(self, native: Any) -> None:
        hosted = self._hosted()
        if hosted is not None:
            hosted.let_go(native)


def _weak(task: TaskInfo) -> Callable[[], object]:
    """Return what gives something as long as the task is there, and nothing of it afterwards."""
    # Of anyio's on asyncio. The coroutine may be of a kind that no weak reference leads to.
    native = getattr(task, "_task", None)
    if isinstance(native, weakref.ref):
        return native
    return weakref.ref(task.coro)


def _weakly(native: Any) -> Any:
    """Return what gives the task as long as it exists, if it tells of its end."""
    return weakref.ref(native) if hasattr(native, "add_done_callback") else lambda: None
