"""What users may rely on: the names, where they are from, how they are called, what they say."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from enum import Enum
from inspect import Parameter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import anyio
import prometheus_client
import pytest

import sigmic_guard
from sigmic_guard import (
    CancelReason,
    Outcome,
    RemoteTask,
    Supervisor,
    TaskEvent,
    TaskOptions,
    TaskPolicy,
    TaskResult,
    TaskRow,
    Watch,
    errors,
)
from sigmic_guard.testing import FakeSigmic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PUBLIC: Final = {name: getattr(sigmic_guard, name) for name in sigmic_guard.__all__}

#: What says how a task is supervised, and what says what it is to be.
POLICY: Final = {
    "timeout",
    "on_exit",
    "on_shutdown",
    "on_crash",
    "confirm",
    "cancel_wait",
    "reattach_within",
    "on_lost",
}
WATCH: Final = POLICY | {"key", "deadline"}
OPTIONS: Final = WATCH | {
    "files",
    "system_prompt",
    "auto_execute",
    "show_in_history",
    "env",
    "secrets",
}

#: What costs time, belongs to an extra, or is for tests: an import of the library brings none.
NOT_IMPORTED: Final = [
    "opentelemetry",
    "pytest",
    "rich",
    "sigmic_guard.cli",
    "sigmic_guard.emulator",
    "sigmic_guard.integrations",
    "sigmic_guard.testing",
    "trio",
    "typer",
    "uvloop",
]


# --- names --------------------------------------------------------------------------------------


def test_all_is_sorted_and_has_no_name_twice() -> None:
    """The list reads like an index."""
    assert sigmic_guard.__all__ == sorted(set(sigmic_guard.__all__))


def test_all_is_complete() -> None:
    """Whatever stands in the package without an underscore is in ``__all__``, but its rooms."""
    found = {
        name
        for name, value in vars(sigmic_guard).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert found == set(sigmic_guard.__all__)


def test_every_error_is_public() -> None:
    """Nobody has to look for an exception that can reach them."""
    assert set(errors.__all__) <= set(sigmic_guard.__all__)
    assert {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    } == set(errors.__all__)


def test_star_import() -> None:
    """``from sigmic_guard import *`` binds the public names, and no other."""
    namespace: dict[str, Any] = {}
    exec("from sigmic_guard import *", namespace)
    del namespace["__builtins__"]
    assert namespace == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_says_where_it_is_from(name: str) -> None:
    """``__module__`` leads back to the object, through no private module."""
    thing = PUBLIC[name]
    assert thing.__name__ == thing.__qualname__ == name
    assert thing.__module__.startswith("sigmic_guard.")
    assert not any(part.startswith("_") for part in thing.__module__.split("."))
    assert getattr(sys.modules[thing.__module__], name) is thing


# --- signatures ---------------------------------------------------------------------------------


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters by name, without ``self``."""
    found = dict(inspect.signature(function).parameters)
    found.pop("self", None)
    return found


def defaults_of(found: dict[str, Parameter]) -> dict[str, Any]:
    """The keyword-only parameters with their defaults."""
    return {
        name: parameter.default
        for name, parameter in found.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }


def test_supervisor_is_called_as_designed() -> None:
    """All arguments are keywords, and all have defaults."""
    found = parameters(Supervisor)
    assert defaults_of(found) == {
        "api_key": None,
        "base_url": None,
        "client": None,
        "ledger": None,
        "policy": None,  # and then TaskPolicy(), see the next test
        "grace": 8.0,
        "max_tasks": None,
        "max_cancels": 64,
        "create_timeout": 30.0,
        "namespace": "default",
        "marker": True,
        "registry": prometheus_client.REGISTRY,
        "observers": (),
        "signals": False,
        "watchdog": False,
        "account": None,
        "transport": "wire",
    }
    assert len(defaults_of(found)) == len(found)


async def test_no_policy_is_the_default_policy() -> None:
    """A task that says nothing, of a supervisor that says nothing, has ``TaskPolicy()``."""
    fake = FakeSigmic(duration=0.0)
    registry = prometheus_client.CollectorRegistry()
    async with Supervisor(client=fake, ledger="memory:", registry=registry) as supervisor:
        task = await supervisor.start("hello")
        assert task._entry.record.policy == TaskPolicy()


def test_task_policy_is_called_as_designed() -> None:
    """All fields are keywords."""
    found = parameters(TaskPolicy)
    assert defaults_of(found) == {
        "timeout": None,
        "on_exit": "cancel",
        "on_shutdown": "cancel",
        "on_crash": "cancel",
        "confirm": "accepted",
        "cancel_wait": 5.0,
        "reattach_within": 300.0,
        "on_lost": "report",
    }
    assert len(found) == len(defaults_of(found)) == len(POLICY)
    assert {field.name for field in fields(TaskPolicy)} == POLICY


@pytest.mark.parametrize(
    "name, first, options",
    [
        ("task", "message", TaskOptions),
        ("run", "message", TaskOptions),
        ("start", "message", TaskOptions),
        ("adopt", "task_id", Watch),
    ],
)
def test_what_makes_a_task_takes_one_argument_and_keywords(
    name: str, first: str, options: type
) -> None:
    """What it is to do comes first, without a default; all else is named."""
    method = getattr(Supervisor, name)
    found = parameters(method)
    assert [parameter.kind for parameter in found.values()] == [
        Parameter.POSITIONAL_OR_KEYWORD,
        Parameter.VAR_KEYWORD,
    ]
    assert next(iter(found)) == first
    assert found[first].default is Parameter.empty
    assert found["options"].annotation == f"Unpack[{options.__name__}]"
    assert inspect.iscoroutinefunction(method) is (name != "task")


def test_the_options_are_those_designed() -> None:
    """Each of them can be left out."""
    assert TaskOptions.__optional_keys__ == OPTIONS
    assert Watch.__optional_keys__ == WATCH
    assert not TaskOptions.__required_keys__ | Watch.__required_keys__


@pytest.mark.parametrize(
    "method, expected",
    [
        (Supervisor.shutdown, {"grace": None}),
        (Supervisor.request_shutdown, {}),
        (Supervisor.snapshot, {}),
        (RemoteTask.events, {}),
        (RemoteTask.result, {}),
        (RemoteTask.wait, {}),
        (RemoteTask.cancel, {}),
        (RemoteTask.request_cancel, {}),
        (RemoteTask.refresh, {}),
        (RemoteTask.send, {"message": Parameter.empty, "files": ()}),
        (RemoteTask.approve, {"call_id": Parameter.empty, "outcome": "proceed_once"}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_method_is_called_as_designed(
    method: Callable[..., Any], expected: dict[str, Any]
) -> None:
    """The names and the defaults are those that users write."""
    found = parameters(method)
    assert {name: parameter.default for name, parameter in found.items()} == expected


def test_what_can_be_read_is_what_was_designed() -> None:
    """The attributes of handles, and the fields of what users are handed."""
    handle = {"id", "state", "outcome", "reason", "deadline", "created_at"}
    assert handle <= {name for name in dir(RemoteTask) if not name.startswith("_")}
    assert [field.name for field in fields(TaskEvent)] == ["type", "data", "replayed"]
    assert {"id", "outcome", "status", "final_response"} <= {f.name for f in fields(TaskResult)}
    row = {"id", "state", "reason", "age", "deadline", "attempts"}
    assert row <= {field.name for field in fields(TaskRow)}


def test_the_words_are_those_designed() -> None:
    """They are labels of metrics and fields of logs: a new spelling breaks dashboards."""
    assert " ".join(Outcome) == "completed failed cancelled timed_out detached"
    reasons = "user scope error deadline shutdown remote orphan disconnect"
    assert " ".join(CancelReason) == reasons


# --- what it says, and what it brings -----------------------------------------------------------


def undocumented(thing: type) -> Iterator[str]:
    """The class, and what it has that is public, if they have no docstrings of their own."""
    if not inspect.getdoc(thing):
        yield thing.__qualname__
    for cls in getattr(thing, "__mro__", ()):
        if not cls.__module__.startswith(("sigmic_guard", __name__)) or issubclass(cls, Enum):
            continue
        for name, member in vars(cls).items():
            plain = getattr(member, "__func__", member)
            told = inspect.isfunction(plain) or isinstance(plain, property)
            if told and not name.startswith("_") and not inspect.getdoc(plain):
                yield f"{cls.__qualname__}.{name}"


def test_everything_public_has_a_docstring() -> None:
    """Classes, methods, class methods and properties; what they inherit from us as well."""
    assert [found for thing in PUBLIC.values() for found in undocumented(thing)] == []


def test_what_has_no_docstring_is_found() -> None:
    """Negative control."""

    class Silent:
        @property
        def value(self) -> int:
            return 1

        @classmethod
        def make(cls) -> None: ...

    assert [name.rpartition(".")[2] for name in undocumented(Silent)] == [
        "Silent",
        "value",
        "make",
    ]


async def imported_by(source: str) -> set[str]:
    """Which of `NOT_IMPORTED` a new interpreter has after ``source``, were none installed."""
    # None in sys.modules: an import raises. structlog asks for rich, and goes on without it.
    program = f"""
import sys
class Finder:
    asked = set()
    def find_spec(self, name, path=None, target=None):
        if name in {NOT_IMPORTED!r} and name != "rich":
            self.asked.add(name)
sys.modules["rich"] = None
sys.meta_path.insert(0, Finder())
{source}
print(*Finder.asked)
"""
    done = await anyio.run_process([sys.executable, "-c", program], stderr=subprocess.PIPE)
    return set(done.stdout.decode().split())


async def test_an_import_brings_nothing_that_is_not_needed() -> None:
    """No extra, no emulator and no test tool is even looked for; rich may be missing."""
    assert await imported_by("import sigmic_guard\nsigmic_guard.Supervisor") == set()


async def test_an_import_that_brings_more_is_found() -> None:
    """Negative control: the test tools bring the emulator in when they are asked to."""
    found = await imported_by("import sigmic_guard\nimport sigmic_guard.emulator, trio")
    assert found == {"sigmic_guard.emulator", "trio"}
