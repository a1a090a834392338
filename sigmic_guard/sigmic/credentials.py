"""The credential, held so that nothing but the request header ever shows it; secrets likewise."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Final, NoReturn, Self

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.values import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Credential", "Redactor"]

#: Where the credential comes from when none is given.
ENVIRONMENT_VARIABLE: Final = "SIGMIC_API_KEY"

# Its length, and whether it is known, is the server's business.
_SHAPE: Final = re.compile(r"(sigmic_|eyJ)[!-~]+", re.ASCII)


class _HeaderValue(str):
    """A string that goes on the wire as it is, and into reprs (of a dict, a traceback) hidden."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[redacted]'"


class Credential:
    """An API key (``sigmic_…``) or a JWT (``eyJ…``).

    It shows its fingerprint and no more: not in a repr, nor in a log or a traceback with locals,
    and it cannot be pickled.

    :raises ConfigurationError: the value has not the shape of a credential; the message and the
        traceback do not hold it.

    Source: the API page, "Base, authentication, envelope".
    """

    __slots__ = ("_value", "fingerprint")

    def __init__(self, value: str | None = None) -> None:
        #: Twelve hexadecimal digits that tell one credential from another.
        self.fingerprint = ""
        try:
            if value is None:
                value = os.environ.get(ENVIRONMENT_VARIABLE, "")
            value = plain(value)
            problem = _find_problem(value)
            if not problem:
                self._value = _HeaderValue(value)
                digest = hashlib.sha256(b"sigmic_guard credential\0" + value.encode())
                self.fingerprint = digest.hexdigest()[:12]
        finally:
            del value
        if problem:
            raise ConfigurationError(problem)

    @property
    def headers(self) -> dict[str, str]:
        """The header that authenticates a request."""
        return {"Authorization": _HeaderValue(f"Bearer {self._value}")}

    def redactor(self) -> Redactor:
        """Return what takes this credential out of a text."""
        return Redactor((str.__str__(self._value),))

    def __repr__(self) -> str:
        return f"Credential(fingerprint={self.fingerprint!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A credential cannot be pickled or copied.")


class Redactor:
    """Takes values out of texts, and does not show them itself."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[str]) -> None:
        # The longest first: one may be part of another.
        self._values = sorted(filter(None, values), key=len, reverse=True)

    @classmethod
    def of(cls, redactors: Iterable[Redactor]) -> Self:
        """Return one that takes out what any of these does."""
        return cls([value for one in redactors for value in one._values])  # noqa: SLF001 - its own

    def hiding(self, values: Iterable[str]) -> Redactor:
        """Return one that takes these out as well."""
        return Redactor((*self._values, *values))

    def __call__(self, text: str) -> str:
        """Return the text with each of the values replaced by ``[redacted]``."""
        for value in self._values:
            text = text.replace(value, "[redacted]")
        return text


def _find_problem(value: object) -> str | None:
    """Return what is wrong with the value, without it."""
    if type(value) is not str:
        return f"The API key must be a string, not {type(value).__name__}."
    if not value:
        return f"There is no API key: pass api_key=… or set {ENVIRONMENT_VARIABLE}."
    if not _SHAPE.fullmatch(value):
        return (
            "The API key must begin with 'sigmic_' or 'eyJ' and hold no white space, control or "
            "non-ASCII characters; check for a stray newline or quotation mark."
        )
    return None
