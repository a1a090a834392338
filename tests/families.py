"""Large families of parameters: `make test` runs some members, `make test-all` every one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def slow_if(condition: Callable[..., bool], values: Iterable[Any]) -> list[Any]:
    """Return the parameters, those marked slow for which the condition holds.

    :param condition: gets the values of one member.
    """
    found = []
    for value in values:
        each = value if isinstance(value, tuple) else (value,)
        found.append(pytest.param(*each, marks=pytest.mark.slow) if condition(*each) else value)
    return found
