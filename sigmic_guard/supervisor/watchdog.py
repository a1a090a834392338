"""``Supervisor(watchdog=True)``: a small helper process that ends our tasks when we are gone.

It holds the other end of a pipe that nobody writes to. However this process dies, the kernel closes
the pipe, and the helper (:mod:`sigmic_guard.supervisor.helper`) reaps at once, instead of whoever
starts next.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Final

import msgspec
from anyio import to_thread

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.ledger.forks import gate, in_child

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.sigmic.credentials import Credential

#: What is written before the pipe is closed on purpose.
BYE: Final = b"bye\n"
#: Seconds that the helper has to leave after that.
PATIENCE: Final = 5.0

#: The pipes to our helpers. A forked child closes what it inherited: else a helper would not notice
#: our death for as long as the child lives.
_pipes: Final[set[int]] = set()


@in_child
def _close_all() -> None:
    for fd in _pipes:
        with suppress(OSError):
            os.close(fd)
    _pipes.clear()


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What the helper is told on its standard input, in one line of JSON."""

    owner_id: str
    namespace: str
    base_url: str
    ledger: str
    authorization: str

    def __repr__(self) -> str:
        return f"<Charge of {self.owner_id}>"


class Watchdog:
    """The helper process, as its parent sees it.

    :param credential: that of the tasks.
    :param ledger: that of the tasks.
    :raises ConfigurationError: the ledger is none that another process can open.
    """

    def __init__(
        self, credential: Credential, *, base_url: str, ledger: Ledger, namespace: str
    ) -> None:
        if not isinstance(ledger, SqliteLedger):
            raise ConfigurationError(
                "a watchdog needs a ledger in a file, named by its URL or a SqliteLedger"
            )
        self._credential = credential
        self._base_url = base_url
        self._ledger = f"sqlite:///{ledger.path}"
        self._namespace = namespace
        self._process: Popen[bytes] | None = None

    async def start(self, owner_id: str) -> None:
        """Start the helper.

        :raises ConfigurationError: no process can be started here. There is none then.
        """
        charge = Charge(
            owner_id=owner_id,
            namespace=self._namespace,
            base_url=self._base_url,
            ledger=self._ledger,
            authorization=self._credential.headers["Authorization"],
        )
        try:
            await to_thread.run_sync(self._start, charge)
        except OSError as error:
            await self.close()
            raise ConfigurationError(f"the watchdog cannot be started: {error}") from error

    def _start(self, charge: Charge) -> None:
        with gate:  # no fork happens between the pipe's birth and its being on the list
            process = self._process = Popen(
                [sys.executable, "-m", "sigmic_guard.supervisor.helper"],
                stdin=PIPE,
                stdout=DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # what a terminal sends to our group is not for it
            )
            assert process.stdin is not None
            _pipes.add(process.stdin.fileno())
        process.stdin.write(msgspec.json.encode(charge, enc_hook=str) + b"\n")
        process.stdin.flush()

    async def close(self) -> None:
        """Let the helper go home."""
        process, self._process = self._process, None
        if process is not None:
            await to_thread.run_sync(_dismiss, process)


def _dismiss(process: Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # it may have gone before
        process.stdin.write(BYE)
        process.stdin.flush()
    with gate:
        _pipes.discard(process.stdin.fileno())
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(PATIENCE)
    except TimeoutExpired:
        process.kill()
        process.wait()
