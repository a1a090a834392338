"""The README's state diagram is the table's."""

from __future__ import annotations

import re
from pathlib import Path

from sigmic_guard.lifecycle import Event, State
from sigmic_guard.lifecycle.diagram import mermaid
from sigmic_guard.lifecycle.states import ENDED, TRANSITIONS

README = Path(__file__).parents[2] / "README.md"
MARKED = re.compile(r"<!-- state diagram: begin -->\n(.*?)<!-- state diagram: end -->", re.DOTALL)


def fenced() -> str:
    """What stands between the README's markers."""
    return f"```mermaid\n{mermaid()}```\n"


def stale(readme: str) -> list[str]:
    """What stands between the markers and should not."""
    return [found for found in MARKED.findall(readme) if found != fenced()]


def test_the_diagram_has_every_arrow_of_the_table_and_no_other() -> None:
    """Read back, the picture is the table without what stays where it is."""
    arrows = {
        (source, event, target)
        for source, target, events in re.findall(
            r"^    (\w+) --> (\w+): (.+)$", mermaid(), re.MULTILINE
        )
        for event in events.split(", ")
    }
    assert arrows == {
        (state, event, target)
        for state, row in TRANSITIONS.items()
        for event, target in row.items()
        if target is not state
    }
    assert set(re.findall(r"^    (\w+) --> \[\*\]$", mermaid(), re.MULTILINE)) == ENDED
    assert mermaid().startswith("stateDiagram-v2\n    [*] --> intent\n")
    lines = mermaid().splitlines()
    assert len(lines) == len(set(lines))


def test_the_diagram_is_of_the_table_it_is_given() -> None:
    """Negative control: another table is another picture; arrows between the same two are one."""
    table = {State.INTENT: {Event.POST: State.FAILED, Event.ADOPT: State.FAILED}, State.FAILED: {}}
    assert mermaid(table).splitlines()[2:] == [
        "    intent --> failed: post, adopt",
        "    failed --> [*]",
    ]


def test_the_readme_shows_this_diagram() -> None:
    """Between its markers the README holds what this test prints: see it with ``pytest -s``."""
    print(fenced())  # noqa: T201 - to be copied when the table has changed
    readme = README.read_text() if README.exists() else ""
    assert stale(readme) == []


def test_a_readme_with_another_diagram_is_found() -> None:
    """Negative control: one arrow less, between the markers, is stale."""
    begin, end = "<!-- state diagram: begin -->\n", "<!-- state diagram: end -->"
    lines = fenced().splitlines(keepends=True)
    assert stale("".join(["# Title\n", begin, *lines, end])) == []
    assert stale("".join([begin, *lines[:5], *lines[6:], end])) != []
