"""The README as its tests read it: its snippets and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

README: Final = Path(__file__).parents[1] / "README.md"
TEXT: Final = README.read_text()


class Snippet(NamedTuple):
    """Python code of the README, and the line of its fence."""

    line: int
    source: str

    def __str__(self) -> str:
        return f"line {self.line}"


def snippets(path: Path = README) -> list[Snippet]:
    """Every block of Python, from the top."""
    document = Document.parse(str(path), CodeBlockParser("python", evaluator=lambda _: None))
    return [Snippet(example.line, str(example.parsed)) for example in document.examples()]


def table(section: str, header: str) -> list[list[str]]:
    """The cells of the table with this header, in this section."""
    _, _, text = TEXT.partition(f"\n## {section}\n")
    text, _, _ = text.partition("\n## ")
    _, found, rows = text.partition(f"\n{header}\n")
    assert found, f"no table {header!r} in {section!r}"
    lines = rows.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
