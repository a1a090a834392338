"""Requests as bytes. Whatever comes into a head is looked at here, wherever else it was before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from yarl import URL

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.sigmic.control import USER_AGENT, trace_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.credentials import Credential

__all__ = ["RequestWriter"]

_TARGET: Final = re.compile(r"[!-~]*", re.ASCII)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE: Final = re.compile(r"[ -~]*", re.ASCII)
#: Bytes of a body that it is cheaper to copy than to write apart.
_SMALL: Final = 64 * 1024


class RequestWriter:
    """Writes the requests to one base URL.

    :param base_url: as :func:`~sigmic_guard.sigmic.urls.check_base_url` returns it.
    """

    __slots__ = ("_after", "_before", "_host")

    def __init__(self, base_url: str, credential: Credential | None) -> None:
        url = URL(base_url)
        self._before = _checked(_TARGET, url.raw_path.rstrip("/"))
        self._host = _checked(_VALUE, str(url.host_port_subcomponent))
        self._after = ""
        self.use(credential)

    def use(self, credential: Credential | None) -> None:
        """Send another credential from now on."""
        headers = {
            "Host": self._host,
            **({} if credential is None else credential.headers),
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": USER_AGENT,
        }
        self._after = " HTTP/1.1\r\n" + _lines(headers)

    def write(self, method: str, path: str, body: Body | None) -> tuple[bytes, ...]:
        """Return the pieces of a request.

        :param path: below the base URL, and encoded.
        :raises ConfigurationError: what belongs to a trace cannot be sent.
        """
        more = trace_headers.get()
        lines = _lines(more) if more else ""
        if body is not None:
            kind = _checked(_VALUE, body.content_type)
            lines += f"Content-Type: {kind}\r\nContent-Length: {body.size}\r\n"
        elif method != "GET":
            lines += "Content-Length: 0\r\n"
        start = f"{method} {self._before}{_checked(_TARGET, path)}"
        # From here on nothing raises: a traceback would show what is secret.
        data = b"" if body is None else body.data
        head = f"{start}{self._after}{lines}\r\n".encode("ascii")
        return (head + data,) if len(data) < _SMALL else (head, data)


def _lines(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        _checked(_NAME, name)
        _checked(_VALUE, value)
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _checked(pattern: re.Pattern[str], text: str) -> str:
    fits = pattern.fullmatch(text)
    if not fits:
        # It may be the credential.
        del text
        raise ConfigurationError("A request cannot be sent with a header or path like this.")
    return text
