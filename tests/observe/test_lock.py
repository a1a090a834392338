"""Locks of ours, and forks."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, threading
from prometheus_client import CollectorRegistry
from sigmic_guard.observe import metrics
from sigmic_guard.observe.series import Shared

shared, held, done = Shared(), threading.Event(), threading.Event()

def hold():
    with shared.counting, metrics._making:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    with shared.counting:
        metrics.Metrics.on(CollectorRegistry())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert shared.counting._lock.locked()
done.set()
thread.join()
with shared.counting, metrics._making:
    pass
"""


def test_a_child_forked_while_another_thread_counts() -> None:
    """The locks that the thread holds are free in the child, and the thread's in the parent."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
