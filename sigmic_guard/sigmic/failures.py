"""Why no complete answer came, in words to act upon, whichever transport it was.

None of these errors holds the exception that it was made of, nor any of its text: that, or its
frames, may carry the credential.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Final

from sigmic_guard.errors import ConfigurationError, ConnectionFailed, ProtocolError

__all__ = [
    "another_loop",
    "broken",
    "closed",
    "closed_under_way",
    "hung_up",
    "no_connection",
    "no_http",
    "too_slow",
]

#: The common ones, in plain words.
_REASONS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNRESET: "connection reset",
    errno.ETIMEDOUT: "connecting timed out",
}


def closed() -> ConnectionFailed:
    """Return what a request to a client that is closed means."""
    return ConnectionFailed("The client is closed.", sent=False)


def closed_under_way(*, sent: bool) -> ConnectionFailed:
    """Return what a request means whose client was closed meanwhile."""
    return ConnectionFailed("The client was closed.", sent=sent)


def another_loop() -> ConfigurationError:
    """Return what a request from another event loop means."""
    return ConfigurationError("A client belongs to one event loop: make another one.")


def too_slow(timeout: float, *, sent: bool) -> ConnectionFailed:
    """Return what it means that ``timeout`` seconds are over."""
    what = "answer" if sent else "connection"
    return ConnectionFailed(
        f"There was no {what} within {timeout:g} seconds.", sent=sent, timed_out=True
    )


def no_http() -> ProtocolError:
    """Return what it means that an answer is no HTTP, as far as its headers go."""
    return ProtocolError("The API's answer is no readable HTTP.")


def broken(exc: BaseException | None = None) -> ConnectionFailed:
    """Return what it means that an answer ended too early, or in what is no HTTP."""
    text = "The connection broke before the answer was complete"
    reason = None if exc is None else _system_reason(exc)
    return ConnectionFailed(f"{text}: {reason}." if reason else f"{text}.", sent=True)


def no_connection(exc: BaseException, where: str) -> ConnectionFailed:
    """Return why there is no connection, in the words of the system.

    :param where: host and port.
    """
    text = f"No connection to {where or 'the API'} could be made"
    reason = _system_reason(exc)
    if reason is None:
        return ConnectionFailed(f"{text} ({type(exc).__name__}).", sent=False)
    return ConnectionFailed(f"{text}: {reason}.", sent=False)


def hung_up(where: str) -> ConnectionFailed:
    """Return what it means that a connection ended before anything was handed to it.

    :param where: host and port.
    """
    return ConnectionFailed(f"The connection to {where} ended before it was used.", sent=False)


def _system_reason(exc: BaseException) -> str | None:
    """Say what the system said; ``None`` if it said nothing."""
    error = _system_error(exc)
    if error is None:
        return None
    kind = type(error).__name__
    if isinstance(error, UnicodeError):
        return "that is no possible name of a host"
    if isinstance(error, ssl.SSLError):
        why = getattr(error, "verify_message", None)
        return f"TLS failed ({kind}): {why}" if isinstance(why, str) else f"TLS failed ({kind})"
    if isinstance(error, socket.gaierror):
        return f"no such name, or no answer from the name service ({kind})"
    assert error.errno is not None
    word = errno.errorcode.get(error.errno, str(error.errno))
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        whose = "this process" if error.errno == errno.EMFILE else "this machine"
        return (
            f"{whose} is out of file descriptors ({word}). Raise the limit (ulimit -n), or run "
            "fewer tasks at once (max_tasks=…)"
        )
    return f"{_REASONS.get(error.errno) or os.strerror(error.errno)} ({word})"


def _system_error(exc: BaseException) -> OSError | UnicodeError | None:
    """Return what the system said, which may be wrapped, or one of several addresses' answers."""
    waiting: list[BaseException | None] = [exc]
    seen = set[int]()
    found: OSError | UnicodeError | None = None
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        wrapped = getattr(link, "os_error", None) or getattr(link, "certificate_error", None)
        if wrapped is not None:
            waiting.insert(0, wrapped)
            continue
        if isinstance(link, OSError) and (link.errno is not None or isinstance(link, ssl.SSLError)):
            if link.errno in {errno.EMFILE, errno.ENFILE} or isinstance(link, socket.gaierror):
                return link
            found = found or link
        elif isinstance(link, UnicodeError):
            found = found or link
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
        waiting += [link.__cause__, link.__context__]
    return found
