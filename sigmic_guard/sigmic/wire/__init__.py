"""HTTP/1.1 for short calls, on asyncio's protocols and httptools.

What a failed call means depends on how far its request came. This transport knows whether a byte of
it was handed to a connection, and sends nothing twice by itself. By its modules, from below:

- ``inflating``, ``reading``: answers out of bytes, with no I/O;
- ``writing``: requests as bytes;
- ``connection``: one connection, one call at a time;
- ``dialing``: how a connection is made;
- ``deadlines``: one timer for all that is waited for;
- ``pool``: who has which connection, and whose turn it is;
- ``transport``: one call, by the protocol
  :class:`~sigmic_guard.sigmic.control.ControlTransport`.
"""

from __future__ import annotations

from sigmic_guard.sigmic.wire.transport import WireTransport

__all__ = ["WireTransport"]
