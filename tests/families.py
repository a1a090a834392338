"""Large families of parameters: `make test` runs some members, `make test-all` every one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Selection:
    """What this run leaves out; noted before any test is collected."""

    def __init__(self) -> None:
        self.slow = True

    def note(self, config: pytest.Config) -> None:
        """Let slow members not even be collected where none is to run: each process would pay."""
        self.slow = "not slow" not in config.option.markexpr


selection = Selection()


def slow_if(condition: Callable[..., bool], values: Iterable[Any]) -> list[Any]:
    """Return the parameters, those marked slow for which the condition holds.

    :param condition: gets the values of one member.
    """
    found = []
    for value in values:
        each = value if isinstance(value, tuple) else (value,)
        if not condition(*each):
            found.append(value)
        elif selection.slow:
            found.append(pytest.param(*each, marks=pytest.mark.slow))
    return found
