"""Read-only folders, full disks, and disks that never answer: in processes of their own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ledger.test_processes import program

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path() -> Iterator[Path]:
    """In a folder that somebody else than root can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        yield folder / "ledger.db"


def said(path: Path, what: str, backend: str = "asyncio") -> list[str]:
    with program("limits.py", path, what, backend) as running:
        return list(iter(running.says, ""))


def test_a_read_only_folder_is_told(path: Path) -> None:
    """A folder that cannot be written is a LedgerError that says so, until it can."""
    path.parent.chmod(0o500)
    refused, opened = said(path, "read_only_folder")
    assert f"the ledger {path} cannot be made: Permission denied" in refused
    assert "make its folder writable" in refused
    assert opened == "None"


def test_a_read_only_file_is_told(path: Path) -> None:
    """A file that cannot be written is a LedgerError that names file and user, until it can."""
    refused, opened = said(path, "read_only_file")
    assert f"the ledger {path} cannot be written" in refused
    assert "readable and writable for this user (uid " in refused
    assert opened == "None"


def test_a_disk_without_room_is_told(path: Path) -> None:
    """What does not fit is refused whole, again and again, and done once there is room."""
    *refused, done, rows = said(path, "no_room")
    assert len(refused) == 2
    for text in refused:
        assert f"the disk with the ledger {path}" in text
        assert "quotas, limits" in text or "make room" in text
    assert done == "{None}"
    assert rows == "101"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_disk_that_never_answers_keeps_nobody(path: Path, backend: str) -> None:
    """Neither a cancelled commit, nor reading, nor aclose, nor the process waits for it."""
    assert said(path, "stuck", backend) == ["[]", "left"]
