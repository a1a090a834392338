"""The credential in use, and how the next one is had: :class:`Keyring`.

A credential may expire or be rotated while a client lives. Where it came from a callable, that is
asked again once the API refuses it in its own words.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from hashlib import sha256
from inspect import isawaitable
from math import inf
from typing import Final, NoReturn, Self, TypeAlias

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.values import check_text
from sigmic_guard.sigmic.credentials import Credential, Redactor

__all__ = ["ACCOUNT_VARIABLE", "ApiKey", "Keyring"]

#: A credential, or who gives one whenever it is asked.
ApiKey: TypeAlias = str | Callable[[], str | Awaitable[str]]

#: Whose tasks these are comes from here when no account is given.
ACCOUNT_VARIABLE: Final = "SIGMIC_ACCOUNT"

#: Seconds that a callable may take to give a credential.
ASK_TIMEOUT: Final = 10.0
#: Seconds to wait for it where nothing else is bounded: it is told before that.
FIRST_TIMEOUT: Final = ASK_TIMEOUT + 1.0
#: Seconds from one answer of a callable until it is asked again.
ASK_INTERVAL: Final = 5.0
#: Credentials that were in use, and are taken out of texts.
MAX_KNOWN: Final = 4
#: Seconds that closing waits for a callable that is being asked.
MAX_CLOSE: Final = 1.0


class Keyring:
    """Holds the credential in use; shows its fingerprint and no more.

    It belongs to the event loop that asks first.

    :param given: a credential; who gives one, a plain or an async callable; or ``None`` for the
        environment's.
    :param account: whose tasks these are, instead of the credential; default: ``SIGMIC_ACCOUNT``,
        if that is set.
    :param fingerprint: what another process made of its account or its first credential.
    :raises ConfigurationError: no or no possible credential, or account.
    """

    def __init__(
        self,
        given: ApiKey | None = None,
        *,
        account: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self._fingerprint: str | None = None  # a traceback may ask for the repr
        try:
            self._source = given if callable(given) else None
            self._credential = None if callable(given) else Credential(given)
        finally:
            del given
        self._fingerprint = fingerprint or _account_fingerprint(account)
        if self._fingerprint is None and self._credential is not None:
            self._fingerprint = self._credential.fingerprint
        self._known: deque[Redactor] = deque(maxlen=MAX_KNOWN)
        #: Takes the credentials that are, or were, in use out of a text.
        self.redact = Redactor(())
        if self._credential is not None:
            self._remember(self._credential)
        #: Told of each credential that comes into use.
        self.listeners: list[Callable[[Credential], None]] = []
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = -inf
        self._problem = ""
        # Whoever's request is refused first has nothing to do with how the next one is had.
        self._context = copy_context()

    @classmethod
    def of(cls, given: ApiKey | Self | None, account: str | None = None) -> Self:
        """Return a keyring for what a user gave; one that is a keyring already is shared."""
        try:
            if issubclass(type(given), cls):
                return given  # type: ignore[return-value]
            return cls(given, account=account)  # type: ignore[arg-type]
        finally:
            del given  # a traceback that is printed with its locals must not show it

    def __repr__(self) -> str:
        return f"Keyring(fingerprint={self._fingerprint!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A keyring cannot be pickled or copied.")

    @property
    def credential(self) -> Credential | None:
        """The one in use; ``None`` before a callable was asked."""
        return self._credential

    @property
    def renewable(self) -> bool:
        """Whether there is somebody to ask for another one."""
        return self._source is not None

    @property
    def fingerprint(self) -> str:
        """A short hash that tells one account's tasks from another's; it never changes.

        :raises ConfigurationError: it depends on a callable that was not asked yet.
        """
        if self._fingerprint is None:
            raise ConfigurationError(
                "the fingerprint of the credential is not known before the first request; "
                "account=… makes one that does not depend on the credential"
            )
        return self._fingerprint

    @property
    def hint(self) -> str:
        """Why there is no better credential than the one that was refused, if that was tried."""
        return self._problem

    async def ready(self, timeout: float) -> Credential:
        """Return the credential in use; ask for the first one, for at most ``timeout`` seconds.

        :raises ConfigurationError: there is none.
        """
        if self._credential is None:
            await self._ask(timeout)
        if self._credential is None:
            raise ConfigurationError(self._problem or "api_key=… has not given a credential yet")
        return self._credential

    async def renew(self, refused: Credential, timeout: float) -> bool:
        """Ask for another credential than the one that the API refused; ``True`` if there is one.

        Whoever comes meanwhile shares the asking, which goes on after ``timeout`` (seconds).
        """
        if self._credential is refused and self._source is not None:
            await self._ask(timeout)
        return self._credential is not refused

    def stop(self) -> None:
        """Leave who is being asked alone."""
        if self._asking is not None:
            self._asking.cancel()

    async def aclose(self) -> None:
        """Do that, and wait for it, within a second."""
        self.stop()
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=MAX_CLOSE)

    async def _ask(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if self._asking is None:
            if loop.time() < self._asked_at + ASK_INTERVAL:
                return
            self._problem = ""
            # A task of its own: a request that is given up must not take this with it.
            self._asking = loop.create_task(self._renew(), context=self._context)
        await asyncio.wait({self._asking}, timeout=timeout)
        if self._asking is not None:
            self._problem = "api_key=… was asked for another one, and has not answered yet"

    async def _renew(self) -> None:
        """Ask, and take what comes; whatever else happens is told by type, and in no other way."""
        assert self._source is not None
        scope = asyncio.timeout(ASK_TIMEOUT)
        try:
            async with scope:
                value = self._source()
                if isawaitable(value):
                    value = await value
            self._problem = self._take(value)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self._problem = "api_key=… was asked for one, and raised CancelledError"
        except TimeoutError:
            self._problem = (
                f"api_key=… was asked for one, and did not answer within {ASK_TIMEOUT:g} s"
                if scope.expired()
                else "api_key=… was asked for one, and raised TimeoutError"
            )
        except Exception as error:  # noqa: BLE001 - a user's, which may hold anything
            self._problem = f"api_key=… was asked for one, and raised {type(error).__name__}"
        finally:
            self._asked_at = asyncio.get_running_loop().time()
            self._asking = None

    def _take(self, value: object) -> str:
        """Take a credential into use, or say why not."""
        if not isinstance(value, str):
            return f"api_key=… was asked for one, and gave no string but {type(value).__name__}"
        try:
            credential = Credential(str.__str__(value))
        except ConfigurationError:
            return "api_key=… was asked for one, and what it gave has not the shape of a credential"
        if self._credential is not None and credential.headers == self._credential.headers:
            return "api_key=… was asked for another one, and gave the same again"
        self._credential = credential
        if self._fingerprint is None:
            self._fingerprint = credential.fingerprint
        self._remember(credential)
        for listener in self.listeners:
            listener(credential)
        return ""

    def _remember(self, credential: Credential) -> None:
        self._known.append(credential.redactor())
        self.redact = Redactor.of(self._known)


def _account_fingerprint(account: str | None) -> str | None:
    if account is None:
        account = os.environ.get(ACCOUNT_VARIABLE) or None
    if account is None:
        return None
    account = check_text("account", account, empty=False)
    return sha256(b"sigmic_guard account\0" + account.encode()).hexdigest()[:12]
