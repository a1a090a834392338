"""Never the wrong one: random schedules of processes that live, stop and die on one ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.schedules.schedule import SCHEDULES, Step, live_through

#: 10,000 schedules in portions that each fit into a test's time.
PORTIONS = 20
PORTION = 500


def check(schedule: Sequence[Step]) -> None:
    crimes = live_through(schedule).crimes
    assert not crimes, "\n".join(crimes)


@pytest.mark.timeout(300)  # it takes 2 s of a core, which others may be using
@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEDULES, st.random_module())
def test_some(schedule: list[Step], chance: Any) -> None:
    """Whatever befalls processes: no live owner's task is ended by another, no orphan runs on."""
    check(schedule)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("portion", range(PORTIONS))
def test_ten_thousand(portion: int) -> None:
    """So it is in ten thousand schedules, others each time."""

    @settings(max_examples=PORTION, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(SCHEDULES, st.random_module())
    def many(schedule: list[Step], chance: Any) -> None:
        check(schedule)

    many()
