"""Which files a process has open, while its threads open and close others."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_files(*, pid: int | None = None, under: Path | None = None) -> list[str]:
    """Return what a process, by default this one, has open, by Linux's /proc.

    What is closed while we look is left out, as is the listing's own descriptor.

    :param under: only what is this path, or below it.
    """
    folder = Path(f"/proc/{pid or os.getpid()}/fd")
    found = []
    for link in folder.iterdir():
        with suppress(FileNotFoundError):
            found.append(link.readlink())
    root = None if under is None else under.resolve()
    return [str(path) for path in found if root is None or path.is_relative_to(root)]
