"""A client that speaks the PostgreSQL protocol message by message, for what no driver sends on request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import cast

import psycopg

from checks.kit.wire.protocol import Splitter


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def parse(text: str, name: str = "") -> bytes:
    return message("P", name.encode() + b"\0" + text.encode() + b"\0\0\0")


def bind(name: str = "", values: tuple[str | None, ...] = ()) -> bytes:
    packed = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value.encode() for value in values
    )
    return message("B", b"\0" + name.encode() + b"\0" + struct.pack("!hh", 0, len(values)) + packed + b"\0\0")


def execute(rows: int = 0) -> bytes:
    """Of the unnamed portal; at most so many rows, if any number is given."""
    return message("E", b"\0" + struct.pack("!i", rows))


DESCRIBE = message("D", b"P\0")
SYNC = message("S")
FLUSH = message("H")


def cancel_request(pid: int = 0, key: int = 0) -> bytes:
    return struct.pack("!iiii", 16, 80877102, pid, key)


def start_up(**parameters: str) -> bytes:
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, 196608) + body


class Client:
    """Logged in by libpq; from then on its socket is ours.

    `received` holds each message of the server as its kind and its body, except for its notices.
    """

    def __init__(
        self, login: psycopg.AsyncConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.writer = writer
        self._login = login  # with a copy of the socket of its own
        self._reader = reader
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str) -> Client:
        login = await psycopg.AsyncConnection.connect(url)
        sock = socket.socket(fileno=os.dup(login.pgconn.socket))
        sock.setblocking(False)
        return cls(login, *await asyncio.open_connection(sock=sock))

    async def _read(self) -> None:
        splitter = Splitter(bytes(range(256)))
        while data := await self.read():
            position = 0
            while found := splitter.next(data, position):
                kind, body, position = found
                if chr(kind) != "N":
                    self.received.append((chr(kind), body))
            self._more.set()

    async def read(self) -> bytes:
        """The next bytes of the server; none when it has closed the connection, or the proxy has cut it."""
        with contextlib.suppress(ConnectionResetError):
            return await self._reader.read(1 << 16)
        return b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, kinds: str, since: int = 0) -> None:
        """Returns when the server has sent a message of one of these kinds, counted from the message `since`."""
        async with asyncio.timeout(60):
            while not any(kind in kinds for kind, _ in self.received[since:]):
                self._more.clear()
                await self._more.wait()

    async def until_all(self, kind: str, count: int) -> None:
        """Returns when the server has sent so many messages of this kind."""
        async with asyncio.timeout(60):
            while sum(one == kind for one, _ in self.received) < count:
                self._more.clear()
                await self._more.wait()

    async def ended(self) -> None:
        """Returns when the server has closed the connection."""
        async with asyncio.timeout(60):
            await asyncio.wait({self._reading})

    def pause(self) -> None:
        """Reads nothing more from the socket, until `resume`."""
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.ReadTransport:
        return cast(asyncio.ReadTransport, self.writer.transport)

    async def barrier(self) -> None:
        """Rolls back, and returns when the server has responded to everything before and is ready for a next query."""
        row = message("D", struct.pack("!hi", 1, 32) + os.urandom(16).hex().encode())[5:]
        await self.send(query("ROLLBACK") + query(f"SELECT '{row[6:].decode()}'"))
        async with asyncio.timeout(60):
            while ("D", row) not in self.received[-10:]:
                self._more.clear()
                await self._more.wait()
        await self.until("Z", self.received.index(("D", row)))

    async def close(self) -> None:
        self.writer.close()
        self._reading.cancel()
        await self._login.close()
        await asyncio.wait({self._reading})
