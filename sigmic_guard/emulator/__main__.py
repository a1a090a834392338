"""`python -m sigmic_guard.emulator`: the emulator as a process of its own."""

import argparse
import asyncio
import contextlib
import errno
import os
import shlex
import signal
import sys
from typing import Final

from sigmic_guard.emulator.emulator import Emulator
from sigmic_guard.emulator.script import Script
from sigmic_guard.emulator.service import DELETE_FINISHED

#: Any key will do, unless some were named.
ANY_KEY: Final = "sigmic_emulator"


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = _parser()
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_serve(options))
        except OSError as error:
            parser.exit(3, f"{parser.prog}: {_why(error, options)}\n")


def _why(error: OSError, options: argparse.Namespace) -> str:
    where = f"port {options.port} of {options.host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: give another --port, or none for any that is free"
    if error.errno is None or error.errno < 0:  # the name service's
        return f"there is no {where}: {error.strerror or error}"
    return f"{where} cannot be listened on: {os.strerror(error.errno)}"


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
        key = options.api_key[0] if options.api_key else ANY_KEY
        sys.stdout.write(
            f"listening on {emulator.url}\n"
            f"export SIGMIC_BASE_URL={emulator.url}\n"
            f"export SIGMIC_API_KEY={shlex.quote(key)}\n"
        )
        sys.stdout.flush()
        await stopped.wait()


def _script(text: str) -> Script:
    try:
        return Script.from_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sigmic_guard.emulator",
        description="A Sigmic server on this machine. Prints the URL that it listens on, and what "
        "a shell needs to use it. A task that no script tells otherwise completes at once.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free one")
    parser.add_argument(
        "--script",
        type=_script,
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
