"""How a connection is made: a name's addresses, the fastest of them, and TLS."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

import aiohappyeyeballs
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sigmic_guard.sigmic.wire.connection import Connection

    Addresses = Sequence[tuple[int, int, int, str, Any]]

__all__ = ["FOREIGN", "Dialer"]

#: What making a connection raises. UnicodeError: no possible name; RuntimeError: uvloop's word for
#: a socket that is closed already. Anything else is a bug, and shall be seen.
FOREIGN: Final = (OSError, EOFError, ValueError, RuntimeError)

#: Seconds for which the addresses of a name are believed.
_KEEP_ADDRESSES: Final = 10.0
#: Seconds until another address is tried beside the one that does not answer.
_EYEBALLS_DELAY: Final = 0.25


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return what everybody's servers are checked with. Reads files, once in a process."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Makes connections to the host of one base URL."""

    def __init__(self, base_url: str, loop: asyncio.AbstractEventLoop) -> None:
        url = URL(base_url)
        self._loop = loop
        self._host = (url.raw_host or "").rstrip(".")
        self._port = url.port or 0
        self._tls = url.scheme == "https"
        self._addresses: Addresses = ()
        self._believed_until = 0.0
        #: Who needs the addresses while somebody asks for them shares that.
        self._asking: asyncio.Future[Addresses] | None = None
        if literal := _literal(self._host, self._port):
            self._addresses, self._believed_until = literal, inf

    @property
    def where(self) -> str:
        """The host and the port, for messages."""
        return f"{self._host}:{self._port}"

    async def dial(self, make: Callable[[], Connection]) -> Connection:
        """Return a connection, with TLS shaken if it is to have that.

        :raises Exception: one of :data:`FOREIGN`.
        """
        context = None
        if self._tls:
            context = await self._loop.run_in_executor(None, default_context)
        addresses = await self._resolve()
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_EYEBALLS_DELAY, loop=self._loop
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        making = self._loop.create_task(
            self._loop.create_connection(
                make, sock=sock, ssl=context, server_hostname=self._host if self._tls else None
            )
        )
        try:
            _, connection = await asyncio.shield(making)
        except asyncio.CancelledError:
            # Cancelled itself, it might leave a transport that nobody knows; so it is made to fail.
            making.add_done_callback(_drop)
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            await asyncio.wait({making})
            raise
        return connection

    async def _resolve(self) -> Addresses:
        if self._believed_until < self._loop.time():
            if self._asking is None:
                self._asking = self._loop.run_in_executor(None, self._look_up)
                self._asking.add_done_callback(self._learn)
            # One who does not wait any more does not end it for the others.
            return await asyncio.shield(self._asking)
        return self._addresses

    def _look_up(self) -> Addresses:
        return socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )

    def _learn(self, asked: asyncio.Future[Addresses]) -> None:
        self._asking = None
        # That it failed whoever waits learns, if anybody does.
        if not asked.cancelled() and asked.exception() is None:
            self._addresses = asked.result()
            self._believed_until = self._loop.time() + _KEEP_ADDRESSES


def _drop(making: asyncio.Task[tuple[asyncio.Transport, Connection]]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result()[1].abort()


def _literal(host: str, port: int) -> Addresses:
    """Return the one address of a host that is an address, and not one in a zone; else none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ()
    if isinstance(address, ipaddress.IPv4Address):
        where: tuple[Any, ...] = (host, port)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]
    if address.scope_id is not None:
        return ()
    where = (host, port, 0, 0)
    return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]
