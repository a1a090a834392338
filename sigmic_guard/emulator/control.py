"""The routes under /_emulator/, by which another process steers the emulator. No credential."""

from typing import Protocol
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from sigmic_guard.emulator import answers
from sigmic_guard.emulator.answers import Answer, Refusal
from sigmic_guard.emulator.faults import Fault
from sigmic_guard.emulator.script import Script

PREFIX = "/_emulator/"


class Controlled(Protocol):
    """What can be steered; `Emulator` is."""

    def state(self, *, full: bool = False) -> dict[str, object]:
        """Counts, and with `full` every task."""

    def set_script(self, script: Script) -> None:
        """Replace the default script."""

    def fault(self, route: str, fault: Fault) -> None:
        """Arm a fault."""

    def clear_faults(self, route: str | None = None) -> None:
        """Disarm faults."""

    def reset(self) -> None:
        """Forget everything."""


async def perform(emulator: Controlled, request: web.BaseRequest) -> Answer:
    """Answer one control request; raises `Refusal`."""
    path, _, query = request.raw_path.partition("?")
    parameters = {name: values[-1] for name, values in parse_qs(query).items()}
    match request.method, path.removeprefix(PREFIX):
        case "GET", "state":
            return answers.plain(emulator.state(full=parameters.get("full") == "1"))
        case "POST", "faults":
            fields = await _fields(request)
            route = str(fields.pop("route", "*"))
            try:
                emulator.fault(route, Fault.from_fields(fields))
            except ValueError as error:
                raise Refusal("VALIDATION_ERROR", str(error)) from error
        case "DELETE", "faults":
            emulator.clear_faults(parameters.get("route"))
        case "POST", "script":
            try:
                emulator.set_script(Script.from_fields(await _fields(request)))
            except ValueError as error:
                raise Refusal("VALIDATION_ERROR", str(error)) from error
        case "POST", "reset":
            emulator.reset()
        case _, "state" | "faults" | "script" | "reset":
            raise Refusal("METHOD_NOT_ALLOWED", f"not with {request.method}", status=405)
        case _:
            raise Refusal("NOT_FOUND", "no such control route")
    return answers.plain({"ok": True})


async def _fields(request: web.BaseRequest) -> dict[str, object]:
    try:
        return msgspec.json.decode(await request.content.read(), type=dict[str, object])
    except ValueError as error:
        raise Refusal("VALIDATION_ERROR", str(error)) from error
