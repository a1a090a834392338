"""A whole program around one supervisor: :func:`serve`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.values import shown
from sigmic_guard.supervisor.face.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def serve(
    main: Callable[[Supervisor], Awaitable[T]],
    *,
    signals: bool | Literal["auto"] = True,
    **supervisor_options: Any,
) -> T:
    """Run ``async def main(supervisor)`` as a program, in an event loop of its own.

    Whatever ends ``main``, the supervisor is left in good order: no remote task outlives it. After
    SIGTERM and SIGINT, with ``signals=True``, ``main`` is cancelled and the tasks are drained.

    :param signals: as for :class:`~sigmic_guard.Supervisor`, but on by default.
    :param supervisor_options: the other arguments of :class:`~sigmic_guard.Supervisor`.
    :returns: what ``main`` returns.
    :raises SystemExit: a signal ended it: with 143 after SIGTERM, with 130 after SIGINT.
    :raises ConfigurationError: ``main`` is no function, or an option makes no sense. Nothing began.
    :raises BaseException: what ``main`` raises goes on unchanged; a program that does not catch it
        exits with 1, and a traceback.
    """
    if not callable(main):
        raise ConfigurationError(f"main must be an async function, not {shown(main)}")
    supervisor = Supervisor(signals=signals, **supervisor_options)
    try:
        return anyio.run(_run, main, supervisor)
    except KeyboardInterrupt:
        # What a program is told with Ctrl-C is no error: it ends, in silence.
        raise SystemExit(128 + signal.SIGINT) from None


async def _run(main: Callable[[Supervisor], Awaitable[T]], supervisor: Supervisor) -> T:
    async with supervisor:
        return await main(supervisor)
