"""How long to wait before the next attempt: exponential, capped, jittered, polite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Seconds that a server's ``Retry-After`` is believed, at most.
MAX_RETRY_AFTER: Final = 60.0


def believed(retry_after: float | None) -> float:
    """Return the seconds to wait for a server that asked for so many: at most a minute."""
    if retry_after is None:
        return 0.0
    return min(max(0.0, retry_after), MAX_RETRY_AFTER)  # in this order NaN is nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Full-range exponential backoff with "equal" jitter: half of the delay is fixed, half random.

    :param first: seconds before the second attempt.
    :param most: seconds that no delay of ours exceeds (the server's ``Retry-After`` may, up to a
        minute).
    :param factor: how much longer each delay is than the one before.
    """

    first: float = 0.1
    most: float = 10.0
    factor: float = 2.0

    def delay(self, attempt: int, chance: float, *, retry_after: float | None = None) -> float:
        """Return the seconds to wait after the ``attempt``-th failure (1 is the first).

        :param chance: a random number from 0 to 1, drawn by the caller.
        :param retry_after: what the server asked for: believed up to a minute, never undercut, and
            spread a little, so that those who were told the same do not come back at the same
            instant.
        """
        # The exponent is capped where the delay is anyway: 2.0 ** 2000 does not fit a float.
        whole = min(self.most, self.first * self.factor ** min(attempt - 1, 64))
        delay = whole * (0.5 + 0.5 * chance)
        if retry_after is None:
            return delay
        return max(delay, believed(retry_after) + self.first * chance)
