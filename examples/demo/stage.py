"""What plays both acts, and has the last word."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo import death, shutdown
from demo.display import Display
from demo.screens import last_screen
from demo.workload import Size
from sigmic_guard.cli.codes import DONE, INTERRUPTED, NOT_DONE, TERMINATED

if TYPE_CHECKING:
    from demo.verdict import Act

#: Seconds after which the demo gives up.
TIMEOUT: Final = 120.0


@dataclass(frozen=True, slots=True)
class Demo:
    """How the demo is played."""

    tasks: int
    #: The negative control: each DELETE lies, and is believed; the ledger dies with its process.
    lie: bool = False

    def scenes(self, folder: Path) -> tuple[shutdown.Scene, death.Scene]:
        """Return both acts.

        :param folder: where their ledgers are to be: the user's own is none of our business.
        """
        size, first, second = Size(self.tasks), _ledger(folder, "one"), _ledger(folder, "two")
        if self.lie:
            return (
                shutdown.Scene(size, first, shutdown.LIES, confirm="accepted"),
                death.Scene.of(self.tasks, "memory:"),
            )
        return shutdown.Scene(size, first), death.Scene.of(self.tasks, second)


def main(*, tasks: int, svg: Path | None, lie: bool) -> int:
    """Play the demo and return the exit code.

    :param lie: the negative control: each DELETE lies, and is believed; the ledger forgets.
    """
    try:
        return asyncio.run(_main(Demo(tasks, lie), svg))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _main(demo: Demo, svg: Path | None) -> int:
    """Play it; on SIGTERM, end the other processes first."""
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None
    loop.add_signal_handler(signal.SIGTERM, me.cancel, _TERMINATED)
    display = Display()
    try:
        with display:
            acts = await _play(demo, display)
    except asyncio.CancelledError as cancelled:
        if cancelled.args == (_TERMINATED,):
            return TERMINATED
        raise
    except TimeoutError:
        display.phase(f"not done within {TIMEOUT:g} s")
        return NOT_DONE
    display.finish(last_screen(acts), svg)
    return DONE if all(act.verdict.good for act in acts) else NOT_DONE


_TERMINATED: Final = "SIGTERM"


async def _play(demo: Demo, display: Display) -> tuple[Act, Act]:
    """Play both acts.

    :raises TimeoutError: it takes too long. The other processes have been ended.
    """
    with tempfile.TemporaryDirectory(prefix="sigmic-guard-demo-") as folder:
        one, two = demo.scenes(Path(folder))
        async with asyncio.timeout(TIMEOUT):
            return await shutdown.play(one, display), await death.play(two, display)


def _ledger(folder: Path, name: str) -> str:
    return f"sqlite:///{folder / name}.db"
