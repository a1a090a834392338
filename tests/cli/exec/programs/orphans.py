"""Has a process that its parent left die, and says whether somebody waited for it.

A SIGWINCH from outside comes here by way of our parent, which has seen the SIGCHLD before: the
kernel hands out lower numbers first.
"""

import os
import signal
from pathlib import Path
from select import poll

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
told, tell = os.pipe()
if (middle := os.fork()) == 0:
    if (orphan := os.fork()) == 0:
        signal.pause()
    os.write(tell, str(orphan).encode())
    os._exit(0)
os.waitpid(middle, 0)
orphan = int(os.read(told, 20))
entry = Path(f"/proc/{orphan}")
parent = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
death = os.pidfd_open(orphan)
os.kill(orphan, signal.SIGKILL)
waiting = poll()
waiting.register(death)
waiting.poll()
os.write(1, b"ready\n")
signal.sigwait({signal.SIGWINCH})
os.write(1, b"adopted=%r left=%r\n" % (parent == os.getppid(), entry.exists()))
