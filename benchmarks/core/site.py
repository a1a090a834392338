"""What a contestant is given, and a few things that most of them do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Final, Self

import msgspec

from benchmarks.core.books import Books, Control, Script, check_books

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sigmic_guard import Supervisor

KEY: Final = "sigmic_" + "0" * 64
HEADERS: Final = {"Authorization": f"Bearer {KEY}"}


class Unsound(Exception):
    """A sanity check failed: what was measured means nothing."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where a contestant does its work.

    :ivar url: of the server; ``tls`` the same over TLS, ``None`` where there is no certificate.
    :ivar folder: empty, and its own; nothing may be written anywhere else.
    :ivar numbers: of the case.
    :ivar server_cores: those that the client is not on.
    """

    url: str
    tls: str | None
    folder: str
    numbers: dict[str, float]
    server_cores: list[int]

    def __getitem__(self, name: str) -> int:
        """Return a number of the case."""
        return int(self.numbers[name])

    @property
    def tasks(self) -> str:
        """The URL of the tasks; over TLS where the case says so."""
        return f"{self.base}/api/v1/tasks"

    @property
    def base(self) -> str:
        """The base URL; over TLS where the case says so."""
        if not self.numbers.get("tls"):
            return self.url
        assert self.tls is not None
        return self.tls

    @property
    def sqlite(self) -> str:
        """The URL of a ledger of its own."""
        return f"sqlite:///{Path(self.folder) / 'ledger.db'}"

    def script(self, **script: float) -> None:
        """Have the server begin anew, as a :class:`~benchmarks.core.books.Script` of these says."""
        Control(self.url).reset(msgspec.convert(script, Script, strict=False))

    def books(self) -> Books:
        """Return what the server saw."""
        return Control(self.url).books()

    def check(self) -> None:
        """Check that the server saw every task's end, once.

        :raises Unsound: it was not so.
        """
        for failure in check_books(self.books()):
            raise Unsound(failure)


class Clock:
    """``with Clock() as clock: …``; then ``seconds``, and the process's ``cpu`` seconds."""

    def __enter__(self) -> Self:
        self._began, self._cpu = perf_counter(), process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = perf_counter() - self._began
        self.cpu = process_time() - self._cpu

    def per(self, number: int) -> dict[str, float]:
        """Tell it for each of so many pieces of work."""
        return {"rate": number / self.seconds, "cpu": self.cpu / number * 1e6}


async def callers(count: int, work: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do all the work, ``count`` pieces at once."""
    left = iter(work)

    async def caller() -> None:
        for piece in left:
            await piece()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(caller())


async def start_all(supervisor: Supervisor, number: int, timeout: float = 3600.0) -> None:
    """Start so many background tasks, 64 at once."""

    async def one() -> None:
        await supervisor.start("idle", timeout=timeout)

    await callers(64, (one for _ in range(number)))
