"""The sockets of a connection: asyncio's view of one, the two together, and the way to the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

from checks.kit.wire import protocol

if TYPE_CHECKING:
    from checks.kit.postgres.address import Address
    from checks.kit.wire.faults import Faults
    from checks.kit.wire.recording import Totals

_LINGER_ZERO = struct.pack("ii", 1, 0)
"""struct linger, on with zero seconds: closing the socket then throws away what is unsent and sends a RST."""


class Side(asyncio.Protocol):
    """One of a connection's two sockets; passes what asyncio reports on to five functions.

    `full` is called with True when the socket's write buffer is above asyncio's high-water mark (64 KiB), and with
    False when it has drained. `ended` is called when the other end sends no more (FIN); true keeps the socket open for
    writing.
    """

    def __init__(
        self,
        *,
        connected: Callable[[asyncio.Transport], None],
        received: Callable[[bytes], None],
        lost: Callable[[], None],
        full: Callable[[bool], None],
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connected = connected
        self._received = received
        self._lost = lost
        self._full = full
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            # without it, Nagle's algorithm holds a small message back until the one before is acknowledged
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # other event loops than asyncio's have transports that are not of its classes
        self._connected(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def eof_received(self) -> bool:
        return self._ended()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def pause_writing(self) -> None:
        self._full(True)

    def resume_writing(self) -> None:
        self._full(False)


class Link:
    """The two sockets of one connection. What is written to a side that is not there, or no more, is thrown away."""

    def __init__(self, totals: Totals, faults: Faults) -> None:
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self._totals = totals
        self._faults = faults
        self._full: set[str] = set()
        self.silent = False
        """Nothing is read from either side of this connection, as in a black hole of its own."""

    def to_server(self, data: bytes) -> None:
        if data and self.server is not None:
            self.server.write(data)
            self._totals.bytes_to_server += len(data)

    def to_client(self, data: bytes) -> None:
        if self.client is not None:
            self.client.write(data)

    # Back pressure: a side that cannot take more for now is sent no more, by not reading from the other one. TCP then
    # fills up to the sender, as it would without a proxy. In a black hole nothing is read, whatever else happens.

    def set_full(self, place: Literal["client", "server", "queue"], full: bool) -> None:
        """Takes note that a side can take no more for now, or again; "queue" is what waits here for the server."""
        (self._full.add if full else self._full.discard)(place)
        self.read_what_fits()

    def read_what_fits(self) -> None:
        """Reads from each side if the other can take it and there is no black hole; else the kernel fills up."""
        silent = self.silent or self._faults.silent
        _read(self.client, not (silent or "server" in self._full or "queue" in self._full))
        _read(self.server, not (silent or "client" in self._full))

    def end_client(self) -> bool:
        """Tells the server that the client sends no more; false if that cannot be said, as with TLS."""
        if self.server is None or not self.server.can_write_eof():
            return False
        if not self.server.is_closing():
            with contextlib.suppress(OSError):  # the server has reset the connection, which will be reported next
                self.server.write_eof()
        return True

    def close(self) -> None:
        """Closes both sides after what was written to them has been sent."""
        close(self.client)
        close(self.server)

    def reset(self) -> None:
        """Closes both sides at once, over TCP with a RST; unsent bytes are lost."""
        _reset(self.client)
        _reset(self.server)


def _read(transport: asyncio.Transport | None, on: bool) -> None:
    if transport is not None and not transport.is_closing():
        (transport.resume_reading if on else transport.pause_reading)()


def close(transport: asyncio.Transport | None) -> None:
    """Closes after what is buffered has been sent; does nothing without a transport, or a second time."""
    if transport is not None and not transport.is_closing():
        with contextlib.suppress(RuntimeError):  # the event loop is closed already
            transport.close()


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is None or transport.is_closing():
        return
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family != getattr(socket, "AF_UNIX", None):  # Windows has no AF_UNIX
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()


async def connect_server(address: Address, side: Callable[[], asyncio.Protocol]) -> None:
    """Connects to the server at `address`, over TLS if it says so. Raises OSError, also for a bad certificate."""
    loop = asyncio.get_running_loop()
    if address.socket_path is not None:
        await loop.create_unix_connection(side, address.socket_path)
    elif address.tls is None:
        await loop.create_connection(side, address.host, address.port)
    else:
        raw = await _request_tls(address)
        name = address.server_name or address.host
        await loop.create_connection(side, sock=raw, ssl=address.tls, server_hostname=name)


async def _request_tls(address: Address) -> socket.socket:
    """A TCP socket on which the server has agreed to speak TLS next.

    Done by hand, because PostgreSQL expects a request in clear before the TLS handshake, which asyncio cannot send.
    """
    loop = asyncio.get_running_loop()
    family, kind, number, _, place = (await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))[0]
    raw = socket.socket(family, kind, number)
    try:
        raw.setblocking(False)
        await loop.sock_connect(raw, place)
        await loop.sock_sendall(raw, struct.pack("!ii", 8, protocol.TLS))
        # one byte only: a second one would already belong to the handshake
        if await loop.sock_recv(raw, 1) != b"S":
            raise ConnectionError("it does not offer TLS, which the URL asks for")
    except BaseException:
        raw.close()
        raise
    return raw
