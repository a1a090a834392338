"""Backoff: longer and longer, within bounds, and never sooner than the server asked."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sigmic_guard.lifecycle import Backoff

chances = st.floats(0, 1)
attempts = st.integers(1, 10**9)
backoffs = st.builds(
    lambda first, times, factor: Backoff(first=first, most=first * times, factor=factor),
    st.floats(0.001, 10),
    st.floats(1, 1000),
    st.floats(1, 10),
)


@given(backoffs, attempts, chances)
def test_no_delay_leaves_its_bounds(backoff: Backoff, attempt: int, chance: float) -> None:
    """A delay is at least half of the first one, and never more than the most."""
    assert backoff.first / 2 <= backoff.delay(attempt, chance) <= backoff.most


@given(backoffs, attempts, chances)
def test_delays_never_shrink(backoff: Backoff, attempt: int, chance: float) -> None:
    """With the same chance the next delay is at least as long."""
    assert backoff.delay(attempt, chance) <= backoff.delay(attempt + 1, chance)


@given(backoffs, attempts, chances)
def test_half_of_a_delay_is_chance(backoff: Backoff, attempt: int, chance: float) -> None:
    """The jitter spreads a delay over the upper half of its range, and grows with the chance."""
    low, high = backoff.delay(attempt, 0.0), backoff.delay(attempt, 1.0)
    assert low == pytest.approx(high / 2)
    assert low <= backoff.delay(attempt, chance) <= high


@given(backoffs, attempts, chances, st.floats(0, 1e6))
def test_the_server_is_never_undercut(
    backoff: Backoff, attempt: int, chance: float, asked: float
) -> None:
    """Retry-After is waited for, also beyond the most, up to a minute, or as long as our own."""
    delay = backoff.delay(attempt, chance, retry_after=asked)
    own, asked = backoff.delay(attempt, chance), min(asked, 60.0)
    assert max(asked, own) <= delay <= max(own, asked + backoff.first * 1.001)


def test_a_server_that_asks_for_the_past_is_answered_now() -> None:
    """A negative Retry-After is none to wait for: our own delay counts."""
    assert Backoff().delay(1, 0.0, retry_after=-5) == Backoff().delay(1, 0.0)


@pytest.mark.parametrize("asked", [61, 3600, 1e12, math.inf])
def test_no_server_puts_us_off_for_longer_than_a_minute(asked: float) -> None:
    """An absurd Retry-After is believed up to 60 s."""
    assert Backoff().delay(1, 0.0, retry_after=asked) == 60


def test_a_retry_after_that_is_no_number_is_none() -> None:
    """NaN asks for nothing."""
    assert Backoff().delay(1, 0.0, retry_after=math.nan) == Backoff().delay(1, 0.0)


def test_the_defaults_double_from_a_tenth_to_ten_seconds() -> None:
    """0.1, 0.2, 0.4, … and ten seconds from the eighth failure on."""
    delays = [Backoff().delay(attempt, 1.0) for attempt in range(1, 10)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
