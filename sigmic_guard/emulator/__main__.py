"""`python -m sigmic_guard.emulator`: the emulator as a process of its own."""

import argparse
import asyncio
import contextlib
import signal
import sys

from sigmic_guard.emulator.emulator import Emulator
from sigmic_guard.emulator.script import Script
from sigmic_guard.emulator.service import DELETE_FINISHED


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    options = _parser().parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    emulator = Emulator(
        host=options.host,
        port=options.port,
        script=options.script,
        api_key=options.api_key,
        heartbeat=options.heartbeat,
        seed=options.seed,
        delete_finished=options.delete_finished,
        wrap_events=options.wrap_events,
    )
    async with emulator:
        sys.stdout.write(f"listening on {emulator.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sigmic_guard.emulator",
        description="A Sigmic server on this machine. Prints the URL that it listens on.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free one")
    parser.add_argument(
        "--script",
        type=Script.from_json,
        default=Script(),
        help='JSON of Script fields, such as \'{"duration": 2, "chunks": ["Hi"]}\'',
    )
    parser.add_argument("--api-key", action="append", help="accept only this; may be repeated")
    parser.add_argument("--heartbeat", type=float, default=15.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' probabilities")
    parser.add_argument("--delete-finished", choices=DELETE_FINISHED, default="conflict")
    parser.add_argument("--wrap-events", action="store_true")
    return parser


if __name__ == "__main__":
    main()
