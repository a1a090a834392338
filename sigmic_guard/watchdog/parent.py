"""Starts the helper process, and replaces it if it dies.

The helper reads from a pipe whose other end is ours. However this process dies, the kernel closes
that, and the helper (:mod:`sigmic_guard.watchdog.helper`) reaps at once, instead of whoever starts
next.

One thread looks after it: it starts the helper, waits for its end, and starts another one if that
was not meant to be. The event loop only tells it what it wants.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from logging import WARNING
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final

import msgspec
from anyio import Event, move_on_after

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.ledger.loops import Ending, Loop
from sigmic_guard.observe.channel import Channel
from sigmic_guard.watchdog.messages import EXIT, TAKE_OVER, HelperConfig
from sigmic_guard.watchdog.process import HelperProcess

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.sigmic.credentials import Credential
    from sigmic_guard.sigmic.keyring import Keyring
    from sigmic_guard.supervisor.ground.settings import Settings

#: Seconds to wait for the end of a helper that was told to exit.
EXIT_TIMEOUT: Final = 0.25
#: Seconds before a helper that died is replaced: at first, and when the next ones die as well.
RESTART_DELAY: Final = 0.1
MAX_RESTART_DELAY: Final = 60.0


class Watchdog:
    """The helper process, as its parent sees it.

    Its arguments are the supervisor's. The helper goes on for ``grace`` once it was sent SIGTERM.

    :raises ConfigurationError: the ledger is none that another process can open, or there is no
        Python to run the helper.
    """

    def __init__(self, keyring: Keyring, base_url: str, ledger: Ledger, settings: Settings) -> None:
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
        self._configure = partial(
            HelperConfig,
            base_url=base_url,
            ledger=ledger.path,
            namespace=settings.namespace,
            create_timeout=settings.create_timeout,
            grace=settings.grace,
        )
        self._thread: _HelperThread | None = None

    async def start(self, owner_id: str) -> None:
        """Start the helper; it has yet to import what it needs. The keyring has a credential.

        :raises ConfigurationError: no process can be started here. There is none then.
        """
        credential = self._keyring.credential
        assert credential is not None
        config = self._configure(
            parent=os.getpid(),
            owner_id=owner_id,
            authorization=credential.headers["Authorization"],
            fingerprint=self._keyring.fingerprint,
        )
        try:
            self._thread = thread = _HelperThread(config)
        except RuntimeError as error:
            raise ConfigurationError(f"the watchdog cannot be started: {error}") from error
        await thread.started.wait()
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


class _HelperThread:
    """The thread, and the helper that it looks after.

    :raises RuntimeError: no thread can be started.
    """

    def __init__(self, config: HelperConfig) -> None:
        self.pid = os.getpid()
        #: Set when the first helper runs, or could not be started: then there is an :attr:`error`.
        self.started = Event()
        self.error: OSError | None = None
        self._config = config
        self._loop = Loop()
        self._ended = Event()
        self._helper: HelperProcess | None = None
        #: The last message, once there is one.
        self._last = b""
        self._closing: SimpleQueue[None] = SimpleQueue()
        #: Where our loop is gone nobody calls :meth:`close`: the ledger's thread notices that.
        self._ending = Ending(self._loop, partial(self._send_last, TAKE_OVER))
        # A daemon: the end of the process waits for no helper.
        Thread(target=self._run, name="sigmic-guard: watchdog", daemon=True).start()

    def renew(self, credential: Credential) -> None:
        """Let the helper, and those that come after it, use another credential. Never blocks."""
        if self.pid == os.getpid():
            authorization = credential.headers["Authorization"]
            self._config = msgspec.structs.replace(self._config, authorization=authorization)
            if (helper := self._helper) is not None:
                helper.update(self._config)

    async def close(self, *, clean: bool) -> None:
        """Let the helper go; wait for its end if it has nothing to do."""
        self._ending.forget()
        self._send_last(EXIT if clean else TAKE_OVER)
        if self._last == EXIT:
            with move_on_after(EXIT_TIMEOUT):
                await self._ended.wait()

    def _send_last(self, message: bytes) -> None:
        """Send the last message, if none was sent; never blocks."""
        self._last = self._last or message
        self._closing.put(None)
        if (helper := self._helper) is not None:
            helper.send_last(self._last)

    def _run(self) -> None:
        # The helper inherits the mask: signals that are meant for the service are not for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._helper = HelperProcess(self._config)
        except OSError as error:
            self.error = error
        finally:
            self._loop.call_soon(self.started.set)
        if self.error is None:
            self._keep_running()
        self._loop.call_soon(self._ended.set)

    def _keep_running(self) -> None:
        delay, since = RESTART_DELAY, time.monotonic()
        while True:
            status: int | None = None
            if (helper := self._helper) is not None:
                # Both may have come while there was no helper.
                helper.update(self._config)
                if self._last:
                    helper.send_last(self._last)
                status = helper.wait()
                self._helper = None
            if self._last:
                return
            if time.monotonic() - since > MAX_RESTART_DELAY:
                delay = RESTART_DELAY
            if delay == RESTART_DELAY:
                _log_death(status)
            with suppress(Empty):
                self._closing.get(timeout=delay)
                return
            delay, since = min(2 * delay, MAX_RESTART_DELAY), time.monotonic()
            with suppress(OSError):
                self._helper = HelperProcess(self._config)


def _log_death(status: int | None) -> None:
    """Log that there is no helper now."""
    told = {} if status is None else {"status": status}
    hint = "another one is started; until it runs nobody would end our tasks at our death"
    Channel("sigmic_guard").write(WARNING, "watchdog.died", {**told, "hint": hint})
