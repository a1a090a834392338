"""Says its pid, then the number of each signal that it gets, once each; SIGUSR2 ends it with 7."""

import os
import signal
import sys

TOLD = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP}

signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
if "own-group" in sys.argv:
    os.setpgid(0, 0)
os.write(1, b"%d\n" % os.getpid())
while True:
    number = int(signal.sigwait(TOLD))
    os.write(1, b"%d\n" % number)
    if number == signal.SIGUSR2:
        sys.exit(7)
