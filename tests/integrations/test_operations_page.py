"""What `docs/operations.md` shows runs."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.readme import README, Snippet, snippets
from tests.test_readme import Remote, play, remote

__all__ = ["remote"]

pytestmark = pytest.mark.skipif(
    "SIGMIC_GUARD_WHEEL" in os.environ, reason="there is no checkout here"
)

PAGE: Final = README.parent / "docs" / "operations.md"
SNIPPETS: Final = snippets(PAGE) if PAGE.is_file() else []


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_a_snippet_runs_and_leaves_nothing_running(snippet: Snippet, remote: Remote) -> None:
    """It raises nothing, its own assertions hold, and no remote task is left."""
    play(snippet, PAGE)
    assert remote.created or "Supervisor" not in snippet.source
    assert remote.live == 0
