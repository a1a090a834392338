"""Python programs as processes of their own, without the time that imports take.

A server imports the package once; each program is a fork of it that has a session, a status and
standard streams of its own, and ends as an interpreter does. Half a second of CPU is saved by it,
in some hundred tests.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, create_task_group, fail_after
from anyio.abc import SocketStream

import sigmic_guard

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of a request at most: folder, arguments and environment, as JSON.
LIMIT: Final = 2**20
#: Bytes of a number that is told.
WIDTH: Final = 10


class Process:
    """A program that runs; as far as the tests need it, what ``anyio.open_process`` returns."""

    def __init__(
        self, pid: int, status: SocketStream, out: SocketStream, err: SocketStream
    ) -> None:
        self.pid = pid
        #: As ``subprocess`` has it; known when :meth:`wait` has returned.
        self.returncode: int | None = None
        self.stdout = out
        self.stderr = err
        self._status = status

    async def wait(self) -> int:
        """Return its exit status; minus the signal's number where one ended it."""
        if self.returncode is None:
            self.returncode = int(await self._status.receive(WIDTH))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    async def communicate(self) -> tuple[int, str, str]:
        """Wait for its end; return its status, and what it wrote."""
        said: dict[SocketStream, str] = {}

        async def read(stream: SocketStream) -> None:
            said[stream] = b"".join([piece async for piece in stream]).decode()

        async with create_task_group() as group:
            group.start_soon(read, self.stdout)
            group.start_soon(read, self.stderr)
        return await self.wait(), said[self.stdout], said[self.stderr]

    async def aclose(self) -> None:
        """Wait for its end, and close the streams."""
        await self.wait()
        for stream in self._status, self.stdout, self.stderr:
            await stream.aclose()


async def run(
    program: Path | str, *arguments: str, env: Mapping[str, str], within: float
) -> tuple[int, str, str]:
    """Run a program to its end; return its status, and what it wrote.

    :raises TimeoutError: it took more than ``within`` seconds, and was killed.
    """
    process = await open_process(program, *arguments, env=env)
    try:
        with fail_after(within):
            return await process.communicate()
    finally:
        process.kill()
        with CancelScope(shield=True):
            await process.aclose()


async def open_process(
    program: Path | str,
    *arguments: str,
    env: Mapping[str, str],
    output: int | None = None,
    interpreter: tuple[str, ...] = (),
) -> Process:
    """Start a program, whose standard input is empty.

    :param program: a file, or the name of a module.
    :param output: where both of its outputs go; default: each to a stream of its own.
    :param interpreter: options of Python's own.
    """
    status, out, err = (socket.socketpair() for _ in range(3))
    request = json.dumps([str(Path.cwd()), [str(program), *arguments], dict(env)]).encode()
    theirs = [pair[1] for pair in (status, out, err)]
    fds = [each.fileno() for each in theirs]
    if output is not None:
        fds[1:] = output, output
    socket.send_fds(_server(interpreter), [request], fds)
    for each in theirs:
        each.close()
    streams = [await SocketStream.from_socket(pair[0]) for pair in (status, out, err)]
    return Process(int(await streams[0].receive(WIDTH)), *streams)


@cache
def _server(interpreter: tuple[str, ...]) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT)
    with theirs:
        theirs.set_inheritable(True)
        path = Path(sigmic_guard.__path__[0]).parent
        command = [sys.executable, "-P", *interpreter, __file__, str(theirs.fileno())]
        os.posix_spawn(sys.executable, command, {**os.environ, "PYTHONPATH": str(path)})
    atexit.register(ours.close)  # which ends the server
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork for each request, twice: one waits for the end of the other, and tells it."""
    while True:
        request, fds, *_ = socket.recv_fds(requests, LIMIT, 3)
        if not request:
            return
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if os.fork() == 0:
            requests.close()
            status = socket.socket(fileno=fds[0])
            if (pid := os.fork()) == 0:
                status.close()
                _become(*json.loads(request), *fds[1:])
                return
            os.close(fds[1])
            os.close(fds[2])
            status.send(b"%*d" % (WIDTH, pid))
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with suppress(OSError):
                status.send(b"%*d" % (WIDTH, ended))
            os._exit(0)
        for fd in fds:
            os.close(fd)


def _become(
    folder: str, command: list[str], environment: dict[str, str], out: int, err: int
) -> None:
    """Be that program, as if the interpreter had just begun with it."""
    os.setsid()
    os.chdir(folder)
    for number, fd in (0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, err):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = command
    if command[0].endswith(".py"):
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def _import_all() -> None:
    """Import what programs do, and the command line at its first command."""
    from sigmic_guard import emulator, testing  # noqa: F401
    from sigmic_guard.cli.app import app

    with suppress(SystemExit), redirect_stdout(StringIO()):
        app(["ps", "--help"])
    gc.collect()
    gc.freeze()  # or each of those who are forked would look at all of it, and copy it


if __name__ == "__main__":
    _import_all()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
