"""What is shipped, and what is committed beside it."""

from __future__ import annotations

import os
import re
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import sigmic_guard

ROOT = Path(__file__).parent.parent
PACKAGE = Path(sigmic_guard.__path__[0])
#: Set by tools/test-wheel, which runs these tests away from the checkout.
WHEEL = os.environ.get("SIGMIC_GUARD_WHEEL")

#: Where an index host, a URL or a machine's path must not creep in.
CONFIGURATION = [
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    ".ci/run",
    "tools/pythons",
    "tools/test-oldest",
    "tools/test-wheel",
]

in_a_checkout = pytest.mark.skipif(WHEEL is not None, reason="there is no checkout here")


def test_the_installed_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata.version("sigmic-guard") == project["version"]


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_command_is_installed() -> None:
    [script] = metadata.entry_points(group="console_scripts", name="sigmic-guard")
    assert script.value == "sigmic_guard.cli:main"


@pytest.mark.skipif(WHEEL is None, reason="make test-all runs the suite against the wheel")
def test_the_wheel_is_what_is_tested() -> None:
    assert PACKAGE.is_relative_to(sys.prefix)


@pytest.mark.skipif(WHEEL is None, reason="make test-all runs the suite against the wheel")
def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    assert WHEEL is not None
    names = zipfile.ZipFile(WHEEL).namelist()
    assert {name.split("/")[0] for name in names} == {
        "sigmic_guard",
        f"sigmic_guard-{metadata.version('sigmic-guard')}.dist-info",
    }
    rooms = {name.split("/")[1] for name in names if name.startswith("sigmic_guard/")}
    assert {"__init__.py", "py.typed", "errors.py"} <= rooms
    assert {"lifecycle", "sigmic", "ledger", "observe", "supervisor", "watchdog"} <= rooms
    assert {"emulator", "testing", "cli"} <= rooms
    assert not any("demo" in name for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@in_a_checkout
@pytest.mark.parametrize("name", CONFIGURATION)
def test_configuration_names_no_host_and_no_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.findall(
        r"\w+://|index-url|find-links|trusted-host|(?<![\w.$])/(?:home|opt|root|work)\b", text
    )


@in_a_checkout
def test_constraints_are_exact_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


@in_a_checkout
def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(req for extra in project["project"]["optional-dependencies"].values() for req in extra),
        *project["dependency-groups"]["dev"],
    ]
    names = {_normal(re.split(r"[<>=;\s]", requirement)[0]) for requirement in wanted}
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert names - {_normal(pin.partition("==")[0]) for pin in pins} == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
