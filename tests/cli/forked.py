"""Commands without the time that imports take.

A server imports the command line once; every command is a fork of it: a process of its own like
any other, but for half a second of CPU, and that in some hundred tests.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["pytest", "sigmic_guard.cli.app", __name__])


async def run(
    arguments: Sequence[str], env: Mapping[str, str], *, within: float
) -> tuple[int, str, str]:
    """Run a command to its end; return its exit code and what it wrote. It reads nothing.

    Raises ``TimeoutError`` when it takes longer than ``within`` seconds, and kills it.
    """
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _server.Process(
            target=_command, args=(tuple(arguments), dict(env), str(out), str(err))
        )
        await asyncio.to_thread(process.start)
        try:
            async with asyncio.timeout(within):
                await asyncio.to_thread(process.join)
        except BaseException:
            process.kill()
            process.join()
            raise
        code = process.exitcode
        process.close()
        assert code is not None
        return code, out.read_text(), err.read_text()


def _command(arguments: tuple[str, ...], env: dict[str, str], *outputs: str) -> None:
    """Be ``python -m sigmic_guard.cli``."""
    for number, path in enumerate((os.devnull, *outputs)):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = ["sigmic-guard", *arguments]
    from sigmic_guard.cli import main

    main()
