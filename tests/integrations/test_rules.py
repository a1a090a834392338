"""`docs/operations/`: alert rules that fire when they should, and a dashboard of what exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard.observe import Metrics

pytestmark = pytest.mark.skipif(
    "SIGMIC_GUARD_WHEEL" in os.environ, reason="there is no checkout here"
)

FOLDER: Final = Path(__file__).parents[2] / "docs" / "operations"
RULES: Final = FOLDER / "alerts.yml"
TESTS: Final = FOLDER / "alerts.test.yml"
DASHBOARD: Final = FOLDER / "dashboard.json"

_ALERT: Final = re.compile(r"- alert: (\w+)")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it; where it is missing the test is skipped, but never in CI."""
    found = shutil.which("promtool")
    if found is None:
        missing = "promtool is not installed: `make promtool` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return subprocess.run([found, *arguments], check=False, capture_output=True, text=True)


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bsigmic_guard_[a-z_]+", text))


def exposed() -> set[str]:
    """Every name that a query may use."""
    registry = CollectorRegistry()
    Metrics.on(registry)
    names = set[str]()
    for metric in registry.collect():
        names |= {sample.name for sample in metric.samples}
        parts = {"histogram": ("bucket", "sum", "count"), "counter": ("total",)}
        names |= {f"{metric.name}_{part}" for part in parts.get(metric.type, ())}
    return names


def queries() -> list[str]:
    """What the dashboard asks, with its variables filled in."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    values = {"$__rate_interval": "5m", "$__range": "6h", "$job": ".*", "$instance": ".*"}
    for name, value in values.items():
        found = [query.replace(name, value) for query in found]
    return found


def test_the_rules_are_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_fire_when_they_should() -> None:
    """Each of them has a test, in which it fires for one series and not for another."""
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = _ALERT.findall(RULES.read_text())
    assert alerts
    assert {name for name in alerts if f"alertname: {name}" not in TESTS.read_text()} == set()


@pytest.mark.parametrize("alert", _ALERT.findall(RULES.read_text()) if RULES.is_file() else [])
@pytest.mark.parametrize("always", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_rule_that_is_broken_is_found(alert: str, always: bool, tmp_path: Path) -> None:
    """Negative control: one that never fires, and one that asks for nothing, fail their tests."""
    rules, tests = tmp_path / RULES.name, tmp_path / TESTS.name
    head, name, rule = RULES.read_text().partition(f"- alert: {alert}\n")
    comparison = r" > [\d.]+\n"
    broken = re.sub(comparison, " >= 0\n" if always else " < 0\n", rule, count=1)
    assert broken != rule
    rules.write_text(head + name + broken)
    tests.write_text(TESTS.read_text())
    assert promtool("test", "rules", tests).returncode != 0


@pytest.mark.parametrize("path", [RULES, TESTS, DASHBOARD], ids=lambda path: path.name)
def test_every_series_exists(path: Path) -> None:
    """A series that was renamed leaves no panel and no rule behind."""
    named = names_in(path.read_text())
    assert named - exposed() == set()
    assert named


def test_the_dashboard_shows_every_series() -> None:
    """But for the parts of histograms that no panel needs."""
    text = DASHBOARD.read_text()
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exposed()}
    assert {family for family in families if family not in text} == set()


def test_the_dashboards_queries_are_queries(tmp_path: Path) -> None:
    """Prometheus can read each of them."""
    asked = queries()
    assert not [query for query in asked if "$" in query]
    rules: list[dict[str, Any]] = [
        {"record": f"panel:{number}", "expr": query} for number, query in enumerate(asked)
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
