"""A program made by ``serve``; its argument says how it goes on when its task is live."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import serve

if TYPE_CHECKING:
    from sigmic_guard import Supervisor


async def main(supervisor: Supervisor) -> int:
    await supervisor.start("background")
    async with supervisor.task("scoped"):
        sys.stdout.write(json.dumps({"event": "ready"}) + "\n")
        sys.stdout.flush()
        match sys.argv[1]:
            case "forever":
                await anyio.sleep_forever()
            case "raise":
                raise ValueError("a bug")
    return 5


if __name__ == "__main__":
    sys.exit(serve(main, grace=5, registry=CollectorRegistry()))
