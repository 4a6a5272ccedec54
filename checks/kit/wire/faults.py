"""What a check does to the traffic: holds, latency, silence, refusal."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from checks.kit.wire.statements import Statement

if TYPE_CHECKING:
    from checks.kit.wire.recording import Book

PATIENCE = 10.0
"""Seconds after which something awaited on the wire counts as never coming; a bound for failures."""


class NeverArrived(Exception):
    """A statement that was waited for did not cross the wire."""


class Resumable(Protocol):
    def resume(self) -> None: ...


Matcher = Callable[[Statement], bool]


class Hold:
    """Statements that match wait here, at the point of execution, until they are released."""

    def __init__(self, what: str | Matcher, limit: int | None, book: Book) -> None:
        self.what = what if isinstance(what, str) else getattr(what, "__name__", "statement").strip("<>")
        self._matches = _matcher(what)
        self._limit = limit
        self._book = book
        self._queue: deque[tuple[Statement, Resumable]] = deque()
        self._count = 0
        self._open = True
        self._changed = asyncio.Event()
        self._since = len(book.statements)

    @property
    def waiting(self) -> list[Statement]:
        """The statements that are held now, in the order of their arrival."""
        return [statement for statement, _ in self._queue]

    def wants(self, statement: Statement) -> bool:
        full = self._limit is not None and self._count >= self._limit
        return self._open and not full and self._matches(statement)

    def take(self, statement: Statement, connection: Resumable) -> None:
        self._count += 1
        statement.held = True
        self._queue.append((statement, connection))
        self._changed.set()

    def forget(self, connection: Resumable) -> None:
        """The connection is gone; what it had waiting never runs."""
        self._queue = deque(pair for pair in self._queue if pair[1] is not connection)

    async def arrived(self, count: int = 1, timeout: float = PATIENCE / 3) -> int:
        """How many statements wait here, once `count` of them do or `timeout` seconds have passed."""
        try:
            async with asyncio.timeout(timeout):
                while len(self._queue) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return len(self._queue)

    async def reached(self, count: int = 1, timeout: float = PATIENCE) -> list[Statement]:
        """Returns when `count` statements wait here; raises NeverArrived, saying what crossed instead."""
        if await self.arrived(count, timeout) < count:
            crossed = [s.text for s in self._book.statements[self._since :] if not s.driver]
            instead = "; ".join(" ".join(text.split())[:70] for text in crossed[-5:]) or "nothing"
            raise NeverArrived(
                f"{len(self._queue)} of {count} statements matching {self.what!r} arrived within {timeout:.0f} s. "
                f"What crossed the wire meanwhile: {instead}."
            )
        return self.waiting

    async def arrived_or(self, request: asyncio.Future[Any]) -> bool:
        """Waits until a statement waits here (True) or the request under way has ended (False)."""
        async with asyncio.timeout(PATIENCE * 2):
            while not self._queue and not request.done():
                self._changed.clear()
                arrival = asyncio.create_task(self._changed.wait())
                await asyncio.wait({arrival, request}, return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
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


def _matcher(what: str | Matcher) -> Matcher:
    if callable(what):
        return what
    pattern = re.compile(what, re.IGNORECASE)
    return lambda statement: pattern.search(statement.text) is not None


class Faults:
    """The faults that are switched on, as every connection of the tap sees them."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.latency = 0.0
        self.silent = False
        self.refusing = ""

    def hold_for(self, statement: Statement) -> Hold | None:
        return next((hold for hold in self.holds if hold.wants(statement)), None)
