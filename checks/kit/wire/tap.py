"""The tap: a proxy between an app and PostgreSQL that records what crosses and can disturb it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from checks.kit.wire.connection import ClientSide, Connection
from checks.kit.wire.events import Event, Fault
from checks.kit.wire.faults import PATIENCE, Faults, Hold, Matcher
from checks.kit.wire.recording import Book, Recording

if TYPE_CHECKING:
    from checks.kit.postgres.address import Address


class NotSettled(Exception):
    """Connections did not come to rest in time."""


class Wire:
    """What a check holds in its hand. All faults are context managers and end with their block."""

    def __init__(self, address: Address) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.closed: list[Connection] = []
        """Connections that have ended, in that order."""
        self._address = address
        self._book = Book()
        self._faults = Faults()
        self._live: dict[int, Connection] = {}
        self._count = 0
        self._waiters: list[asyncio.Future[None]] = []

    # -- looking

    @property
    def connections(self) -> list[Connection]:
        """Live connections of clients, oldest first."""
        return list(self._live.values())

    def watching(self) -> AbstractContextManager[Recording]:
        """`with wire.watching() as seen`: records what starts within the block."""
        return self._book.watching()

    def subscribe(self, listener: Callable[[Any], None]) -> None:
        """Calls `listener` with every Event from now on, in the tap's loop."""
        self._book.listeners.append(listener)

    async def settled(self, timeout: float = PATIENCE / 2) -> None:
        """Returns when every live connection is idle outside a transaction; raises NotSettled."""
        await self._until(lambda: all(one.settled for one in self.connections), timeout, self._unsettled)

    async def calm(self, timeout: float = PATIENCE / 2) -> None:
        """As `settled`, but goes on after `timeout`: for looking at what an app does after its answers."""
        with contextlib.suppress(NotSettled):
            await self.settled(timeout)

    async def all_closed(self, timeout: float = PATIENCE) -> None:
        """Returns when no client is connected; raises NotSettled."""
        await self._until(lambda: not self._live, timeout, self._still_open)

    def _unsettled(self) -> str:
        rest = [one for one in self.connections if not one.settled]
        words = {
            "T": "inside a transaction",
            "E": "inside a failed transaction",
            "I": "waiting for an answer",
        }
        first = rest[0]
        last = " ".join(first.last.text.split())[:100] if first.last else "none"
        state = words.get(first.status, "starting")
        return f"{len(rest)} of {len(self._live)} connections stay {state}; the last statement there: {last}"

    def _still_open(self) -> str:
        return f"{len(self._live)} connections are still open."

    async def _until(self, holds: Callable[[], bool], timeout: float, why: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not holds():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise NotSettled(why()) from None

    def _changed(self) -> None:
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    # -- disturbing

    @asynccontextmanager
    async def hold(self, what: str | Matcher, limit: int | None = None) -> AsyncIterator[Hold]:
        """Stops statements that match at the point of execution; the rest of their connection waits behind them.

        `what` is a regular expression (case does not matter) searched in the statement's text, or a function
        of the Statement. At most `limit` statements are stopped. Everything goes on when the block ends.
        """
        hold = Hold(what, limit, self._book)
        self._faults.holds.append(hold)
        try:
            yield hold
        finally:
            self._faults.holds.remove(hold)
            hold.release()

    @asynccontextmanager
    async def latency(self, seconds: float) -> AsyncIterator[None]:
        """Adds `seconds` to every round trip of every connection."""
        self._tell(f"{seconds * 1000:g} ms added to each round trip")
        before, self._faults.latency = self._faults.latency, seconds
        try:
            yield
        finally:
            self._faults.latency = before

    @asynccontextmanager
    async def black_hole(self, *, drop: bool = False) -> AsyncIterator[None]:
        """Nothing passes in either direction; new connections are accepted and hear nothing.

        At the end the traffic goes on where it stopped; with `drop` all connections are cut instead.
        """
        self._tell("the database has gone silent: nothing passes")
        self._faults.silent = True
        for connection in self.connections:
            connection.silence(True)
        try:
            yield
        finally:
            self._faults.silent = False
            self._tell("the database is back")
            for connection in self.connections:
                if drop:
                    connection.abort("cut")
                else:
                    connection.silence(False)

    @asynccontextmanager
    async def refusing(self, how: Literal["starting_up", "reset"] = "starting_up") -> AsyncIterator[None]:
        """New connections get the error of a server that is starting up (SQLSTATE 57P03), or a reset."""
        self._tell("the database refuses new connections")
        before, self._faults.refusing = self._faults.refusing, how
        try:
            yield
        finally:
            self._faults.refusing = before
            self._tell("the database accepts connections again")

    async def cut(self, which: Callable[[Connection], bool] | None = None) -> int:
        """Resets live connections, all or those for which `which` is true; returns how many."""
        doomed = [one for one in self.connections if which is None or which(one)]
        for connection in doomed:
            connection.abort("cut")
        self._tell(f"{len(doomed)} database connections cut")
        return len(doomed)

    def _tell(self, sentence: str) -> None:
        event: Event = Fault(sentence)
        self._book.tell(event)

    # -- the listener's side

    def _accept(self) -> asyncio.Protocol:
        self._count += 1
        connection = Connection(self._count, self._address, self._book, self._faults, self._changed)
        self._live[connection.id] = connection
        self._book.connected()
        return ClientSide(connection, self._lost)

    def _lost(self, connection: Connection) -> None:
        if self._live.pop(connection.id, None) is not None:
            self._book.disconnected()
            if connection.parameters:
                self.closed.append(connection)
        self._changed()

    def close(self) -> None:
        """Ends every connection; the tap's block does this by itself."""
        for connection in self.connections:
            connection.abort("cut")


@asynccontextmanager
async def open_tap(address: Address, port: socket.socket | None = None) -> AsyncIterator[Wire]:
    """A tap in front of the server at `address`, on a port of its own on 127.0.0.1.

    `port` is a listening socket to use instead, such as one of a sandbox's loopback. The tap lives in the running
    event loop and ends, with all its connections, when the block ends.
    """
    wire = Wire(address)
    loop = asyncio.get_running_loop()
    if port is None:
        listener = await loop.create_server(wire._accept, wire.host, 0, backlog=512)
    else:
        listener = await loop.create_server(wire._accept, sock=port, backlog=512)
    wire.port = listener.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listener.close()
        wire.close()
