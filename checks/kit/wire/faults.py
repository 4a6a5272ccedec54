"""What a check does to the traffic: holds, latency, silence, refusal. Read by every connection, set by the Wire."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from checks.kit.wire.statements import Statement

if TYPE_CHECKING:
    from checks.kit.wire.recording import TrafficLog

WIRE_TIMEOUT = 10.0
"""Seconds after which something awaited on the wire counts as never coming; a bound for failures, not a measurement."""


REFUSALS = {
    "starting_up": ("57P03", "the database system is starting up"),
    "too_many_connections": ("53300", "sorry, too many clients already"),
}
"""SQLSTATE and message with which PostgreSQL turns clients away."""

OUTAGES = ("nothing_listens", "reset", "starting_up", "too_many_connections", "silent")
"""The ways in which a database can be away; `wire.outage` makes each of them."""

SENTENCES = {
    "nothing_listens": "nothing listens at the database's port: connections are refused",
    "reset": "the database resets new connections",
    "starting_up": "the database is starting up and refuses connections (57P03)",
    "too_many_connections": "the database has too many connections and refuses new ones (53300)",
}


class NeverArrived(Exception):
    """A statement that was waited for did not cross the wire."""


class Resumable(Protocol):
    """A connection, as far as a hold knows it."""

    def resume(self) -> None: ...


Matcher = Callable[[Statement], bool]


class Hold:
    """Statements that match wait here until they are released; made by `Wire.hold`.

    What is held back is the message that executes a statement. Its text may have been parsed and bound before, so
    errors of these two steps arrive as always, and a prepared statement is held at each execution.
    """

    def __init__(self, what: str | Matcher, limit: int | None, log: TrafficLog) -> None:
        # the name of a function would tell a learner nothing
        self._described = f" matching {what!r}" if isinstance(what, str) else ""
        self._matches = _matcher(what)
        self._limit = limit
        self._log = log
        self._queue: deque[tuple[Statement, Resumable]] = deque()
        self._count = 0  # statements stopped so far, released ones included
        self._open = True
        self._changed = asyncio.Event()
        self._since = len(log.statements)  # for the message of NeverArrived

    @property
    def waiting(self) -> list[Statement]:
        """The statements that are held now, in the order of their arrival."""
        return [statement for statement, _ in self._queue]

    def wants(self, statement: Statement) -> bool:
        """Whether to stop this statement, which is about to be executed."""
        full = self._limit is not None and self._count >= self._limit
        return self._open and not full and self._matches(statement)

    def take(self, statement: Statement, connection: Resumable) -> None:
        """Takes over a statement that `connection` has stopped, and resumes the connection when it is released."""
        self._count += 1
        statement.held = True
        self._queue.append((statement, connection))
        self._changed.set()

    def forget(self, connection: Resumable) -> None:
        """The connection is gone; what it had waiting never runs."""
        self._queue = deque(pair for pair in self._queue if pair[1] is not connection)

    async def count_within(self, count: int = 1, timeout: float = WIRE_TIMEOUT / 3) -> int:
        """How many statements wait here, once `count` of them do or `timeout` seconds have passed."""
        try:
            async with asyncio.timeout(timeout):
                while len(self._queue) < count:
                    # cleared before waiting, not after: nothing can arrive in between without an await
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return len(self._queue)

    async def wait_for(self, count: int = 1, timeout: float = WIRE_TIMEOUT) -> list[Statement]:
        """Returns when `count` statements wait here; raises NeverArrived, saying what crossed instead."""
        if await self.count_within(count, timeout) < count:
            crossed = [s.text for s in self._log.statements[self._since :] if not s.driver]
            instead = "; ".join(" ".join(text.split())[:70] for text in crossed[-5:]) or "nothing"
            raise NeverArrived(
                f"{len(self._queue)} of {count} expected statements{self._described} arrived within {timeout:.0f} s. "
                f"What crossed the wire meanwhile: {instead}."
            )
        return self.waiting

    async def wait_for_or(self, request: asyncio.Future[Any], timeout: float = WIRE_TIMEOUT * 2) -> bool:
        """Waits until a statement waits here (True) or the request under way has ended (False)."""
        try:
            async with asyncio.timeout(timeout):
                while not self._queue and not request.done():
                    self._changed.clear()
                    arrival = asyncio.create_task(self._changed.wait())
                    await asyncio.wait({arrival, request}, return_when=asyncio.FIRST_COMPLETED)
                    arrival.cancel()
        except TimeoutError:
            raise NeverArrived(
                f"Within {timeout:.0f} s the request did not end, and no expected statement{self._described} arrived."
            ) from None
        return bool(self._queue)

    def release_one(self) -> None:
        """The statement that has waited longest goes on."""
        if self._queue:
            self._queue.popleft()[1].resume()

    def release(self) -> None:
        """All go on, and nothing is held any more."""
        self._open = False
        while self._queue:
            self.release_one()


class Loss:
    """Responses that are lost, with their connections; made by `Wire.lost_response`."""

    def __init__(self, what: str | Matcher, limit: int | None) -> None:
        self.statements: list[Statement] = []
        """The statements that PostgreSQL executed and whose response was lost, in this order."""
        self._matches = _matcher(what)
        self._limit = limit
        self._taken = 0

    @property
    def count(self) -> int:
        """How many responses were lost."""
        return len(self.statements)

    def wants(self, statement: Statement) -> bool:
        """Whether to lose the response of this statement, which is about to be executed."""
        wanted = (self._limit is None or self._taken < self._limit) and self._matches(statement)
        self._taken += wanted
        return wanted


def _matcher(what: str | Matcher) -> Matcher:
    if callable(what):
        return what
    pattern = re.compile(what, re.IGNORECASE)
    return lambda statement: pattern.search(statement.text) is not None


class Faults:
    """The faults that are switched on, as every connection of the proxy sees them.

    `latency` is seconds added to each round trip. `silent`: nothing is read from either side. `refusing` is how new
    connections are turned away, a key of SENTENCES; "" lets them in.
    """

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.losses: list[Loss] = []
        self.latency = 0.0
        self.silent = False
        self.refusing = ""

    def hold_for(self, statement: Statement) -> Hold | None:
        """The hold that stops this statement: the oldest one that matches."""
        return next((hold for hold in self.holds if hold.wants(statement)), None)

    def loss_for(self, statement: Statement) -> Loss | None:
        """The loss that takes the response of this statement: the oldest one that matches."""
        return next((loss for loss in self.losses if loss.wants(statement)), None)
