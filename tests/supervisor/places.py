"""The places from which a plain call can be made: :data:`PLACES`."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

import sniffio
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[], object]


def coroutine(call: Call) -> None:
    """A step of the caller's own task."""
    call()


def callback(call: Call) -> None:
    """A callback of the loop, in which there is no current task."""
    if sniffio.current_async_library() == "trio":
        trio.lowlevel.current_trio_token().run_sync_soon(call)
    else:
        asyncio.get_running_loop().call_soon(call)


def threadsafe_callback(call: Call) -> None:
    """A callback that another thread asked for."""
    if sniffio.current_async_library() == "trio":
        schedule: Any = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        schedule = asyncio.get_running_loop().call_soon_threadsafe
    _in_a_thread(lambda: schedule(call))


def done_callback(call: Call) -> None:
    """A done callback of a future's; on trio, which has none, a system task."""
    if sniffio.current_async_library() == "trio":

        async def run() -> None:
            call()

        trio.lowlevel.spawn_system_task(run)
    else:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: call())
        future.set_result(None)


def signal_handler(call: Call) -> None:
    """A handler that Python calls between two instructions of whatever runs."""
    before = signal.signal(signal.SIGUSR2, lambda *_: call())
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        for _ in range(100):  # it comes in one of these instructions
            pass
    finally:
        signal.signal(signal.SIGUSR2, before)


def thread(call: Call) -> None:
    """Another thread, plainly."""
    _in_a_thread(call)


def collector(call: Call) -> None:
    """A finalizer that the garbage collector calls."""
    _Cycle(call)
    gc.collect()


def collector_in_a_thread(call: Call) -> None:
    """A finalizer that the garbage collector calls in another thread."""
    _Cycle(call)
    _in_a_thread(gc.collect)


def collector_in_a_callback(call: Call) -> None:
    """A finalizer that the garbage collector calls in a callback of the loop."""
    _Cycle(call)
    callback(gc.collect)


class _Cycle:
    def __init__(self, call: Call) -> None:
        self.call = call
        self.self = self

    def __del__(self) -> None:
        self.call()


def _in_a_thread(call: Call) -> None:
    other = threading.Thread(target=call)
    other.start()
    other.join()


PLACES: Final = (
    coroutine,
    callback,
    threadsafe_callback,
    done_callback,
    signal_handler,
    thread,
    collector,
    collector_in_a_thread,
    collector_in_a_callback,
)
