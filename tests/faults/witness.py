"""Sees all that a very curious operator could, and looks for what nobody may see."""

from __future__ import annotations

import io
import logging
import pickle
import sqlite3
import traceback
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Self

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from rich.pretty import pretty_repr

from tests.faults.frames import chain, library_locals, serialised

if TYPE_CHECKING:
    from pathlib import Path

KEY: Final = "sigmic_" + "5ec2e7" * 10 + "cafe"
SECRET: Final = "hunter2-which-nobody-may-see"
#: A key of the user's: it may stand in the column of a row that is for it, and nowhere else.
USER_KEY: Final = "invoice-4711-of-jane-doe"
#: A piece of each is bad enough.
FORBIDDEN: Final = (KEY, KEY[7:], KEY[7:31], SECRET, SECRET[8:])

#: What a leak of our own making says on the way out.
NOISE: Final = ("never awaited", "Unclosed", "was destroyed", "never retrieved")


def secret_options(**more: Any) -> dict[str, Any]:
    """Options with a secret among them; made here, so that they are no local of a test."""
    return {"secrets": {"TOKEN": SECRET, "AGAIN": SECRET}, "env": {"PLAIN": "text"}, **more}


def keyed_options(number: int = 0) -> dict[str, Any]:
    """The same with a key, one of several."""
    return secret_options(key=f"{USER_KEY}-{number}")


def echo(*, secrets: bool = True) -> str:
    """What a server says that repeats all it was sent; after the create it knows no secrets."""
    return f"{SECRET if secrets else ''} and {KEY} are refused"


class Witness:
    """Collects texts from everywhere."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._structured = io.StringIO()
        self._plain = io.StringIO()
        self._handler = logging.StreamHandler(self._plain)
        self._seen: list[str] = []
        self._files: list[str] = []
        #: How many rows of ledgers it has read.
        self.rows = 0

    def __enter__(self) -> Self:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
                ),
                structlog.processors.JSONRenderer(default=repr),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            logger_factory=structlog.PrintLoggerFactory(file=self._structured),
        )
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level)
        structlog.reset_defaults()

    def meet(self, *things: object) -> None:
        """Look at objects as a debugger or a log line would."""
        for thing in things:
            self._seen += [repr(thing), str(thing), pretty_repr(thing)]

    def catch(self, error: BaseException) -> None:
        """Look at an exception as an error reporter would: locals, chain, fields and pickle."""
        for place, value in library_locals(error):
            self._seen += [f"{place} {text}" for text in serialised(value)]
        for link in chain(error):
            report = traceback.TracebackException.from_exception(link, capture_locals=True)
            self._seen += [*report.format(), repr(link), str(link), repr(vars(link))]
        if isinstance(error, Exception):
            pickled = pickle.dumps(error)
            self._seen.append(pickled.decode("latin-1"))
            self.meet(pickle.loads(pickled))

    def read_ledger(self, path: Path) -> None:
        """Look at a SQLite ledger: the rows, and the files as they are, the log of writes too."""
        files = sorted(path.parent.glob(f"{path.name}*"))
        self._files += [file.read_bytes().decode("latin-1") for file in files if file.is_file()]
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
            ledger.row_factory = sqlite3.Row
            names = ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in names:
                for row in ledger.execute(f"SELECT * FROM {table}"):
                    self.rows += 1
                    values = {**dict(row), "key": None}
                    self._seen.append(f"a row of {table}: {values}")

    @property
    def lines(self) -> list[str]:
        """The lines of structlog."""
        return self._structured.getvalue().splitlines()

    @property
    def logged(self) -> str:
        """All log lines, of structlog and of logging."""
        return self._structured.getvalue() + self._plain.getvalue()

    @property
    def text(self) -> str:
        """Everything."""
        exposition = generate_latest(self.registry).decode()
        return "\n".join([*self._seen, self.logged, exposition])

    def check(self) -> None:
        """Fail if anything was seen that nobody may see."""
        text = self.text
        assert "sigmic_guard_tasks_started_total" in text
        for forbidden in FORBIDDEN:
            at = text.find(forbidden)
            assert at < 0, text[max(0, at - 600) : at + 100]
            assert not any(forbidden in file for file in self._files)
        at = text.find(USER_KEY)
        assert at < 0, text[max(0, at - 600) : at + 100]
        for noise in NOISE:
            assert noise not in self.logged, self.logged
