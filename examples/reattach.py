"""Reattach after a crash: a worker is killed, and the next one goes on with the same task.

A key says which task is meant, from one process to the next. With ``on_crash="reattach"`` it runs
on for a while when its process dies, and whoever asks for the key then gets it, with everything
that it has said so far: nothing is lost, and nothing is paid for twice.
"""

import os
import signal
import sys
from tempfile import TemporaryDirectory

import anyio
from anywhere import sigmic

from sigmic_guard import Supervisor


async def work(*, is_to_die: bool) -> None:
    # The ledger is where one process learns what another one left.
    async with (
        Supervisor(ledger=f"sqlite:///{sys.argv[1]}/ledger.db") as supervisor,
        supervisor.task("Write the report", key="report", on_crash="reattach") as task,
    ):
        print(f"Worker on {task.id}:", end="", flush=True)
        async for event in task.events():
            print(event.text, end="", flush=True)
            if is_to_die and event.text:
                print(" …", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        print(f"\nDone, it is {(await task.result()).outcome}.")


async def main() -> None:
    async with sigmic(duration=4.0, chunks=(" one,", " two,", " three.")):
        with TemporaryDirectory() as folder:
            for fate in ("killed", "spared"):
                command = [sys.executable, __file__, folder, fate]
                worker = await anyio.run_process(command, stdout=None, stderr=None, check=False)
                print(f"The worker was {fate}, with status {worker.returncode}.", flush=True)


if len(sys.argv) == 1:
    anyio.run(main)
else:
    anyio.run(lambda: work(is_to_die=sys.argv[2] == "killed"))
