"""A program with remote tasks, as people write them; told on its command line what kind it is.

It prints one JSON object a line: ``ready`` when its tasks are live, and at its end what its
handlers saw, what came out, and which handlers stand now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor

NUMBERS = (signal.SIGTERM, signal.SIGINT)
OWN_STATUS = 7

seen: list[str] = []
report: dict[str, Any] = {}


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def own_handler(number: int, frame: object) -> None:
    seen.append(signal.Signals(number).name)


def exit_handler(number: int, frame: object) -> None:
    own_handler(number, frame)
    sys.exit(3)


HANDLERS: dict[str, Any] = {
    "default": None,
    "own": own_handler,
    "exit": exit_handler,
    "ignore": signal.SIG_IGN,
}


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in NUMBERS]


async def scoped(supervisor: Supervisor, message: str) -> None:
    async with supervisor.task(message):
        await anyio.sleep_forever()


async def body(supervisor: Supervisor, options: argparse.Namespace) -> None:
    async with anyio.create_task_group() as group:
        tasks = [await supervisor.start(f"background {n}") for n in range(options.background)]
        for number in range(options.scoped):
            group.start_soon(scoped, supervisor, f"scoped {number}")
        say(event="ready")
        match options.wait:
            case "forever":
                await anyio.sleep_forever()
            case "tasks":
                for task in tasks:
                    await task.wait()


def listen() -> None:
    loop = asyncio.get_running_loop()
    for number in NUMBERS:
        loop.add_signal_handler(number, own_handler, number, None)


async def main(options: argparse.Namespace) -> None:
    if options.handlers == "loop":
        listen()
    before = handlers()
    supervisor = Supervisor(
        signals=options.signals, grace=options.grace, registry=CollectorRegistry()
    )
    try:
        async with supervisor:
            report["untouched"] = handlers() == before
            await body(supervisor, options)
    except BaseException as error:
        report["raised"] = flat(error)
        if report["raised"] != ["SupervisorShutdown"]:
            raise
    finally:
        report["restored"] = handlers() == before
        summary = await supervisor.shutdown()
        report["unconfirmed"] = len(summary.unconfirmed)
        report["seconds"] = summary.seconds


def flat(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return sorted({name for inner in error.exceptions for name in flat(inner)})
    return [type(error).__name__]


def run(options: argparse.Namespace) -> None:
    match options.runner:
        case "asyncio":
            asyncio.run(main(options))
        case "anyio":
            anyio.run(main, options)
        case "uvloop":
            anyio.run(main, options, backend_options={"use_uvloop": True})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runner", choices=["asyncio", "anyio", "uvloop"], default="asyncio")
    parser.add_argument("--handlers", choices=[*HANDLERS, "loop"], default="default")
    parser.add_argument("--signals", nargs="?", const=True, default=False, choices=["auto"])
    parser.add_argument("--scoped", type=int, default=0)
    parser.add_argument("--background", type=int, default=0)
    parser.add_argument("--wait", choices=["forever", "tasks"], default="forever")
    parser.add_argument("--grace", type=float, default=20.0)
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    for number in NUMBERS:
        if (handler := HANDLERS.get(options.handlers)) is not None:
            signal.signal(number, handler)
    outside = handlers()
    try:
        run(options)
    finally:
        back = handlers() == outside
        say(event="end", seen=seen, back=back, **report)
    sys.exit(OWN_STATUS)
