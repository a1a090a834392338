"""A policy is right, or is refused with a message that names the field."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle import TaskPolicy
from sigmic_guard.lifecycle.values import check_seconds

CHOICES = {
    "on_exit": ["cancel", "wait", "detach"],
    "on_shutdown": ["cancel", "detach", "reattach"],
    "on_crash": ["cancel", "reattach", "abandon"],
    "on_lost": ["report", "cancel"],
    "confirm": ["accepted", "terminal"],
}
SECONDS = ("timeout", "cancel_wait", "reattach_within")
NO_SECONDS: list[Any] = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    -0.001,
    True,
    False,
    "5",
    b"5",
    Decimal(5),
    [],
    object(),
    10**400,
]
RIGHT = [(name, value) for name, values in CHOICES.items() for value in values] + [
    (name, value) for name in SECONDS for value in (0, 0.0, 1, 2.5, 1e300)
]
WRONG: list[tuple[str, Any]] = [
    (name, value)
    for name in CHOICES
    for value in ("", "Cancel", "cancel ", "never", None, True, 1, ["cancel"], b"cancel")
]
WRONG += [("on_shutdown", "wait"), ("on_crash", "detach"), ("confirm", "cancel")]
WRONG += [(name, value) for name in SECONDS for value in NO_SECONDS]
WRONG += [("cancel_wait", None), ("reattach_within", None)]


def test_the_defaults_are_the_designs() -> None:
    """Without a word everything is cancelled, and nothing has a deadline."""
    assert dataclasses.asdict(TaskPolicy()) == {
        "timeout": None,
        "on_exit": "cancel",
        "on_shutdown": "cancel",
        "on_crash": "cancel",
        "confirm": "accepted",
        "cancel_wait": 5.0,
        "reattach_within": 300.0,
        "on_lost": "report",
    }


@pytest.mark.parametrize("name, value", [*RIGHT, ("timeout", None)])
def test_what_is_right_is_kept(name: str, value: Any) -> None:
    """Every documented value is taken, by the constructor and by but()."""
    assert getattr(TaskPolicy(**{name: value}), name) == value
    assert TaskPolicy().but(**{name: value}) == TaskPolicy(**{name: value})


@pytest.mark.parametrize("name, value", WRONG)
def test_what_is_wrong_is_refused_by_name(name: str, value: Any) -> None:
    """Anything else is a ConfigurationError that names the field, also as a ValueError."""
    with pytest.raises(ConfigurationError, match=name):
        TaskPolicy(**{name: value})
    with pytest.raises(ValueError, match=name):
        TaskPolicy().but(**{name: value})


def test_every_field_is_tried_here() -> None:
    """A new field needs its values in this module."""
    fields = {field.name for field in dataclasses.fields(TaskPolicy)}
    assert fields == {name for name, _ in RIGHT} == {name for name, _ in WRONG}


def test_an_unknown_option_is_refused_with_those_that_exist() -> None:
    """A misspelt option is named, together with the right ones."""
    with pytest.raises(ConfigurationError, match=r"time_out; .*timeout"):
        TaskPolicy().but(time_out=5)


def test_no_change_is_the_same_policy() -> None:
    """Policies are shared by all tasks that change nothing."""
    policy = TaskPolicy(timeout=5)
    assert policy.but() is policy
    assert policy.but(on_exit="wait").timeout == 5
    assert policy.on_exit == "cancel"


def test_a_policy_is_frozen() -> None:
    """Nobody changes a policy behind the back of the tasks that have it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskPolicy().timeout = 5  # type: ignore[misc]


def test_seconds_have_a_least_value() -> None:
    """The bound belongs to the range, and the result is a float."""
    assert check_seconds("grace", 3, least=3.0) == 3.0
    assert isinstance(check_seconds("grace", 3), float)
    with pytest.raises(ConfigurationError, match=r"grace.*at least 3,"):
        check_seconds("grace", 2.9, least=3.0)
