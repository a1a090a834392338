"""The server's process, as the runner sees it; and a certificate for it."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from typing import TYPE_CHECKING, Final

from benchmarks.core.books import Control

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]


class Server(Control):
    """A server that runs."""

    def __init__(self, port: int, tls_port: int | None, certificate: Path | None) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self.tls = None if tls_port is None else f"https://127.0.0.1:{tls_port}"
        self.certificate = certificate


def environment(**more: str) -> dict[str, str]:
    """Return one in which nothing of the user's own is found, and the benchmarks are."""
    kept = {name: text for name, text in os.environ.items() if "SIGMIC" not in name}
    path = os.pathsep.join([str(ROOT), kept.pop("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**kept, "PYTHONPATH": path, "PYTHONHASHSEED": "0", **more}


@contextmanager
def serving(folder: Path, cores: list[int]) -> Iterator[Server]:
    """Run a server of its own on these cores."""
    pair = make_certificate(folder)
    command = [sys.executable, "-m", "benchmarks.server"]
    if pair is not None:
        command += ["--tls", *map(str, pair)]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment()) as process:
        try:
            if cores and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, cores)
            assert process.stdout is not None
            ports = [int(word) for word in process.stdout.readline().split()]
            if not ports:
                raise RuntimeError("the benchmarks' server did not start: see above")
            yield Server(ports[0], ports[1] if pair else None, pair[0] if pair else None)
        finally:
            process.terminate()


def make_certificate(folder: Path) -> tuple[Path, Path] | None:
    """Return a certificate for 127.0.0.1 and its key; ``None`` where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "7", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(certificate), "-keyout", str(key)),
        ],
        stdout=DEVNULL,
        stderr=DEVNULL,
        check=False,
    )
    return None if made.returncode else (certificate, key)
