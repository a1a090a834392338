"""``python examples/chat_service``, ``make chat``: the chat on an emulator, until Ctrl-C.

With the real API it is ``SIGMIC_API_KEY=… uvicorn chat_service.app:app``.
"""

import argparse
import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sigmic_guard.emulator import Emulator, Fault, Script

ANSWER = (
    "Revenue grew by 4 %, to 12.6 million. Costs grew by 2 %. "
    "Three of five regions are ahead of plan; the north is behind by a week. "
    "I would look at the north first."
)
WHY = "Because the two largest orders of the north were booked a week late. Nothing was lost."
DONE = "I removed 14 branches that were merged more than a month ago, and kept 3."
KEPT = "The three that I kept were merged this week: main still gets fixes from them."


def _words(text: str) -> tuple[str, ...]:
    return tuple(f"{word} " for word in text.split())


def emulator() -> Emulator:
    """A remote system whose agent takes its time."""
    slow = Script(
        duration=6.0,
        thoughts=("I look for the numbers of the last quarter.",),
        tool_calls=("read_file",),
        chunks=_words(ANSWER),
        follow_up=_words(WHY),
    )
    asking = Script(
        duration=3.0,
        thoughts=("14 branches have been merged. Removing them needs a yes.",),
        approval="delete_branches",
        chunks=_words(DONE),
        follow_up=_words(KEPT),
    )
    endless = Script(duration=60.0, chunks=("No news. ",) * 60, hold=True)
    remote = Emulator(script=slow, api_key="sigmic_chat")
    remote.script_for(lambda message: "branches" in message, asking)
    remote.script_for(lambda message: "until" in message, endless)
    remote.fault("delete", Fault("latency", seconds=0.5))
    return remote


async def serve(remote: Emulator, port: int) -> Process:
    """Start the service in a process of its own; a Ctrl-C at the terminal is for us alone.

    It ends with us, however we end.
    """
    given = {
        "SIGMIC_BASE_URL": remote.url,
        "SIGMIC_API_KEY": "sigmic_chat",
        "SIGMIC_GUARD_LEDGER": "memory:",  # nothing of it outlives the emulator
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "until_eof"),
        *("uvicorn", "chat_service.app:app", "--port", str(port)),
        *("--timeout-graceful-shutdown", "10", "--no-access-log", "--no-use-colors"),
        stdin=PIPE,
        stderr=PIPE,
        env=os.environ | given,
        start_new_session=True,
    )


async def announce(service: Process) -> None:
    """Wait until it answers, and print its address; then pass its warnings on, until it ends."""
    assert service.stderr is not None
    async for line in service.stderr:
        said = line.decode()
        if "running on http" in said:
            address = said.split("running on ")[1].split()[0]
            async with aiohttp.ClientSession() as http, http.get(address) as page:
                page.raise_for_status()
            print(f"The chat is at {address} (Ctrl-C ends it)", flush=True)
        elif not said.startswith("INFO"):
            print(said, end="", file=sys.stderr)


async def main(port: int) -> int:
    """Run until SIGINT or SIGTERM; return 0 if the service ended well and left nothing running."""
    async with emulator() as remote:
        service = await serve(remote, port)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _end, service)
        await announce(service)
        code = await service.wait()
        print(f"Tasks on the emulator: {len(remote.tasks)}; still running: {remote.live}")
        return 0 if code == -signal.SIGTERM and not remote.live else 1


def _end(service: Process) -> None:
    if service.returncode is None:
        service.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python examples/chat_service")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    sys.exit(asyncio.run(main(parser.parse_args().port)))
