"""Where the examples run: the real API, given a key; else an emulator of it, in this process.

Run them from the checkout: ``python examples/timeout.py``.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sigmic_guard.emulator import Emulator, Script


@asynccontextmanager
async def sigmic(*, fails: str | None = None, **script: Any) -> AsyncIterator[None]:
    """Have a remote system that ``Supervisor()`` finds in the environment.

    :param fails: the message of the one task that fails, on the emulator.
    :param script: how all others go there: ``duration=2.0``, ``chunks=("4",)``, …
    """
    os.environ.setdefault("SIGMIC_GUARD_LEDGER", "memory:")  # an example leaves nothing at home
    if os.environ.get("SIGMIC_API_KEY"):
        yield
        return
    async with Emulator(script=Script(**script)) as emulator:
        if fails is not None:
            emulator.script_for(fails, Script(fail="the agent gave up"))
        os.environ.update(SIGMIC_API_KEY="sigmic_example", SIGMIC_BASE_URL=emulator.url)
        yield
        print(f"Tasks on the emulator: {len(emulator.tasks)}; still running: {emulator.live}")
