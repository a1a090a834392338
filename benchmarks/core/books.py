"""What is asked of the server, and what it tells: ``POST /reset`` and ``GET /books``."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that the server may take to answer: it may be deep in somebody else's requests.
TIMEOUT: Final = 30.0


class Script(msgspec.Struct, frozen=True):
    """How the world goes.

    :ivar seed: tasks that run from the beginning; see :func:`task_id`.
    :ivar events: ``content`` events of each stream; 0 for a stream that stays open, and idle.
    :ivar size: bytes of text in each of them.
    :ivar keep: keep the tasks that there are, and the books.
    :ivar finishing: share of the tasks that completes in each second.
    """

    seed: int = 0
    events: int = 0
    size: int = 0
    keep: bool = False
    finishing: float = 0.0


class Books(msgspec.Struct):
    """What the server saw. Times are of the machine's monotonic clock, in seconds."""

    posts: int = 0
    deletes: int = 0
    reads: int = 0
    #: Tasks that still run; DELETEs of one that had been deleted; DELETEs of none.
    running: int = 0
    twice: int = 0
    unknown: int = 0
    last_delete: float = 0.0
    #: When the tasks completed that did so by themselves.
    finished: dict[str, float] = {}


class Control:
    """Sets the server, and reads its books."""

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, script: Script) -> None:
        """Begin anew."""
        self._ask("POST", "/reset", msgspec.json.encode(script))

    def books(self) -> Books:
        """Return what it saw since then."""
        return msgspec.json.decode(self._ask("GET", "/books"), type=Books)

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        with closing(HTTPConnection(urlsplit(self.url).netloc, timeout=TIMEOUT)) as connection:
            connection.request(method, path, body)
            return connection.getresponse().read()


def task_id(number: int) -> str:
    """Return the id of the task that was created as that one, from 0; as long as a real one."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def check_books(books: Books) -> Iterator[str]:
    """Yield what the server's books show that must not be."""
    if books.running:
        yield f"{books.running} tasks still run: the server saw no DELETE for them"
    if books.twice:
        yield f"{books.twice} DELETEs of tasks that had been deleted"
    if books.unknown:
        yield f"{books.unknown} DELETEs of tasks that never were"
