"""``Supervisor(watchdog=True)``: a small helper process that ends our tasks when we are gone.

It reads from a pipe whose other end is ours. However this process dies, the kernel closes that, and
the helper (:mod:`sigmic_guard.watchdog.helper`) reaps at once, instead of whoever starts next.

One thread looks after it: it starts the helper, waits for its end, and starts another one if that
was not meant to be. The event loop only tells it what it wants.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from logging import WARNING
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import DEVNULL, Popen
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final

import msgspec
from anyio import Event, from_thread, move_on_after

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.ledger.forks import gate, in_child
from sigmic_guard.ledger.loops import Ending, Loop
from sigmic_guard.observe.channel import Channel

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.sigmic.credentials import Credential
    from sigmic_guard.sigmic.keyring import Keyring

#: What the helper hears where nothing is left to be done: it goes.
BYE: Final = b"bye\n"
#: What it hears where something is: it goes on as if we had died, as soon as our lock is gone.
GO_ON: Final = b"go on\n"
#: What a line begins with that brings another credential, in JSON.
RENEWED: Final = b"renewed "
#: Seconds that a helper may take to be gone, beyond which nobody waits for it.
PATIENCE: Final = 0.25
#: Seconds before a helper that died is replaced: at first, and when the next ones die as well.
PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 60.0


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What the helper is told on its standard input, in one line of JSON."""

    parent: int
    owner_id: str
    namespace: str
    base_url: str
    ledger: str
    authorization: str
    #: Of the account, or of the first credential: whose rows are ours.
    fingerprint: str
    create_timeout: float
    grace: float

    def __repr__(self) -> str:
        return f"<Charge of {self.owner_id}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("owner_id", self.owner_id)]


class Watchdog:
    """The helper process, as its parent sees it.

    :param keyring: holds the credential of the tasks.
    :param ledger: that of the tasks.
    :param create_timeout: seconds that their creates may take.
    :param grace: seconds that the helper may go on for once it was sent SIGTERM.
    :raises ConfigurationError: the ledger is none that another process can open, or there is no
        Python to run the helper.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        base_url: str,
        ledger: Ledger,
        namespace: str,
        create_timeout: float,
        grace: float,
    ) -> None:
        if not isinstance(ledger, SqliteLedger):
            raise ConfigurationError(
                "a watchdog needs a ledger in a file, named by its URL or a SqliteLedger"
            )
        if not sys.executable or getattr(sys, "frozen", False):
            raise ConfigurationError(
                "a watchdog needs a Python interpreter to run, and sys.executable names none; "
                "run the program under `sigmic-guard exec` instead"
            )
        self._keyring = keyring
        self._base_url = base_url
        self._ledger = ledger.path
        self._namespace = namespace
        self._create_timeout = create_timeout
        self._grace = grace
        self._thread: _Keeper | None = None

    async def start(self, owner_id: str) -> None:
        """Start the helper, and tell it what to do. It has yet to import what it needs.

        The keyring has a credential by now.

        :raises ConfigurationError: no process can be started here. There is none then.
        """
        credential = self._keyring.credential
        assert credential is not None
        charge = Charge(
            parent=os.getpid(),
            owner_id=owner_id,
            namespace=self._namespace,
            base_url=self._base_url,
            ledger=self._ledger,
            authorization=credential.headers["Authorization"],
            fingerprint=self._keyring.fingerprint,
            create_timeout=self._create_timeout,
            grace=self._grace,
        )
        try:
            self._thread = thread = _Keeper(charge)
        except RuntimeError as error:
            raise ConfigurationError(f"the watchdog cannot be started: {error}") from error
        await thread.begun.wait()
        if (problem := thread.error) is not None:
            self._thread = None
            raise ConfigurationError(f"the watchdog cannot be started: {problem}") from problem
        self._keyring.listeners.append(thread.renew)

    async def close(self, *, clean: bool) -> None:
        """Let the helper go. Takes half a second at most, and can be called again.

        :param clean: nothing is left to be done. Else it goes on without us.
        """
        if self._thread is not None and self._thread.pid == os.getpid():
            await self._thread.close(clean=clean)


class _Keeper:
    """The thread, and the helper that it looks after.

    :raises RuntimeError: no thread can be started.
    """

    def __init__(self, charge: Charge) -> None:
        self.pid = os.getpid()
        #: The first helper runs, or there is an :attr:`error`.
        self.begun = Event()
        self.error: OSError | None = None
        self._charge = charge
        self._loop = Loop()
        self._gone = Event()
        self._helper: _Helper | None = None
        self._word = b""
        self._over: SimpleQueue[None] = SimpleQueue()
        #: Where our loop is gone nobody will say a word: the ledger's thread notices it.
        self._ending = Ending(self._loop, self._let_go)
        # A daemon: the end of the process waits for no helper.
        Thread(target=self._work, name="sigmic-guard: watchdog", daemon=True).start()

    def renew(self, credential: Credential) -> None:
        """Let the helper, and those that come after it, use another credential. Never blocks."""
        if self.pid == os.getpid():
            authorization = credential.headers["Authorization"]
            self._charge = msgspec.structs.replace(self._charge, authorization=authorization)
            if (helper := self._helper) is not None:
                helper.update(self._charge)

    async def close(self, *, clean: bool) -> None:
        """Let the helper go, and wait for its end if it is the end."""
        self._ending.forget()
        self._say(BYE if clean else GO_ON)
        if self._word == BYE:
            with move_on_after(PATIENCE):
                await self._gone.wait()

    def _let_go(self) -> None:
        self._say(GO_ON)

    def _say(self, word: bytes) -> None:
        self._word = self._word or word
        self._over.put(None)
        if (helper := self._helper) is not None:
            helper.hear(self._word)

    def _work(self) -> None:
        # The helper inherits this. What is meant for the service is not for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._helper = _Helper(self._charge)
        except OSError as error:
            self.error = error
        finally:
            self._ring(self.begun)
        if self.error is None:
            self._keep()
        self._ring(self._gone)

    def _keep(self) -> None:
        pause, since = PAUSE, time.monotonic()
        while True:
            status: int | None = None
            if (helper := self._helper) is not None:
                helper.update(self._charge)  # it may have changed before there was somebody to hear
                if self._word:
                    helper.hear(self._word)  # it was said before there was somebody to hear it
                status = helper.wait()
                self._helper = None
            if self._word:
                return
            if time.monotonic() - since > LONGEST_PAUSE:
                pause = PAUSE
            if pause == PAUSE:
                _tell(status)
            with suppress(Empty):
                self._over.get(timeout=pause)
                return
            pause, since = min(2 * pause, LONGEST_PAUSE), time.monotonic()
            with suppress(OSError):
                self._helper = _Helper(self._charge)

    def _ring(self, event: Event) -> None:
        token = self._loop.token
        with suppress(RuntimeError):  # the loop is closed
            if token is not None:
                from_thread.run_sync(event.set, token=token)


class _Helper:
    """One process, and our end of the pipe.

    :raises OSError: it cannot be started, or told what to do.
    """

    def __init__(self, charge: Charge) -> None:
        self._lock = Lock()
        #: What it was told, and what of that the pipe had no room for.
        self._charge = charge
        self._unsaid = b""
        self._process: Popen[bytes] | None = None
        with gate:  # no fork happens between the pipe's birth and its being on the list
            # The end that is read stays open here too: so no word is ever said to nobody, which
            # would end a process that has SIGPIPE's default action.
            self._fds: tuple[int, ...] = os.pipe()
            _helpers.add(self)
        try:
            os.set_blocking(self._fds[1], False)
            # Before it is there: so there is none that was told nothing, whenever we die.
            self._write(_search_path())
            self._write(msgspec.structs.asdict(charge))
            self._process = Popen(
                [
                    sys.executable,
                    "-P",  # nothing is imported from the current folder; where modules are, we say
                    "-c",
                    (
                        "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
                        "from sigmic_guard.watchdog.helper import main; main()"
                    ),
                ],
                stdin=self._fds[0],
                env=_environment(),
                # It must not keep open what others read to its end.
                stdout=DEVNULL,
                stderr=DEVNULL,
                cwd="/",
                start_new_session=True,  # what a terminal sends to our group is not for it
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

    def update(self, charge: Charge) -> None:
        """Tell it another credential, if it is another; never blocks."""
        with self._lock:  # held for no longer than a write that does not block takes
            if charge.authorization != self._charge.authorization:
                self._charge = charge
                self._write_on(RENEWED + json.dumps(charge.authorization).encode() + b"\n")

    def _write_on(self, word: bytes) -> None:
        """Write a word after what is still to be said before it, as far as there is room."""
        self._unsaid += word
        if self._fds:
            with suppress(OSError):
                self._unsaid = self._unsaid[os.write(self._fds[1], self._unsaid) :]

    def hear(self, word: bytes) -> None:
        """Say our last word; never blocks."""
        if self._lock.acquire(blocking=False):  # else it is gone, and is being put away
            try:
                self._say(word)
            finally:
                self._lock.release()

    def _say(self, word: bytes) -> None:
        if not self._fds:
            return
        assert self._process is not None
        self._write_on(word)
        if word == BYE:
            # It has nothing to do, and may be stopped, or be importing. Who has given up the rights
            # to do this since has said a word.
            with suppress(PermissionError):
                self._process.kill()

    def _write(self, thing: object) -> None:
        """Write a line of JSON, which has room in an empty pipe.

        :raises OSError: it has not.
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
            _helpers.discard(self)
            fds, self._fds = self._fds, ()
            for fd in fds:
                with suppress(OSError):  # somebody closed it who closes all there are
                    os.close(fd)

    def renounce(self) -> None:
        """Be no parent of it, in a forked child."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            with suppress(OSError):
                os.close(fd)
        if self._process is not None:
            self._process.returncode = 0  # nobody is to wait for it here, or to complain


#: Those whose pipe is open. A forked child closes what it inherited: else a helper would not notice
#: our death for as long as the child lives.
_helpers: Final[set[_Helper]] = set()


@in_child
def _renounce_all() -> None:
    for helper in _helpers:
        helper.renounce()
    _helpers.clear()


def _environment() -> dict[str, str]:
    """Return ours, without what this interpreter was told to ignore."""
    ignored = "PYTHON" if sys.flags.ignore_environment else "\0"
    return {name: text for name, text in os.environ.items() if not name.startswith(ignored)}


def _search_path() -> list[str]:
    """Return where modules are looked for, whatever the folder is that the helper is in."""
    found: list[str] = []
    for entry in sys.path:
        with suppress(OSError, TypeError):  # there is no current folder; it is no path
            found.append(str(Path(entry).absolute()))
    return found


def _tell(status: int | None) -> None:
    """Tell that there is no helper now."""
    told = {} if status is None else {"status": status}
    hint = "another one is started; until it runs nobody would end our tasks at our death"
    Channel("sigmic_guard").write(WARNING, "watchdog.died", {**told, "hint": hint})
