"""What is asked of the page, read with care: where, by whom, and a form of bounded size.

What it came over is the business of :mod:`.asgi` and :mod:`.aiohttp_web`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote

from anyio import move_on_after

from sigmic_guard.integrations.admin.access import COOKIE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    #: Returns the next piece of a body, ``None`` at its end; raises :class:`HungUp`.
    Read = Callable[[], Awaitable[bytes | None]]

#: Bytes of a form.
MAX_FORM: Final = 4096
#: Fields of a form, or of a query.
MAX_FIELDS: Final = 20
#: Seconds in which a form has to arrive.
FORM_TIMEOUT: Final = 10.0


class Refused(Exception):
    """The request is answered with this status and sentence, and nothing else happens."""

    def __init__(self, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers


class HungUp(Exception):
    """Nobody waits for an answer."""


class Request:
    """One HTTP request.

    :ivar mount: the path below which the application is, without a slash at its end.
    :ivar route: the path from there on; empty where the slash is missing.
    :param query: what follows the question mark.
    :param headers: their names in lower case.
    :param secure: whether it came over TLS, as far as the host knows.
    :param http1: whether one request follows another on its connection.
    :param read: gets the body.
    """

    __slots__ = ("_headers", "_http1", "_query", "_read", "_secure", "method", "mount", "route")

    def __init__(
        self,
        *,
        method: str,
        mount: str,
        route: str,
        query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        secure: bool,
        http1: bool,
        read: Read,
    ) -> None:
        self.method = method
        self.mount = mount
        self.route = route
        self._query = query
        self._secure = secure
        self._http1 = http1
        self._read = read
        self._headers: dict[bytes, bytes] = {}
        for name, value in headers:
            before = self._headers.get(name)
            self._headers[name] = value if before is None else before + b"; " + value

    def _header(self, name: bytes) -> str | None:
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def home(self) -> str:
        """Where the list is, from here; what a proxy puts before the mount need not be known."""
        return "../" * (self.route.count("/") - 1) or "./"

    @property
    def query(self) -> dict[str, str]:
        """The fields after the question mark.

        :raises Refused: there are too many.
        """
        return _fields(self._query)

    @property
    def bearer(self) -> str | None:
        """What ``Authorization: Bearer`` presents; other schemes may be a proxy's."""
        scheme, _, presented = (self._header(b"authorization") or "").partition(" ")
        return presented.strip() if scheme.lower() == "bearer" else None

    def sessions(self) -> Iterator[str]:
        """Iterate over the cookies that may be a session: another site's may be among them."""
        for cookie in (self._header(b"cookie") or "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == COOKIE:
                yield value

    @property
    def cross_site(self) -> bool:
        """Whether a browser says that the request comes from somebody else's page."""
        site = self._header(b"sec-fetch-site")
        if site is not None:
            return site not in {"same-origin", "none"}
        origin = self._header(b"origin")
        # A page with "Referrer-Policy: no-referrer", as ours, makes browsers say "null". Then only
        # the form's signature tells. Source: the Fetch standard, "append a request Origin header".
        if origin is None or origin == "null":
            return False
        # Not the scheme: behind a proxy that speaks TLS we may not know it.
        return origin.partition("://")[2].lower() != (self._header(b"host") or "").lower()

    def cookie(self, session: str, seconds: int) -> tuple[bytes, bytes]:
        """Return the header that sets the session's cookie for so many seconds."""
        secure = "; Secure" if self._secure else ""
        path = quote(self.mount) or "/"
        text = f"{COOKIE}={session}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        return b"set-cookie", (text + secure).encode("latin-1")

    async def form(self) -> dict[str, str]:
        """Read the fields of the form that is sent.

        :raises Refused: it is too large, too slow, or has too many.
        :raises HungUp: it was broken off.
        """
        close = (b"connection", b"close")  # what is left of it is not read
        headers = [close] if self._http1 else []
        body = b""
        with move_on_after(FORM_TIMEOUT):
            while (piece := await self._read()) is not None:
                body += piece
                if len(body) > MAX_FORM:
                    raise Refused(413, f"A form has at most {MAX_FORM} bytes here.", *headers)
            return _fields(body)
        raise Refused(408, "The form did not arrive in time.", *headers)


def _fields(encoded: bytes) -> dict[str, str]:
    text = encoded.decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError:
        raise Refused(400, f"There are more than {MAX_FIELDS} fields.") from None
    return dict(pairs)
