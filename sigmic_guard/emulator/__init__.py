"""A Sigmic server on this machine, for demos and tests: real HTTP, scripted tasks, injected faults.

    async with Emulator(script=Script(duration=0.2)) as emulator:
        emulator.fault("delete", Fault("status", status=503, times=2))
        ...  # a client with base_url=emulator.url
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)

It imports nothing else of sigmic_guard: what it believes of the API is its own.
"""

from sigmic_guard.emulator.emulator import Emulator
from sigmic_guard.emulator.faults import Fault
from sigmic_guard.emulator.log import RequestSeen
from sigmic_guard.emulator.script import Script
from sigmic_guard.emulator.world import Task

__all__ = ["Emulator", "Fault", "RequestSeen", "Script", "Task"]
