"""The proxy between an app and PostgreSQL: records what crosses and can disturb it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from checks.kit.lessons.words import plural
from checks.kit.service.process import APP
from checks.kit.wire.connection import Connection
from checks.kit.wire.faults import OUTAGES, SENTENCES, WIRE_TIMEOUT, Faults, Hold, Loss, Matcher
from checks.kit.wire.listener import Listener
from checks.kit.wire.recording import MAX_CLOSED, ClosedConnection, Recording, TrafficLog
from checks.kit.wire.statements import Statement

if TYPE_CHECKING:
    from checks.kit.postgres.address import Address


Refusal = Literal["nothing_listens", "reset", "starting_up", "too_many_connections"]


@dataclass(frozen=True, slots=True)
class Entrance:
    """A port of the proxy for one process. `used` is set when something has connected there."""

    process: str
    listener: Listener
    used: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        return self.listener.port


class NotIdle(Exception):
    """Connections were not idle, or not closed, in time; the message says how many and what they did last."""


class Wire:
    """The proxy as a check sees it: `host` and `port` to connect to, what crosses, and faults.

    All faults are context managers and end with their block; they may be nested and combined.
    """

    def __init__(self, address: Address, port: socket.socket | None = None) -> None:
        self.main = Entrance(APP, Listener(self._accepting(APP), port))
        self._entrances = [self.main]
        self.host = "127.0.0.1"
        self.port = self.main.port
        self.closed: list[ClosedConnection] = []
        """Connections that have ended, in that order, without requests to cancel."""
        self._address = address
        self._log = TrafficLog()
        self._faults = Faults()
        self._open: dict[int, Connection] = {}  # also those whose client has left before the server was done
        self._count = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = False  # nothing listens at any entrance

    # -- looking

    @property
    def connections(self) -> list[Connection]:
        """Live connections of clients, oldest first."""
        return [one for one in self._open.values() if not one.left]

    def watching(self) -> AbstractContextManager[Recording]:
        """`with wire.watching() as seen`: records what starts within the block."""
        return self._log.watching()

    def subscribe(
        self,
        *,
        on_statement: Callable[[Statement], None] | None = None,
        on_fault: Callable[[str], None] | None = None,
        on_connection: Callable[[int, str], None] | None = None,
    ) -> None:
        """From now on calls `on_statement` with each Statement that the server has responded to, and `on_fault` with a
        sentence for everything that was done to the traffic. `on_connection` gets a connection's number and "opened",
        or its `close_reason` when it has ended. All run in the proxy's event loop."""
        if on_statement is not None:
            self._log.on_statement.append(on_statement)
        if on_fault is not None:
            self._log.on_fault.append(on_fault)
        if on_connection is not None:
            self._log.on_connection.append(on_connection)

    async def wait_idle(self, timeout: float = WIRE_TIMEOUT / 2, *, strict: bool = True) -> None:
        """Returns when every live connection is idle outside a transaction.

        After `timeout` seconds raises NotIdle, or just returns if not `strict`: for looking at what an app does after
        its responses.
        """
        try:
            await self._until(lambda: all(one.idle for one in self.connections), timeout, self._not_idle)
        except NotIdle:
            if strict:
                raise

    async def all_closed(self, timeout: float = WIRE_TIMEOUT) -> None:
        """Returns when no client is connected; raises NotIdle after `timeout` seconds."""
        await self._until(lambda: not self.connections, timeout, self._still_open)

    def _not_idle(self) -> str:
        rest = [one for one in self.connections if not one.idle]
        words = {
            "T": "inside a transaction",
            "E": "inside a failed transaction",
            "I": "waiting for the server",
        }
        first = rest[0]
        last = " ".join(first.last.text.split())[:100] if first.last else "none"
        state = words.get(first.status, "starting")
        stay = "stays" if len(rest) == 1 else "stay"
        of = plural(len(self.connections), "connection")
        return f"{len(rest)} of {of} {stay} {state}; the last statement there: {last}"

    def _still_open(self) -> str:
        count = len(self.connections)
        return f"{plural(count, 'connection')} {'is' if count == 1 else 'are'} still open."

    async def _until(self, holds: Callable[[], bool], timeout: float, why: Callable[[], str]) -> None:
        # No polling: every event after which the answer may be another one calls `_changed`.
        try:
            async with asyncio.timeout(timeout):
                while not holds():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            if not holds():  # an event in the last moment may not have been looked at
                raise NotIdle(why()) from None

    def _changed(self) -> None:
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    # -- disturbing

    @asynccontextmanager
    async def hold(self, what: str | Matcher, limit: int | None = None) -> AsyncIterator[Hold]:
        """Stops statements that match at the point of execution; the rest of their connection waits after them.

        `what` is a regular expression (case does not matter) searched in the statement's text, or a function
        of the Statement. At most `limit` statements are stopped. Everything goes on when the block ends.
        """
        hold = Hold(what, limit, self._log)
        self._faults.holds.append(hold)
        try:
            yield hold
        finally:
            self._faults.holds.remove(hold)
            hold.release()

    @asynccontextmanager
    async def latency(self, seconds: float) -> AsyncIterator[None]:
        """Adds `seconds` to every round trip of every connection, also of those that are open already."""
        self._log.fault(f"{seconds * 1000:g} ms added to each round trip")
        before, self._faults.latency = self._faults.latency, seconds
        try:
            yield
        finally:
            self._faults.latency = before

    @asynccontextmanager
    async def black_hole(self, *, drop: bool = False) -> AsyncIterator[None]:
        """Nothing passes in either direction; new connections are accepted and get no response.

        At the end the traffic goes on where it stopped; with `drop` all connections are cut instead.
        """
        self._log.fault("the database has gone silent: nothing passes")
        self._faults.silent = True
        for connection in self._open.values():
            connection.silence_changed()
        try:
            yield
        finally:
            self._faults.silent = False
            self._log.fault("the database is back")
            for connection in list(self._open.values()):
                if drop:
                    connection.abort("cut")
                else:
                    connection.silence_changed()

    @asynccontextmanager
    async def refusing(self, how: Refusal = "starting_up") -> AsyncIterator[None]:
        """New connections are turned away, those that are open stay. `how` is "nothing_listens" (TCP refuses to
        connect), "reset" (TCP connects, then resets), "starting_up" (SQLSTATE 57P03) or "too_many_connections" (53300).
        """
        self._log.fault(SENTENCES[how])
        before, self._faults.refusing = self._faults.refusing, how
        closes = how == "nothing_listens" and not self._closed
        if closes:
            self._closed = True
            for entrance in self._entrances:
                entrance.listener.refuse()
        try:
            yield
        finally:
            self._faults.refusing = before
            if closes:
                self._closed = False
                for entrance in self._entrances:
                    await entrance.listener.listen()
            self._log.fault("the database accepts connections again")

    @asynccontextmanager
    async def outage(self, how: str) -> AsyncIterator[None]:
        """The database is away: connections are cut, and new ones turned away as by `refusing`. With "silent" they
        stay, and nothing passes, as in `black_hole`. `OUTAGES`, from checks.kit.wire, names all ways.
        """
        if how == "silent":
            async with self.black_hole():
                yield
            return
        if how not in SENTENCES:
            raise ValueError(f"There is no outage {how!r}. There are: {', '.join(OUTAGES)}.")
        async with self.refusing(cast(Refusal, how)):
            await self.cut()
            yield

    @asynccontextmanager
    async def lost_response(self, what: str | Matcher, limit: int | None = None) -> AsyncIterator[Loss]:
        """PostgreSQL executes statements that match, and their responses are lost: their connections are cut instead.

        `what` is as in `hold`: `async with wire.lost_response(committing) as lost`. A COMMIT has then taken effect, and
        the app cannot know. At most `limit` responses are lost; `lost.count` says how many were.
        """
        loss = Loss(what, limit)
        self._faults.losses.append(loss)
        try:
            yield loss
        finally:
            self._faults.losses.remove(loss)

    async def cut(self, which: Callable[[Connection], bool] | None = None) -> int:
        """Resets live connections, all or those for which `which` is true; returns how many."""
        doomed = [one for one in self.connections if which is None or which(one)]
        for connection in doomed:
            connection.abort("cut")
        self._log.fault(f"{plural(len(doomed), 'database connection')} cut")
        return len(doomed)

    # -- the listener's side

    @asynccontextmanager
    async def entrance(self, process: str, port: socket.socket | None = None) -> AsyncIterator[Entrance]:
        """Another port that leads to the same server: what connects there until the block ends is `process`.

        `port` is a listening socket to use for it.
        """
        entrance = Entrance(process, Listener(self._accepting(process), port))
        await entrance.listener.listen()
        if self._closed:
            entrance.listener.refuse()
        self._entrances.append(entrance)
        try:
            yield entrance
        finally:
            self._entrances.remove(entrance)
            entrance.listener.close()

    def _accepting(self, process: str) -> Callable[[], asyncio.Protocol]:
        return lambda: self._accept(process)

    def _accept(self, process: str) -> asyncio.Protocol:
        self._count += 1
        for entrance in self._entrances:
            if entrance.process == process:
                entrance.used.set()
        connection = Connection(
            self._count,
            self._address,
            self._log,
            self._faults,
            process=process,
            changed=self._changed,
            ended=self._ended,
            gone=self._gone,
        )
        self._open[connection.id] = connection
        self._log.connected()
        return connection.client_side()

    def _ended(self, connection: Connection) -> None:
        self._log.disconnected()
        if connection.parameters:  # neither a request to cancel nor a client that left before it said anything
            if len(self.closed) < MAX_CLOSED:
                self.closed.append(connection.record())
            self._log.connection_event(connection.id, connection.close_reason)
        self._changed()

    def _gone(self, connection: Connection) -> None:
        self._open.pop(connection.id, None)

    def close(self) -> None:
        """Ends every connection; the proxy's block does this by itself."""
        for connection in list(self._open.values()):
            connection.abort("cut")


@asynccontextmanager
async def open_proxy(address: Address, port: socket.socket | None = None) -> AsyncIterator[Wire]:
    """A proxy in front of the server at `address`, on a port of its own on 127.0.0.1.

    `port` is a listening socket to use instead, such as one of a sandbox's loopback. The proxy lives in the running
    event loop and ends, with all its connections, when the block ends.
    """
    wire = Wire(address, port)
    try:
        await wire.main.listener.listen()
        yield wire
    finally:
        wire.main.listener.close()  # first, or an app that connects again at once would still get through
        wire.close()
