"""``python -m until_eof MODULE …``: run a module as a program, until its standard input ends.

Whoever started it holds the other end, and need not do more: however that process goes, by SIGKILL
as well, the system closes it, and this one gets SIGTERM.
"""

import os
import runpy
import signal
import sys
from threading import Thread


def _terminate_at_eof() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    Thread(target=_terminate_at_eof, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
