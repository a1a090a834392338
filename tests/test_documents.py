"""ARCHITECTURE.md and CONTRIBUTING.md are about this code: what they name exists."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections import defaultdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import typer

import sigmic_guard

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = Path(sigmic_guard.__path__[0])

pytestmark = pytest.mark.skipif(
    "SIGMIC_GUARD_WHEEL" in os.environ, reason="there is no checkout here"
)

#: The documents whose code spans are looked at, and how many lines somebody reads of each.
LINES: Final = {"ARCHITECTURE.md": 300, "CONTRIBUTING.md": 200}
PAGES: Final = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]
LINKED: Final = [*LINES, "README.md", "CHANGELOG.md", *PAGES]

#: Code spans that name nothing of ours: other people's software, and what is typed.
FOREIGN: Final = {
    ".venv",
    "Task.cancel()",
    "env",
    "https://api.sigmic.ai",
    "make",
    "sigmic-guard",
    "sigmic_guard",
}


# --- what there is ------------------------------------------------------------------------------


class Names:
    """Everything that is defined in some folders: names, and the members of classes."""

    def __init__(self, *folders: Path) -> None:
        self.all: set[str] = set()
        self.members: defaultdict[str, set[str]] = defaultdict(set)
        self._bases: defaultdict[str, set[str]] = defaultdict(set)
        for folder in folders:
            for path in folder.rglob("*.py"):
                self._read(ast.parse(path.read_text()))

    def _read(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            names = set(_bound(node))
            self.all |= names
            if isinstance(node, ast.ClassDef):
                self.members[node.name] |= {
                    name for part in ast.walk(node) for name in _bound(part)
                }
                self._bases[node.name] |= {
                    base.id for base in node.bases if isinstance(base, ast.Name)
                }

    def of(self, name: str) -> set[str]:
        """The members of a class, inherited ones included."""
        found = set(self.members[name])
        for base in self._bases[name] & self.members.keys() - {name}:
            found |= self.of(base)
        return found


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a node binds."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            yield name
        case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
            yield name
        case _:
            pass


@cache
def names() -> Names:
    return Names(PACKAGE, ROOT / "tests", ROOT / "examples", ROOT / "benchmarks")


@cache
def commands() -> set[str]:
    app = import_module("sigmic_guard.cli.app").app
    group = typer.main.get_group(app)
    return set(group.commands)


@cache
def markers() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    told: list[str] = project["tool"]["pytest"]["ini_options"]["markers"]
    return {re.split(r"[:(]", line)[0] for line in told}


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def problem(span: str) -> str | None:
    """Why a code span says nothing of this code; ``None`` if it does."""
    if span in FOREIGN or re.fullmatch(r'"[^"]*"', span):
        return None
    if found := re.fullmatch(r"make ([\w-]+)", span):
        known = found[1] in targets()
    elif found := re.fullmatch(r"sigmic-guard ([\w-]+)", span):
        known = found[1] in commands()
    elif "/" in span or re.search(r"\.(py|md|toml|txt)$", span):
        known = exists(span)
    elif found := re.fullmatch(r'(\w+)="\w+"', span):  # an argument
        known = found[1] in names().all
    elif found := re.fullmatch(r"(\w+)\((\w+)=[^()]*\)", span):  # a call
        known = {found[1], found[2]} <= names().all
    elif found := re.fullmatch(r"(\w+)\.(\w+)", span):
        known = found[2] in names().of(found[1])
    else:
        known = span in names().all | markers()
    return None if known else f"there is no {span}"


def exists(path: str) -> bool:
    """Whether a path leads somewhere, from the root of the repository or from the package."""
    return (ROOT / path).exists() or (PACKAGE / path).exists()


# --- what is said -------------------------------------------------------------------------------


def prose(document: str) -> str:
    """A document without its blocks of code."""
    return re.sub(
        r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.DOTALL | re.MULTILINE
    )


def spans(text: str) -> list[tuple[str, bool]]:
    """The code spans, and of each whether it is said to be new: to be made by whoever reads it."""
    return [(span, bool(new)) for span, new in re.findall(r"`([^`\n]+)`( \(new\))?", text)]


def problems(text: str) -> list[str]:
    """What is wrong with the code spans of a text."""
    found = []
    for span, new in spans(text):
        wrong = problem(span)
        if new and wrong is None:
            found.append(f"{span} is not new")
        elif wrong is not None and not new:
            found.append(wrong)
    return found


def slugs(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(document: str, section: str) -> list[list[str]]:
    """The cells of the tables in a section, without their headers."""
    _, found, text = prose(document).partition(f"\n## {section}\n")
    assert found, f"{document} has no section {section!r}"
    text, _, _ = text.partition("\n## ")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- the tests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("document", LINES)
def test_what_is_named_exists(document: str) -> None:
    """Each path, class, function, command and target; what is to be made does not exist yet."""
    assert len(spans(prose(document))) > 50
    assert problems(prose(document)) == []


@pytest.mark.parametrize(
    "text",
    [
        "`Roster.aply`",
        "`Rooster`",
        "`supervisor/ground/rooster.py`",
        "`Supervisor(watchcat=True)`",
        '`on_leave="cancel"`',
        "`make coffee`",
        "`sigmic-guard weep`",
        "`lifecycle/states.py` (new)",
        "`Roster` (new)",
        "`two words`",
    ],
)
def test_what_is_named_wrongly_is_found(text: str) -> None:
    """Negative control."""
    assert len(problems(f"Said of {text}.")) == 1


@pytest.mark.parametrize("document", LINKED)
def test_links_lead_somewhere(document: str) -> None:
    """To a file of the repository, and to a heading that it has."""
    text, broken = prose(document), []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        if not target.exists() or (anchor and anchor not in slugs(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_both() -> None:
    """Whoever wants to change something finds them."""
    for document in LINES:
        assert f"]({document})" in (ROOT / "README.md").read_text()


def test_the_readme_leads_to_every_page() -> None:
    """A host's page that nobody finds helps nobody."""
    text = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if f"]({page}" not in text] == []


@pytest.mark.parametrize("document, most", LINES.items())
def test_a_document_is_short_enough_to_be_read(document: str, most: int) -> None:
    """A longer one is read by nobody, and so is kept right by nobody."""
    assert (ROOT / document).read_text().count("\n") <= most


def test_every_package_is_in_the_architecture() -> None:
    """By its folder."""
    named = {span for span, _ in spans(prose("ARCHITECTURE.md"))}
    packages = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*/__init__.py")}
    assert [path for path in sorted(packages) if f"{path.as_posix()}/" not in named] == []


def test_every_contract_of_the_linter_is_in_the_architecture() -> None:
    """By its name in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = [contract["name"] for contract in project["tool"]["importlinter"]["contracts"]]
    text = " ".join(prose("ARCHITECTURE.md").split())
    assert [name for name in contracts if name not in text] == []


def test_every_suite_is_in_the_table() -> None:
    """By its folder, in the first cell of a row."""
    told = {row[0].strip("`") for row in rows("CONTRIBUTING.md", "The suites")}
    suites = {f"tests/{path.parent.name}/" for path in (ROOT / "tests").glob("*/*.py")}
    assert suites - told == set()


def test_no_file_cites_a_document_that_is_not_here() -> None:
    """Whoever reads the source can read what it refers to."""
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "examples").rglob("*.py"), ROOT / "pyproject.toml"]
    documents = [ROOT / name for name in LINKED]
    cited = {
        (path.name, name)
        for path in (*sources, *documents)
        for name in re.findall(r"\b[\w-]+\.md\b", path.read_text())
    }
    there = {path.name for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))}
    assert {(by, name) for by, name in cited if name not in there} == set()
