"""The unit, the Dockerfile and the manifest of `docs/hosts/` are right, and so are their pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from fastapi.testclient import TestClient

from tests.integrations import deploying
from tests.integrations.deploying import FOLDER, text_of, worker_unit
from tests.integrations.hosts import KEY
from tests.readme import snippets

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif("SIGMIC_GUARD_WHEEL" in os.environ, reason="there is no checkout here"),
]

#: What each page shows, in this order.
SHOWN: Final = {
    "systemd": ["ask.service"],
    "docker": ["Dockerfile", "compose.yaml"],
    "kubernetes": ["kubernetes.yaml"],
}


# --- the pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", SHOWN)
def test_a_page_shows_its_files_as_they_are(page: str) -> None:
    text = text_of(f"{page}.md")
    blocks = re.findall(r"```(?:ini|dockerfile|yaml)\n(.*?)```", text, re.DOTALL)
    assert blocks[: len(SHOWN[page])] == [text_of(name) for name in SHOWN[page]]
    for name in SHOWN[page]:
        assert f"[`{name}`]({name})" in text


def settings_of(text: str) -> list[str]:
    """The code spans of a page that say a setting, with its value."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return [span for span in spans if re.match(r"[A-Z]\w+=\S|\w+: \S|[A-Z]+ [\[A-Z]", span)]


@pytest.mark.parametrize("page", SHOWN)
def test_the_settings_that_a_page_explains_are_in_its_files(page: str) -> None:
    """So none of its numbers is another one than what was checked, and run."""
    text = text_of(f"{page}.md")
    shown = "".join(re.findall(r"```\w+\n(.*?)```", text, re.DOTALL))
    elsewhere = {
        "SIGMIC_API_KEY=sigmic_…",
        'ENTRYPOINT ["uvicorn", "service:app", "--timeout-graceful-shutdown", "10"]',
    }
    settings = set(settings_of(text)) - elsewhere
    assert len(settings) >= 3
    assert [setting for setting in settings if setting not in shown] == []


# --- the files ------------------------------------------------------------------------------------


def check_compose(text: str) -> None:
    deploying.check_compose(text, text_of("Dockerfile"))


CHECKS: Final[dict[str, Callable[[str], None]]] = {
    "ask.service": deploying.check_unit,
    "Dockerfile": deploying.check_dockerfile,
    "compose.yaml": check_compose,
    "kubernetes.yaml": deploying.check_manifest,
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_file_is_right(name: str) -> None:
    """Its time-outs fit to each other, the ledger is on what stays, and no key is in it."""
    CHECKS[name](text_of(name))


def test_the_unit_of_a_plain_program_is_right() -> None:
    deploying.check_unit(worker_unit())
    assert "sigmic-guard exec --" in worker_unit()


def test_what_a_watch_adds_is_what_the_page_says() -> None:
    assert f"then {deploying.WATCH:g} seconds more" in text_of("kubernetes.md")


@pytest.mark.parametrize(
    "name, right, wrong",
    [
        ("ask.service", "KillMode=mixed", "KillMode=process"),
        ("ask.service", "TimeoutStopSec=15", "TimeoutStopSec=11"),
        ("ask.service", "--timeout-graceful-shutdown 10", "--timeout-graceful-shutdown 9"),
        ("ask.service", "StateDirectory=ask", "StateDirectory=other"),
        ("ask.service", "RestartSec=3", "RestartSec=2"),
        ("ask.service", "RestartSec=3", "RestartSecs=3"),
        ("ask.service", "KillMode=mixed\n", ""),
        ("Dockerfile", 'ENTRYPOINT ["sigmic-guard", "exec", "--"]', "ENTRYPOINT sigmic-guard exec"),
        ("Dockerfile", '["python", "worker.py"]', "python worker.py"),
        ("Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
        ("Dockerfile", "-o app /var/lib/worker", "-o app /var/lib/other"),
        ("Dockerfile", "ENV ", "ENV SIGMIC_API_KEY=sigmic_x "),
        ("compose.yaml", "30s", "20s"),
        ("compose.yaml", "ledger:/var/lib/worker", "/var/lib/worker"),
        ("compose.yaml", "ledger:/var/lib/worker", "ledger:/var/lib/other"),
        ("kubernetes.yaml", "Seconds: 20", "Seconds: 16"),
        ("kubernetes.yaml", '[sleep, "5"]', '[sleep, "10"]'),
        ("kubernetes.yaml", "mountPath: /var/lib/ask", "mountPath: /var/lib/other"),
        ("kubernetes.yaml", "ReadWriteOnce", "ReadWriteMany"),
        ("kubernetes.yaml", "path: /ready, port: 8000", "path: /ready, port: 80"),
        ("kubernetes.yaml", '"8000"', "8000"),
    ],
)
def test_a_file_that_is_wrong_is_found(name: str, right: str, wrong: str) -> None:
    """Negative control."""
    text = text_of(name)
    assert right in text
    with pytest.raises((AssertionError, KeyError, ValueError)):
        CHECKS[name](text.replace(right, wrong))


def verify(text: str, folder: Path) -> str:
    """What systemd has to say about a unit; where it is missing, skip, but never in CI."""
    found = shutil.which("systemd-analyze")
    if found is None:
        missing = "systemd-analyze is not installed: `make systemd` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    for name in ("uvicorn", "sigmic-guard"):
        (folder / name).touch(mode=0o755)
    path = folder / "ask.service"
    path.write_text(text.replace("/opt/ask/.venv/bin", str(folder)))
    done = subprocess.run(
        [found, "verify", "--man=no", path], capture_output=True, text=True, check=False, timeout=40
    )
    said = [line for line in done.stderr.splitlines() if "ask.service" in line]
    return "\n".join(said) or ("" if done.returncode == 0 else done.stderr)


@pytest.mark.parametrize("unit", [partial(text_of, "ask.service"), worker_unit])
def test_systemd_takes_the_unit(unit: Callable[[], str], tmp_path: Path) -> None:
    assert verify(unit(), tmp_path) == ""


@pytest.mark.parametrize(
    "right, wrong, why",
    [
        ("KillMode=mixed", "KillMode=mixd", "Failed to parse kill mode"),
        ("RestartSec", "RestartSecs", "Unknown key"),
        ("bin/uvicorn", "bin/there-is-none", "not executable"),
    ],
)
def test_systemd_finds_a_unit_that_is_wrong(
    right: str, wrong: str, why: str, tmp_path: Path
) -> None:
    """Negative control."""
    assert why in verify(text_of("ask.service").replace(right, wrong), tmp_path)


def test_what_the_readiness_probe_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Yes from the start on, no while the supervisor drains."""
    monkeypatch.setenv("SIGMIC_API_KEY", KEY)
    monkeypatch.setenv("SIGMIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SIGMIC_GUARD_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    namespace: dict[str, object] = {"__name__": "page"}
    exec(compile(snippets(FOLDER / "kubernetes.md")[0].source, "page", "exec"), namespace)
    app, guard = namespace["app"], namespace["guard"]
    path = deploying.container_of(text_of("kubernetes.yaml"))["readinessProbe"]["httpGet"]["path"]
    with TestClient(app) as client:  # type: ignore[arg-type]
        assert client.get(path).status_code == 200
        guard.supervisor.request_shutdown()  # type: ignore[attr-defined]
        assert client.get(path).status_code == 503
