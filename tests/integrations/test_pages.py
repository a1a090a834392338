"""What the pages in `docs/` show runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.readme import README, Snippet, snippets
from tests.test_readme import Remote, play, remote

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["remote"]

pytestmark = pytest.mark.skipif(
    "SIGMIC_GUARD_WHEEL" in os.environ, reason="there is no checkout here"
)

DOCS: Final = README.parent / "docs"
OPERATIONS: Final = DOCS / "operations.md"
#: Those that show an application; the others say what differs.
HOSTS: Final = [page for page in sorted((DOCS / "hosts").glob("*.md")) if snippets(page)]


@pytest.mark.parametrize("snippet", snippets(OPERATIONS) if OPERATIONS.is_file() else [], ids=str)
def test_a_snippet_runs_and_leaves_nothing_running(snippet: Snippet, remote: Remote) -> None:
    """It raises nothing, its own assertions hold, and no remote task is left."""
    play(snippet, OPERATIONS)
    assert remote.created or "Supervisor" not in snippet.source
    assert remote.live == 0


@pytest.mark.parametrize("page", HOSTS, ids=lambda page: page.stem)
@pytest.mark.usefixtures("remote")
def test_a_hosts_page_begins_with_an_application(page: Path) -> None:
    """It is complete, and opens nothing before it is served; test_hosts.py serves such ones."""
    play(snippets(page)[0], page)
