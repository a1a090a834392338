"""Reads and checks the files in `docs/hosts/` for systemd, Docker and Kubernetes."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import yaml

from sigmic_guard import Supervisor
from sigmic_guard.cli import child
from sigmic_guard.cli import exec as watch
from sigmic_guard.ledger import sqlite_path

FOLDER: Final = Path(__file__).parents[2] / "docs" / "hosts"
#: Seconds that a supervisor takes at most to shut down.
DRAIN: Final[float] = inspect.signature(Supervisor).parameters["grace"].default + 1
#: Seconds that `sigmic-guard exec` takes at most, when the program is gone: as a container's first
#: process it ends what else runs there, then the tasks, and reads what is left.
WATCH: Final = 2 * child.END_TIMEOUT + 8 + 2 * watch.CLOSE_TIMEOUT

Unit = dict[str, dict[str, list[str]]]

#: What the unit may say; `systemd-analyze verify` knows all of it, where it is installed.
KNOWN: Final = {
    "Unit": {"Description", "Wants", "After"},
    "Service": {
        *("User", "WorkingDirectory", "StateDirectory", "Environment", "EnvironmentFile"),
        *("ExecStart", "KillMode", "TimeoutStopSec", "SuccessExitStatus", "Restart", "RestartSec"),
    },
    "Install": {"WantedBy"},
}


def text_of(name: str) -> str:
    return (FOLDER / name).read_text()


def worker_unit() -> str:
    """The unit with the lines that its page has for a plain program."""
    unit, lines = re.findall(r"```ini\n(.*?)```", text_of("systemd.md"), re.DOTALL)
    for line in lines.splitlines():
        key = line.partition("=")[0]
        unit, count = re.subn(rf"(?m)^{key}=.*$", line, unit)
        assert count == 1
    return str(unit)


def waits_for_clients(command: list[str]) -> float:
    """Return the seconds that uvicorn gives its clients."""
    return float(command[command.index("--timeout-graceful-shutdown") + 1])


def seconds_of(command: list[str]) -> float:
    """Return the seconds that a command takes at most to end, after SIGTERM."""
    taken = 0.0
    if "exec" in command:
        assert command[command.index("exec") + 1] == "--", command
        command, taken = command[command.index("--") + 1 :], WATCH
    if command[0].endswith("uvicorn"):
        assert waits_for_clients(command) > DRAIN
        return taken + waits_for_clients(command) + 1
    assert command[0].endswith("python")
    return taken + DRAIN


# --- systemd --------------------------------------------------------------------------------------


def read_unit(text: str) -> Unit:
    unit: Unit = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif line:
            key, equals, value = line.partition("=")
            assert equals, line
            unit[section][key].append(value)
    return unit


def command_of_unit(unit: Unit) -> list[str]:
    [command] = unit["Service"]["ExecStart"]
    return shlex.split(command)


def check_unit(text: str) -> None:
    unit = read_unit(text)
    for section, settings in unit.items():
        assert settings.keys() <= KNOWN.get(section, set()), (section, settings)
    service = {key: values[-1] for key, values in unit["Service"].items()}
    assert service["KillMode"] == "mixed"
    assert service["SuccessExitStatus"] == "143"
    assert service["Restart"] == "always"
    assert float(service["RestartSec"]) > 10 / 5, "systemd allows five starts in ten seconds"
    command = command_of_unit(unit)
    assert command[0].startswith("/"), "there is no shell, and no PATH to speak of"
    assert float(service["TimeoutStopSec"]) > seconds_of(command)
    assert "SIGMIC_API_KEY" not in text
    name, _, url = service["Environment"].partition("=")
    assert name == "SIGMIC_GUARD_LEDGER"
    path = sqlite_path(url.replace("%S", "/var/lib"))
    assert path is not None
    assert Path(path).parent == Path("/var/lib") / service["StateDirectory"]


# --- Docker ---------------------------------------------------------------------------------------


def read_dockerfile(text: str) -> dict[str, list[str]]:
    instructions: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        instructions[name].append(rest)
    return instructions


def command_of_image(text: str) -> list[str]:
    """Return what its containers run: lists only, for strings are given to a shell."""
    found = read_dockerfile(text)
    command: list[str] = []
    for name in ("ENTRYPOINT", "CMD"):
        [written] = found[name]
        assert written.startswith("["), "a shell would be the first process"
        command += json.loads(written)
    assert command[0] not in {"sh", "bash", "/bin/sh"}
    return command


def ledger_of_image(text: str) -> Path:
    [environment] = read_dockerfile(text)["ENV"]
    path = sqlite_path(
        dict(pair.split("=", 1) for pair in shlex.split(environment))["SIGMIC_GUARD_LEDGER"]
    )
    assert path is not None
    return Path(path)


def check_dockerfile(text: str) -> None:
    found = read_dockerfile(text)
    known = {"FROM", "RUN", "USER", "WORKDIR", "COPY", "ENV", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert found.keys() <= known
    assert found["STOPSIGNAL"] == ["SIGTERM"]
    assert command_of_image(text)[:3] == ["sigmic-guard", "exec", "--"]
    [user] = found["USER"]
    folder = ledger_of_image(text).parent
    assert any(f"useradd {user} && install -d -o {user} {folder}" in run for run in found["RUN"])
    assert "SIGMIC_API_KEY" not in text


def check_compose(text: str, dockerfile: str) -> None:
    told = yaml.safe_load(text)
    [service] = told["services"].values()
    seconds = float(service["stop_grace_period"].removesuffix("s"))
    assert seconds > seconds_of(command_of_image(dockerfile))
    assert service["restart"] == "always"
    [(name, _, folder)] = [volume.partition(":") for volume in service["volumes"]]
    assert name in told["volumes"], "a volume without a name is new for each container"
    assert Path(folder) == ledger_of_image(dockerfile).parent
    assert "SIGMIC_API_KEY" not in text


# --- Kubernetes -----------------------------------------------------------------------------------


def read_manifest(text: str) -> dict[str, dict[str, Any]]:
    """Return the objects by their kinds."""
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def container_of(text: str) -> dict[str, Any]:
    [container] = read_manifest(text)["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def command_of_container(text: str) -> list[str]:
    container = container_of(text)
    command = [*container["command"], *container["args"]]
    assert all(isinstance(word, str) for word in command), command
    return command


def check_manifest(text: str) -> None:
    service, stateful = (read_manifest(text)[kind] for kind in ("Service", "StatefulSet"))
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert labels == stateful["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
    pod, container = stateful["spec"]["template"]["spec"], container_of(text)
    command = command_of_container(text)
    program, before = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod["terminationGracePeriodSeconds"] > float(before) + seconds_of(command)

    port = int(command[command.index("--port") + 1])
    probe = container["readinessProbe"]["httpGet"]
    [outside] = service["spec"]["ports"]
    assert outside["targetPort"] == probe["port"] == port

    environment = {each["name"]: each for each in container["env"]}
    assert "secretKeyRef" in environment["SIGMIC_API_KEY"]["valueFrom"]
    path = sqlite_path(environment["SIGMIC_GUARD_LEDGER"]["value"])
    [mount], [claim] = container["volumeMounts"], stateful["spec"]["volumeClaimTemplates"]
    assert path is not None
    assert Path(path).parent == Path(mount["mountPath"])
    assert mount["name"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"], "a ledger is one machine's"
    assert "fsGroup" in pod["securityContext"], "the volume would be root's"
