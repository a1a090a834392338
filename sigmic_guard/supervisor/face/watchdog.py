"""The watchdog, as far as a supervisor knows it.

The real one, :mod:`sigmic_guard.watchdog`, reaps with a supervisor of its own. So it stands above
this package and cannot be imported here: ``sigmic_guard/__init__.py`` sets :data:`make_watchdog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.sigmic.keyring import Keyring
    from sigmic_guard.supervisor.ground.settings import Settings


class Watchdog(Protocol):
    """A helper process that reaps this process's tasks at its death."""

    async def start(self, owner_id: str) -> None:
        """Start the helper; the keyring has a credential by now.

        :raises ConfigurationError: it cannot be started. There is none then.
        """

    async def close(self, *, clean: bool) -> None:
        """Let the helper go; it can be called again.

        :param clean: nothing is left to be done. Else the helper goes on alone.
        """


#: What ``Supervisor(watchdog=True)`` calls with its keyring, base URL, ledger and settings.
#: Raises ``ConfigurationError`` where there can be no watchdog.
make_watchdog: Callable[[Keyring, str, Ledger, Settings], Watchdog]
