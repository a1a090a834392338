"""A pytest plugin: no test, nor anything that one starts, writes into the user's state directory.

The session gets one of its own, which every process inherits, and fails if anything was written
there: whoever runs a supervisor names its ledger. It fails as well if the user's real one changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from platformdirs import user_state_path

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "sigmic-guard"
VARIABLE: Final = "XDG_STATE_HOME"


class StateDirectory:
    """Watches over both folders; in a worker of pytest-xdist there is nothing to do but inherit."""

    def __init__(self) -> None:
        self._real = user_state_path(NAME)
        self._before = _files(self._real)
        self._home = Path(tempfile.mkdtemp(prefix="sigmic-guard-tests-"))
        self._inherited = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(self._home)
        self._found: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look what there is; the workers have ended by now."""
        after = _files(self._real)
        self._found = sorted(map(str, _files(self._home)))
        self._found += [
            str(path)
            for path in sorted(self._before.keys() | after.keys())
            if self._before.get(path) != after.get(path)
        ]
        if self._found and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was found."""
        if self._found:
            terminalreporter.section("state directory", red=True)
            terminalreporter.line("ERROR: these were written in a user's state directory:")
            for name in self._found:
                terminalreporter.line(f"  {name}")

    def pytest_unconfigure(self) -> None:
        """Put it back."""
        if self._inherited is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._inherited
        shutil.rmtree(self._home, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Watch, once, in the process that ends last."""
    if not hasattr(config, "workerinput") and not config.pluginmanager.has_plugin(NAME):
        config.pluginmanager.register(StateDirectory(), NAME)


def _files(folder: Path) -> Mapping[Path, tuple[int, int]]:
    """Return when each file was changed, and its size."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            found[path] = status.st_mtime_ns, status.st_size
    return found
