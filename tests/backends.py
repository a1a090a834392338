"""The event loops that async tests run on.

A module, class or test chooses with a marker, the closest of which wins::

    pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)

Without one it is ``ASYNCIO``.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final

import pytest
from trio.testing import MockClock

ASYNCIO: Final = pytest.param("asyncio", id="asyncio")

UVLOOP: Final = pytest.param(
    "uvloop",
    id="uvloop",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
    ),
)

#: The same in `make test-all` only, where what matters of uvloop is proven elsewhere as well.
UVLOOP_SLOWLY: Final = pytest.param("uvloop", id="uvloop", marks=[*UVLOOP.marks, pytest.mark.slow])

#: Virtual time: whenever every task waits, the clock jumps to the next deadline, so that
#: ``await anyio.sleep(3600)`` returns at once. A real socket or thread looks idle to that clock:
#: tests under it need fakes in memory.
TRIO_VIRTUAL: Final = pytest.param("trio-virtual", id="trio-virtual")

#: Trio in real time, for the rare test that needs threads there.
TRIO: Final = pytest.param("trio", id="trio")


def for_anyio(name: str) -> tuple[str, dict[str, Any]]:
    """What anyio's plugin and ``anyio.run`` take; the clock is new at each call."""
    match name:
        case "asyncio" | "trio":
            return name, {}
        case "uvloop":
            return "asyncio", {"use_uvloop": True}
        case "trio-virtual":
            return "trio", {"clock": MockClock(autojump_threshold=0)}
        case _:
            raise ValueError(f"no such backend: {name!r}")
