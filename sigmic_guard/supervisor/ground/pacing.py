"""When to ask again, by what the last answer was.

A refusal in the API's own words, 401 or 403, is believed and asked about again all the same, for
credentials and permissions come back: slowly, as long as it matters. What a server asks for with
``Retry-After`` is believed up to a minute.
"""

from __future__ import annotations

from typing import Final

from sigmic_guard.errors import AuthenticationError, PermissionDenied
from sigmic_guard.lifecycle import Backoff

#: The API's own word that this credential may not.
REFUSALS: Final = (AuthenticationError, PermissionDenied)
#: How long to wait after the first refusal in a row, the second, and so on: 2 s, and up to 60 s.
SLOWLY: Final = Backoff(first=2.0, most=60.0)


def asked_pause(error: Exception | None) -> float | None:
    """Return the seconds that a server asked to wait; ``None`` where it did not."""
    retry_after: float | None = getattr(error, "retry_after", None)
    return retry_after
