"""The program of ``serve.py``, in a worker to which its parent passes SIGTERM on."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    reader, writer = os.pipe()
    if not (worker := os.fork()):
        os.read(reader, 1)  # until our parent listens
        runpy.run_path(str(Path(__file__).with_name("serve.py")), run_name="__main__")
        sys.exit()
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(worker, number))
    say(event="worker", worker=worker)
    os.write(writer, b"!")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
