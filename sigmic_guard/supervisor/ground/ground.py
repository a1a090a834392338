"""What all rooms of a supervisor stand on: :class:`Ground`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sigmic_guard.errors import SupervisorShutdown

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.observe import Observers
    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.supervisor.ground.affinity import Affinity
    from sigmic_guard.supervisor.ground.inbox import Inbox
    from sigmic_guard.supervisor.ground.lifetime import Lifetime
    from sigmic_guard.supervisor.ground.outbox import Outbox
    from sigmic_guard.supervisor.ground.readings import Readings
    from sigmic_guard.supervisor.ground.roster import Roster
    from sigmic_guard.supervisor.ground.settings import Settings
    from sigmic_guard.supervisor.ground.timer import Timer
    from sigmic_guard.supervisor.ground.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is true of one supervisor, from its start to its end."""

    api: TaskApi
    ledger: Ledger
    observer: Observers
    settings: Settings
    lifetime: Lifetime
    #: By which the ledger knows it.
    owner_id: str
    timer: Timer
    workers: Workers
    outbox: Outbox
    roster: Roster
    readings: Readings
    inbox: Inbox
    affinity: Affinity

    def check_here(self) -> None:
        """Refuse to be awaited elsewhere, and let what was asked for before count as before.

        :raises ConfigurationError: this is another event loop, or a forked child.
        """
        self.affinity.check()
        self.inbox.flush()

    def check_open(self) -> None:
        """Refuse what comes too late.

        :raises SupervisorShutdown: the supervisor is closing, or closed.
        """
        if self.lifetime.closing:
            raise SupervisorShutdown("the supervisor is shutting down and takes no task")

    def check_running(self) -> None:
        """Refuse what comes after the end.

        :raises SupervisorShutdown: the supervisor is closed.
        """
        if self.lifetime.closed:
            raise SupervisorShutdown("the supervisor is closed")
