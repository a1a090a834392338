"""The error tree: as drawn, picklable, and telling."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from sigmic_guard import errors
from sigmic_guard.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    DuplicateKey,
    ProtocolError,
    SigmicGuardError,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimedOut,
)

CLASSES: list[type[SigmicGuardError]] = [getattr(errors, name) for name in errors.__all__]
ARGUMENTS: dict[type[SigmicGuardError], dict[str, Any]] = {
    ApiError: {"code": "NOT_FOUND", "status": 404, "retry_after": 1.5},
    ProtocolError: {"status": 200},
    ConnectionFailed: {"sent": True},
    DuplicateKey: {"key": "nightly"},
    TaskCancelled: {"task_id": "x", "reason": "user", "result": ["any"]},
    TaskFailed: {"task_id": "x", "error": {"any": 1}},
    TaskError: {"task_id": "x"},
}


def example(kind: type[SigmicGuardError]) -> SigmicGuardError:
    arguments = next((ARGUMENTS[base] for base in kind.__mro__ if base in ARGUMENTS), {})
    return kind("What to do", **arguments)


def test_the_drawing() -> None:
    """The tree in the module's docstring is the tree of the classes, with nothing left out."""
    assert errors.__doc__ is not None
    drawn: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"([\s│├└─]*)([A-Z]\w+)( {2}|$)", line)
        if found is None or found[2] not in errors.__all__:
            continue
        depth = len(found[1])
        above = [(d, name) for d, name in above if d < depth]
        drawn[found[2]] = above[-1][1] if above else None
        above.append((depth, found[2]))
    real: dict[str, str | None] = {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES}
    real["SigmicGuardError"] = None
    assert drawn == real


def test_statuses_in_the_drawing() -> None:
    """Every class is public, and no other one is."""
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("kind", CLASSES)
def test_pickled(kind: type[SigmicGuardError]) -> None:
    """An error keeps its type, text and fields when it is pickled or copied."""
    error = example(kind)
    error.add_note("a note")
    dumped = [
        pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL)
    ]
    for twin in [*dumped, copy.copy(error), copy.deepcopy(error)]:
        assert type(twin) is kind
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("kind", CLASSES)
def test_told(kind: type[SigmicGuardError]) -> None:
    """The message is the first thing that an error says."""
    assert str(example(kind)).startswith("What to do")
    assert example(kind).message == "What to do"


def test_builtin_kin() -> None:
    """A time-out is a TimeoutError, and a wrong argument a ValueError."""
    assert issubclass(TaskTimedOut, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)


def test_an_api_error_shows_code_and_status() -> None:
    """A refusal names the API's code and the status."""
    assert str(example(ApiError)) == "What to do (NOT_FOUND, HTTP 404)"
