"""Where the command line's words go: answers and rows to stdout, all else to stderr.

A write may block for as long as its reader likes: think of ``sigmic-guard run … | less``. In the
event loop it would hold up deadlines and signals, and so leave a task running. Hence each of the
two has a thread that writes, and dies with the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import shutil
import textwrap
import threading
from contextlib import contextmanager, suppress
from itertools import islice
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec
from typer import style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sigmic_guard.errors import SigmicGuardError

    Written = Callable[[OSError | None], object]

#: Seconds to wait at the end for what is not written yet.
FLUSH_TIMEOUT: Final = 1.0
#: Lines that are written at once.
PORTION: Final = 500
#: Makes a terminal begin its last line again.
_ERASE: Final = "\r\x1b[K"
#: Seconds between two lines of progress.
PROGRESS_INTERVAL: Final = 0.2

#: What would move a terminal's cursor, change its colours or the writing direction.
_DIRECTION: Final = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROL: Final = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_DIRECTION}]")
_SPACE: Final = re.compile(rf"[\s\x00-\x1f\x7f-\x9f{_DIRECTION}]+")


class Outlet:
    """A file descriptor that a thread of its own writes to, in order."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: SimpleQueue[tuple[bytes, Written]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def post(self, text: str, done: Written | None = None) -> None:
        """Have ``text`` written some time; ``done`` is called in the thread afterwards."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._queue.put((text.encode(errors="replace"), done or _ignore))

    async def write(self, text: str) -> None:
        """Write ``text`` and wait for it. Who is cancelled meanwhile leaves it to the thread.

        :raises OSError: it cannot be written; ``BrokenPipeError`` if the reader has gone.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()

        def done(error: OSError | None) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(_resolve, written, error)

        self.post(text, done)
        await written

    def flush(self) -> None:
        """Wait for what was posted, within reason; for the end, when no loop runs."""
        if self._thread is not None:
            written = threading.Event()
            self.post("", lambda _: written.set())
            written.wait(FLUSH_TIMEOUT)

    def _work(self) -> None:
        broken: OSError | None = None
        while True:
            data, done = self._queue.get()
            if broken is None:
                try:
                    self._write(data)
                except OSError as error:
                    broken = error
            done(broken)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select((), (self._fd,), ())


def _ignore(error: OSError | None) -> None:
    del error


def _resolve(written: asyncio.Future[None], error: OSError | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)


class Terminal:
    """What a command says, and to whom.

    :param json: say it in lines of JSON, one for each event or row, on stdout; problems are told in
        plain words on stderr as well.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._out = Outlet(1)
        self._err = Outlet(2)
        self._out_is_terminal = os.isatty(1)
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._colours = wanted and os.isatty(2)
        #: Whether the answers may have colours.
        self.colours: Final = wanted and self._out_is_terminal
        self._err_is_screen = os.isatty(2) and os.environ.get("TERM") != "dumb"
        self._in_line = False  # the answer's last line is open
        self._in_progress = False  # the last line of stderr tells of progress

    # --- stdout -------------------------------------------------------------------------------

    async def answer(self, text: str) -> None:
        """Write a piece of an answer as it is; to a terminal, without what could steer it."""
        if text:
            await self._out.write(_CONTROL.sub("", text) if self._out_is_terminal else text)
            self._in_line = not text.endswith("\n")

    @property
    def is_screen(self) -> bool:
        """Whether the answers go to a terminal on which they can be drawn over."""
        return self._out_is_terminal and os.environ.get("TERM") != "dumb"

    @property
    def width(self) -> int | None:
        """How many columns the answers' terminal has, if it is one."""
        return shutil.get_terminal_size().columns if self._out_is_terminal else None

    async def lines(self, lines: Iterable[str]) -> None:
        """Write lines as they are."""
        await self._out.write("".join(f"{line}\n" for line in lines))

    async def end_answer(self) -> None:
        """Close the answer's last line."""
        if self._in_line:
            await self.answer("\n")

    async def row(self, *columns: str, widths: Sequence[int]) -> None:
        """Write columns in a line: with tabs between them or, on a terminal, at these widths."""
        await self.rows([columns], widths=widths)

    async def rows(self, rows: Iterable[Sequence[str]], *, widths: Sequence[int]) -> None:
        """Write such lines, many at once."""
        fitted = self.width

        def line(columns: Sequence[str]) -> str:
            texts = [one_line(text) for text in columns]
            if fitted is None:
                return "\t".join(texts)
            padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
            return "  ".join(padded)[:fitted].rstrip()

        lines = map(line, rows)
        while portion := [*islice(lines, PORTION)]:
            await self.lines(portion)

    async def header(self, *columns: str, widths: Sequence[int]) -> None:
        """Name the columns of the rows that follow, if somebody sits there to read it."""
        if self._out_is_terminal:
            await self.row(*columns, widths=widths)

    async def paragraph(self, name: str, text: str, *, width: int) -> None:
        """Write a name and a text: with a tab between them or, on a terminal, the text wrapped."""
        name, text = one_line(name), one_line(text)
        line = f"{name}\t{text}"
        if self._out_is_terminal:
            indent = " " * (width + 2)
            columns = max(shutil.get_terminal_size().columns, width + 24)
            line = textwrap.fill(
                text,
                columns,
                initial_indent=f"{name:{width}}  ",
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        await self._out.write(f"{line}\n")

    async def object(self, fields: Any) -> None:
        """Write a line of JSON."""
        await self.objects((fields,))

    async def objects(self, several: Iterable[Any]) -> None:
        """Write lines of JSON, many at once."""
        lines = (msgspec.json.encode(fields).decode() for fields in several)
        while portion := [*islice(lines, PORTION)]:
            await self.lines(portion)

    # --- stderr -------------------------------------------------------------------------------

    def status(self, text: str, **look: Any) -> None:
        """Tell what goes on, in one line; nothing of it is an answer."""
        if not self.json:
            self._write_status(text, look or {"dim": True})

    @contextmanager
    def progress(self, total: int, what: str) -> Iterator[Callable[[], None]]:
        """Show on a terminal how many of so many are done, as the function is called for each."""
        if self.json or not self._err_is_screen:
            yield lambda: None
            return
        done, shown_at = 0, monotonic()

        def show() -> None:
            self._err.post(f"{_ERASE}{done} of {total} {what}")

        def count() -> None:
            nonlocal done, shown_at
            done += 1
            if monotonic() >= shown_at + PROGRESS_INTERVAL:
                shown_at = monotonic()
                show()

        show()
        self._in_progress = True
        try:
            yield count
        finally:
            self._in_progress = False
            self._err.post(_ERASE)

    def problem(self, text: str) -> None:
        """Tell what is wrong, in one line."""
        self._write_status(f"sigmic-guard: {text}", {"fg": "red"})

    def _write_status(self, text: str, look: dict[str, Any]) -> None:
        line = one_line(text)
        if self._colours:
            line = style(line, **look)
        # Where both are one screen, the line must not continue the answer's.
        begin = "\n" if self._in_line and self._out_is_terminal else ""
        if begin:
            self._in_line = False
        self._post(f"{begin}{line}\n")

    def _post(self, text: str) -> None:
        """Write whole lines to stderr, in the place of progress, which is shown again later."""
        self._err.post(f"{_ERASE}{text}" if self._in_progress else text)

    async def error(self, error: SigmicGuardError) -> None:
        """Tell of an error: in words, and to machines as a line of JSON."""
        self.problem(str(error))
        if self.json:
            fields = {"kind": "error", "error": type(error).__name__, "message": str(error)}
            with suppress(OSError):
                await self._out.write(msgspec.json.encode(fields).decode() + "\n")

    def log_here(self) -> None:
        """Send what is logged as a warning, or worse, to stderr."""
        logging.basicConfig(
            stream=_LogFile(self._post), level=logging.WARNING, format="%(levelname)s: %(message)s"
        )
        # The error that the command ends with says the same, and better.
        self.leave_out("task.never_created")

    def leave_out(self, *events: str) -> None:
        """Log nothing of these: the command says it better itself."""
        logging.getLogger("sigmic_guard").addFilter(
            lambda record: not any(event in record.getMessage() for event in events)
        )

    def flush(self) -> None:
        """Wait for what is not written yet, within reason."""
        self._out.flush()
        self._err.flush()


class _LogFile:
    """As much of a text file as structlog needs."""

    def __init__(self, post: Callable[[str], None]) -> None:
        self._post = post

    def write(self, text: str) -> int:
        self._post(text)
        return len(text)

    def flush(self) -> None:
        pass


def one_line(text: str) -> str:
    """Return ``text`` fit for one line and for any terminal."""
    return _SPACE.sub(" ", text).strip()
