"""A Sigmic server on this machine, for demos and tests: real HTTP, scripted tasks, injected faults.

    async with Emulator(script=Script(duration=0.2)) as emulator:
        emulator.fault("delete", Fault("status", status=503, times=2))
        ...  # a client with base_url=emulator.url
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)

It imports nothing else of sigmic_guard: what it believes of the API is its own. The model behind
it, `service` and what that builds on, is pure, and can be had without the server: that one is
imported at the first look at `Emulator`.
"""

from typing import TYPE_CHECKING

from sigmic_guard.emulator.faults import Fault
from sigmic_guard.emulator.log import RequestSeen
from sigmic_guard.emulator.script import Script
from sigmic_guard.emulator.world import Task

if TYPE_CHECKING:
    from sigmic_guard.emulator.emulator import Emulator

__all__ = ["Emulator", "Fault", "RequestSeen", "Script", "Task"]


def __getattr__(name: str) -> object:
    if name == "Emulator":
        from sigmic_guard.emulator.emulator import Emulator  # noqa: PLC0415 - with a web server

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
