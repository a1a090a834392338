"""A host of one's own, which leaves the signals to Python, around a supervisor that does so too."""

from __future__ import annotations

import asyncio
import logging
import sys

from sigmic_guard import Supervisor
from sigmic_guard.integrations.asgi import Guard


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def main(port: int) -> None:
    async with Supervisor(registry=None) as supervisor:
        guard = Guard(supervisor)
        async with guard.lifespan(None), await asyncio.start_server(hang_up, "127.0.0.1", port):
            await guard.supervisor.start("in the background")
            logging.getLogger(__name__).info("the service is ready")
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(main(int(sys.argv[1])))
