"""The least that remembering can cost: an appended file, with one sync for all that wait."""

from __future__ import annotations

import asyncio
import os
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class AppendedFile:
    """A thread that appends lines, with one fdatasync for all that wait."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[bytes, asyncio.Future[None] | None] | None] = SimpleQueue()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._thread = Thread(target=self._work)
        self._thread.start()

    def append(self, line: bytes) -> None:
        self._queue.put((line, None))

    async def commit(self, line: bytes) -> None:
        future = self._loop.create_future()
        self._queue.put((line, future))
        await future

    async def aclose(self) -> None:
        await self.commit(b"end\n")
        self._queue.put(None)
        self._thread.join()
        os.close(self._file)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            batch = [item]
            while not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    return
                batch.append(more)
            os.write(self._file, b"".join(line for line, _ in batch))
            getattr(os, "fdatasync", os.fsync)(self._file)
            self._loop.call_soon_threadsafe(self._wake, [waiting for _, waiting in batch])

    @staticmethod
    def _wake(waiting: list[asyncio.Future[None] | None]) -> None:
        for future in waiting:
            if future is not None and not future.done():
                future.set_result(None)
