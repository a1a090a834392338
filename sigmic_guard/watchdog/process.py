"""One helper process, and our end of the pipe that is its standard input."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, Popen
from threading import Lock
from typing import TYPE_CHECKING, Final

import msgspec

from sigmic_guard.ledger.forks import gate, in_child
from sigmic_guard.watchdog.messages import EXIT, NEW_CREDENTIAL

if TYPE_CHECKING:
    from sigmic_guard.watchdog.messages import HelperConfig


class HelperProcess:
    """A helper, and the pipe to it.

    :raises OSError: it cannot be started, or told what to do.
    """

    def __init__(self, config: HelperConfig) -> None:
        self._lock = Lock()
        #: What it was told, and what of that the pipe had no room for yet.
        self._config = config
        self._unsent = b""
        self._process: Popen[bytes] | None = None
        with gate:  # no fork happens before the pipe is in the set
            # We keep the reading end open as well: a write to a helper that died would else raise
            # SIGPIPE, whose default action ends us.
            self._fds: tuple[int, ...] = os.pipe()
            helpers.add(self)
        try:
            os.set_blocking(self._fds[1], False)
            # Before it is started: whenever we die, no helper runs that does not know these.
            self._write(_search_path())
            self._write(msgspec.structs.asdict(config))
            self._process = Popen(
                [
                    sys.executable,
                    "-P",  # nothing is imported from the current folder, only from our search path
                    "-c",
                    (
                        "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
                        "from sigmic_guard.watchdog.helper import main; main()"
                    ),
                ],
                stdin=self._fds[0],
                env=_environment(),
                # It must not keep pipes open that others read to their end.
                stdout=DEVNULL,
                stderr=DEVNULL,
                cwd="/",
                start_new_session=True,  # the terminal's signals are not for it
            )
        except BaseException:
            self._close()
            raise

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        assert self._process is not None
        status = self._process.wait()
        self._close()
        return status

    def update(self, config: HelperConfig) -> None:
        """Send it the new credential, if there is one; never blocks."""
        with self._lock:  # held for no longer than a write that does not block takes
            if config.authorization != self._config.authorization:
                self._config = config
                self._send(NEW_CREDENTIAL + json.dumps(config.authorization).encode() + b"\n")

    def send_last(self, message: bytes) -> None:
        """Send the last message, and end a helper that is to exit; never blocks."""
        if not self._lock.acquire(blocking=False):
            return  # its pipe is being closed: it has ended
        try:
            if not self._fds:
                return
            assert self._process is not None
            self._send(message)
            if message == EXIT:
                # It may be stopped, or still be importing. Where we have given up the rights to
                # kill it, the message has to do.
                with suppress(PermissionError):
                    self._process.kill()
        finally:
            self._lock.release()

    def _send(self, message: bytes) -> None:
        """Write what was not sent yet, and the message, as far as the pipe has room."""
        self._unsent += message
        if self._fds:
            with suppress(OSError):
                self._unsent = self._unsent[os.write(self._fds[1], self._unsent) :]

    def _write(self, thing: object) -> None:
        """Write a line of JSON.

        :raises OSError: it does not fit into the pipe.
        """
        line = json.dumps(thing).encode() + b"\n"
        try:
            if os.write(self._fds[1], line) < len(line):
                raise OSError("a pipe has too little room")
        finally:
            # A traceback that is printed with its locals must not show them.
            del line, thing

    def _close(self) -> None:
        with gate, self._lock:
            helpers.discard(self)
            fds, self._fds = self._fds, ()
            for fd in fds:
                with suppress(OSError):  # the program closed all descriptors
                    os.close(fd)

    def disown(self) -> None:
        """Close our copies of the pipe, in a forked child, and be no parent of it."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            with suppress(OSError):
                os.close(fd)
        if self._process is not None:
            self._process.returncode = 0  # nothing waits for it here, or warns


#: Those whose pipe is open. A forked child closes its copies: else a helper would not notice our
#: death while the child lives.
helpers: Final[set[HelperProcess]] = set()


@in_child
def _disown_all() -> None:
    for helper in helpers:
        helper.disown()
    helpers.clear()


def _environment() -> dict[str, str]:
    """Return our environment, without the variables that this interpreter was told to ignore."""
    ignored = "PYTHON" if sys.flags.ignore_environment else "\0"
    return {name: text for name, text in os.environ.items() if not name.startswith(ignored)}


def _search_path() -> list[str]:
    """Return ``sys.path`` in absolute paths: the helper runs in another folder."""
    found: list[str] = []
    for entry in sys.path:
        with suppress(OSError, TypeError):  # the current folder is gone; the entry is no path
            found.append(str(Path(entry).absolute()))
    return found
