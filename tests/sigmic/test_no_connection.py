"""Why there is no connection, in words to act upon; nothing was sent."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.sigmic import CreateRequest
from sigmic_guard.sigmic.transport import Attempt, translate
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import answering, client_of, success

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.backends(ASYNCIO, UVLOOP), pytest.mark.usefixtures("transport")]

ADDRESS: Any = ConnectionKey("h", 80, False, True, None, None, None)


def wrapped(error: OSError) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(ADDRESS, error)


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.EMFILE, "x"), ["this process", "EMFILE", "ulimit -n", "max_tasks"]),
        (OSError(errno.ENFILE, "x"), ["this machine", "ENFILE", "ulimit -n", "max_tasks"]),
        (wrapped(OSError(errno.EMFILE, "x")), ["this process", "EMFILE", "ulimit -n"]),
        (
            wrapped(OSError(errno.EHOSTUNREACH, "x")),
            ["host unreachable", "EHOSTUNREACH"],
        ),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), ["refused", "ECONNREFUSED"]),
        (OSError(errno.ENETUNREACH, "x"), ["network unreachable", "ENETUNREACH"]),
        (OSError(errno.EACCES, "x"), [os.strerror(errno.EACCES), "EACCES"]),
        (socket.gaierror(socket.EAI_NONAME, "x"), ["no such name"]),
        (
            aiohttp.ClientConnectorDNSError(ADDRESS, socket.gaierror(socket.EAI_AGAIN, "x")),
            ["no such name"],
        ),
        (
            ExceptionGroup("all", [OSError(errno.ECONNREFUSED, "x"), OSError(errno.EMFILE, "x")]),
            ["EMFILE"],
        ),
        (OSError("Multiple exceptions"), ["OSError"]),
        (ssl.SSLError("x"), ["SSLError"]),
        (RuntimeError("Session is closed"), ["RuntimeError"]),
    ],
    ids=str,
)
def test_the_words(error: Exception, words: list[str]) -> None:
    """With the host and the port, and nothing of the exception's own text."""
    found = translate(error, Attempt(None, "api.test:443"))
    assert isinstance(found, ConnectionFailed)
    assert not found.sent
    for word in [*words, "api.test:443"]:
        assert word in str(found)
    assert "Multiple" not in str(found)


@pytest.fixture
def no_descriptors() -> Iterator[list[int]]:
    """Take every file descriptor there is, on demand."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    yield taken
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for fd in taken:
        os.close(fd)


async def test_a_process_out_of_descriptors(no_descriptors: list[int]) -> None:
    """The create says so, and proves that nothing was sent; with descriptors it works."""
    async with client_of(answering(success({"id": "1", "status": "pending"}))) as client:
        used = max(map(int, os.listdir("/proc/self/fd")))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                no_descriptors.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(ConnectionFailed, match=r"file descriptors .*ulimit -n") as caught:
            await client.create(CreateRequest(message="m"), timeout=10)
        assert not caught.value.sent
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        assert await client.create(CreateRequest(message="m"), timeout=10) == "1"
