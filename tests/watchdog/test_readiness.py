"""A helper has everything imported before its parent dies: then there is no time for it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard.sigmic.keyring import Keyring
from tests.watchdog.stage import KEY

if TYPE_CHECKING:
    from tests.watchdog.stage import Stage

#: Does what a helper does, and says what was imported from the parent's death on.
PROGRAM = """
import sys
import anyio, msgspec
from sigmic_guard.watchdog import helper
config = msgspec.json.decode(sys.stdin.readline(), type=helper.HelperConfig)
if {warm}:
    anyio.run(helper._warm_up, config)
before = set(sys.modules)
anyio.run(helper.reap, config)
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False])
async def test_nothing_is_imported_after_the_death(stage: Stage, warm: bool) -> None:
    """Neither to open the ledger nor to send the DELETEs; negative control: without warming up."""
    async with stage.victim("without") as victim:
        owner_id = await victim.hear("owner")
        await victim.hear("ready")
        await victim.kill()
    config = {
        "parent": os.getpid(),
        "owner_id": owner_id,
        "namespace": "default",
        "base_url": stage.emulator.url,
        "ledger": str(stage.folder / "ledger.db"),
        "authorization": f"Bearer {KEY}",
        "fingerprint": Keyring(KEY).fingerprint,
        "create_timeout": 1.0,
        "grace": 1.0,
    }
    done = await anyio.run_process(
        [sys.executable, "-c", PROGRAM.format(warm=warm)],
        input=json.dumps(config).encode() + b"\n",
        env=stage.environment,
        stderr=None,
    )
    assert stage.emulator.live == 0
    assert bool(done.stdout.split()) is not warm
