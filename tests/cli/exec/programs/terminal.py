"""Gives its stdin, a terminal, to the program that the arguments name.

``leader``: it becomes that program, which is then the session's leader, as the program of a
terminal window is, or a container's first process. ``job``: it starts it as a shell does, tells
when it has stopped, and lets it go on after a line.
"""

import fcntl
import os
import signal
import subprocess
import sys
import termios

os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
how, *command = sys.argv[1:]
if how == "leader":
    os.execv(command[0], command)
job = subprocess.Popen(command, process_group=0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else who is in the background may not take it back
os.tcsetpgrp(0, job.pid)
while True:
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        os.write(1, b"ended %d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.write(1, b"stopped\n")
    sys.stdin.readline()
    os.tcsetpgrp(0, job.pid)
    os.killpg(job.pid, signal.SIGCONT)
