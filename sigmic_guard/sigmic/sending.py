"""Sending a request with the credential in use, and once more with the next one if need be."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from sigmic_guard.errors import AuthenticationError
from sigmic_guard.lifecycle.values import check_seconds
from sigmic_guard.sigmic.responses import Answer, in_own_words

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sigmic_guard.errors import ApiError, ProtocolError
    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.keyring import Keyring

    class Call(Protocol[T_co]):
        """Sends one request; see :class:`~sigmic_guard.sigmic.control.ControlTransport`."""

        def __call__(
            self, method: str, route: str, path: str, *, timeout: float, body: Body | None = None
        ) -> Awaitable[T_co]: ...


__all__ = ["explained", "send"]


#: Seconds without which it makes no sense to send a request.
LEAST_TIMEOUT: Final = 0.05
_UNAUTHORISED: Final = 401


async def send(
    keyring: Keyring,
    call: Call[T],
    method: str,
    route: str,
    path: str,
    *,
    timeout: float,
    body: Body | None = None,
) -> T:
    """Send a request; once more if the credential is refused, and there is another one.

    What the API refuses with 401 in its own words was not obeyed, so that a POST may be sent again.

    :param timeout: seconds for all of it, as the user gave them.
    :raises ConfigurationError: they are none, or there is no credential.
    :raises SigmicGuardError: see :class:`~sigmic_guard.sigmic.control.ControlTransport`.
    """
    timeout = check_seconds("timeout", timeout)
    until = monotonic() + timeout
    credential = keyring.credential
    if credential is None:
        credential = await keyring.ready(timeout)
        timeout = max(until - monotonic(), LEAST_TIMEOUT)
    answer = await call(method, route, path, timeout=timeout, body=body)
    if not (
        keyring.renewable
        and isinstance(answer, Answer)
        and answer.status == _UNAUTHORISED
        and in_own_words(answer)
    ):
        return answer
    renewed = await keyring.renew(credential, max(until - monotonic(), 0.0))
    left = until - monotonic()
    if not renewed or left < LEAST_TIMEOUT:
        return answer
    again = None if body is None else body.again()
    return await call(method, route, path, timeout=left, body=again)


def explained(error: ApiError | ProtocolError, keyring: Keyring) -> ApiError | ProtocolError:
    """Return the error; a refused credential's with what came of asking for another one."""
    if isinstance(error, AuthenticationError) and keyring.hint:
        return AuthenticationError(
            f"{error.message} {keyring.hint}",
            code=error.code,
            status=error.status,
            retry_after=error.retry_after,
        )
    return error
