"""``sigmic-guard exec`` as a process, with all it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sigmic_guard

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY: Final = "sigmic_" + "0dd5ea" * 10 + "cafe"
PROGRAMS: Final = Path(__file__).parent / "programs"
#: Seconds that a program may take in all; far more than any does.
MAX_SECONDS: Final = 40.0


def program(name: str, *arguments: str) -> list[str]:
    """Return the command for one of ``programs/``."""
    return [sys.executable, str(PROGRAMS / name), *arguments]


@dataclass
class Watch:
    """Starts programs under watch; ``env`` is what they get beside our own environment."""

    env: dict[str, str] = field(default_factory=dict)
    exec: tuple[str, ...] = (sys.executable, "-m", "sigmic_guard.cli", "exec")

    @property
    def environment(self) -> dict[str, str]:
        """What the command gets."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith("SIGMIC_")}
        path = str(Path(sigmic_guard.__path__[0]).parent)
        return {**ours, "PYTHONPATH": path, **self.env}

    @contextmanager
    def start(self, *command: str, before: tuple[str, ...] = (), **options: Any) -> Iterator[Any]:
        """Start a command under watch; its stdout is a pipe.

        :param before: what starts the watch.
        """
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
        process = subprocess.Popen([*before, *self.exec, *command], env=self.environment, **options)
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    end(process.pid)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command under watch to its end."""
        return subprocess.run(
            [*self.exec, *command],
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=MAX_SECONDS,
            **options,
        )


def end(pid: int) -> None:
    """End a process and what it started, which may block whatever is not SIGKILL."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
        children = [int(word) for word in text.split()]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in children:
        end(child)
