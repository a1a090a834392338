"""Whoever starts a task or opens a socket ends it: checked around every async test on asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


#: Turns of 10 ms that a cancelled task or a closing transport may take to be gone; a peer in
#: another thread needs real time for it. Who leaks nothing pays for none of them.
MAX_ROUNDS = 50


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Fail the test if tasks, sockets or complaints of asyncio are left of the block."""
    tasks, sockets = open_tasks(), open_sockets()
    with _AsyncioErrors() as complaints:
        yield
        left: list[str] = []
        for _ in range(MAX_ROUNDS):
            left = [str(task) for task in open_tasks() - tasks]
            left += [text for inode, text in open_sockets().items() if inode not in sockets]
            if not left:
                break
            await asyncio.sleep(0.01)
    if left or complaints.messages:
        pytest.fail("left behind:\n  " + "\n  ".join(left + complaints.messages), pytrace=False)


def open_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of this loop but for those in which anyio's plugin runs tests and fixtures."""
    return {task for task in asyncio.all_tasks() if "TestRunner." not in repr(task.get_coro())}


def open_sockets() -> dict[int, str]:
    """This process's internet sockets, by inode; a loop's own socket pair is not one of them."""
    found = {}
    for fd in map(int, os.listdir("/dev/fd")):
        try:
            status = os.fstat(fd)
            if stat.S_ISSOCK(status.st_mode):
                borrowed = socket.socket(fileno=fd)
                if borrowed.family in {socket.AF_INET, socket.AF_INET6}:
                    found[status.st_ino] = repr(borrowed)
                borrowed.detach()
        except OSError:  # closed meanwhile, as that of the listing is
            continue
    return found


class _AsyncioErrors(logging.Handler):
    """Collects "Task was destroyed but it is pending!", "exception was never retrieved", ..."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("asyncio").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("asyncio").removeHandler(self)
