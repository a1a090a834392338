"""Who may use the page: the host's token, sessions that begin with it, and what they have signed.

Nothing is stored. A session is a random name with its end, signed by a key that is made of the
token: each worker process of a service takes it, and another token ends all of them.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.values import plain

#: Characters.
MIN_TOKEN: Final = 16
#: Seconds after which one has to log in again.
SESSION_SECONDS: Final = 8 * 3600
COOKIE: Final = "sigmic_guard_admin"

_ADVICE: Final = 'make one with python -c "import secrets; print(secrets.token_urlsafe())"'


class Access:
    """Tells who has the token.

    :raises ConfigurationError: the token is too short, or holds what no header can.
    """

    __slots__ = ("_key",)

    def __init__(self, token: str) -> None:
        try:
            text = plain(token)
            if type(text) is not str:
                raise ConfigurationError(f"token must be a string, not a {type(token).__name__}")
            if len(text) < MIN_TOKEN:
                raise ConfigurationError(
                    f"token must have at least {MIN_TOKEN} characters, and has {len(text)}: "
                    f"whoever guesses it may cancel tasks; {_ADVICE}"
                )
            if not all("!" <= character <= "~" for character in text):
                raise ConfigurationError(
                    f"token must be of visible ASCII characters, without spaces; {_ADVICE}"
                )
            self._key = _key_of(text)
        finally:
            del token, text  # a traceback that is printed with its locals must not show it

    def __repr__(self) -> str:
        return "<Access>"

    def has_token(self, presented: str) -> bool:
        """Whether this is the token; how long that takes tells nothing of it."""
        return hmac.compare_digest(self._key, _key_of(presented))

    def new_session(self, now: float) -> str:
        """Return a session that begins now; ``now`` is in seconds since the epoch."""
        named = f"{int(now) + SESSION_SECONDS}.{token_urlsafe(16)}"
        return f"{named}.{self.sign('session', named)}"

    def is_session(self, session: str, now: float) -> bool:
        """Whether it was made by :meth:`new_session`, and has not ended."""
        named, _, signature = session.rpartition(".")
        if not self.is_signed(signature, "session", named):
            return False
        return int(named.partition(".")[0]) > now

    def sign(self, *parts: str) -> str:
        """Return a signature of these texts, in this order; what it is for comes first."""
        sizes = (f"{len(part)}:{part}" for part in parts)
        return hmac.new(self._key, "".join(sizes).encode("utf-8", "replace"), sha256).hexdigest()

    def is_signed(self, signature: str, *parts: str) -> bool:
        """Whether :meth:`sign` returned this; how long that takes tells nothing of it."""
        return hmac.compare_digest(self.sign(*parts).encode(), signature.encode("utf-8", "replace"))


def _key_of(token: str) -> bytes:
    return sha256(b"sigmic_guard admin\x00" + token.encode("utf-8", "replace")).digest()
