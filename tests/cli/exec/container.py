"""What makes a command the first process of a world of its own, as in a container."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest


def _container() -> tuple[str, ...]:
    for rights in ((), ("--user", "--map-root-user")):
        make = ("unshare", *rights, "--pid", "--fork", "--kill-child", "--mount-proc")
        if shutil.which("unshare") and not subprocess.call(
            [*make, "true"], stderr=subprocess.DEVNULL
        ):
            return make
    return ()


CONTAINER: Final = _container()
needs_container = pytest.mark.skipif(not CONTAINER, reason="nobody may unshare here")


def child_of(pid: int) -> int:
    """Return the one child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8"))
