"""What crossed the tap, and windows on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from checks.kit.wire.statements import Statement

MOST = 200_000
"""Statements that one tap remembers; later ones pass but are not recorded."""


ENDS_EMPTY = {"COMMIT": ("BEGIN", "START"), "ROLLBACK": ("BEGIN", "START", "SAVEPOINT"), "RELEASE": ("SAVEPOINT",)}
"""A statement with this verb, straight after one of those, closes a transaction or savepoint that holds nothing."""


@dataclass(slots=True, eq=False)
class Transaction:
    """An explicit transaction. `outcome` is `open`, `commit`, `rollback`, or `lost` (its connection ended)."""

    connection: int
    began: float
    ended: float | None = None
    outcome: str = "open"


@dataclass(slots=True)
class Totals:
    """Counters since the tap was opened. A round trip is a message after which a client waits."""

    round_trips: int = 0
    bytes_to_server: int = 0
    bytes_from_server: int = 0
    connections_opened: int = 0


class Book:
    """Everything one tap recorded."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.transactions: list[Transaction] = []
        self.totals = Totals()
        self.live = 0
        self._open: list[Recording] = []
        self.listeners: list[Callable[[object], None]] = []

    def add(self, statement: Statement) -> None:
        if len(self.statements) < MOST:
            self.statements.append(statement)

    def connected(self) -> None:
        self.totals.connections_opened += 1
        self.live += 1
        for recording in self._open:
            recording.peak_connections = max(recording.peak_connections, self.live)

    def disconnected(self) -> None:
        self.live -= 1

    def tell(self, event: object) -> None:
        for listener in self.listeners:
            listener(event)

    @contextmanager
    def watching(self) -> Iterator[Recording]:
        recording = Recording(self)
        self._open.append(recording)
        try:
            yield recording
        finally:
            self._open.remove(recording)
            recording.close()


class Recording:
    """A window on the tap: what started between its opening and its closing."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._from = len(book.statements)
        self._from_transaction = len(book.transactions)
        self._to: int | None = None
        self._to_transaction: int | None = None
        self._before = _copy(book.totals)
        self._after: Totals | None = None
        self.peak_connections = book.live
        """The most connections that were open at the same time."""

    def close(self) -> None:
        self._to = len(self._book.statements)
        self._to_transaction = len(self._book.transactions)
        self._after = _copy(self._book.totals)

    @property
    def statements(self) -> list[Statement]:
        """All, in the order in which they were sent, drivers' own included."""
        return self._book.statements[self._from : self._to]

    @property
    def data_statements(self) -> list[Statement]:
        """Those that read or change data on the author's behalf."""
        return [statement for statement in self.statements if statement.data]

    @property
    def story(self) -> list[Statement]:
        """For a reader: without what drivers send for themselves, and without transactions that hold nothing else."""
        kept: dict[int, list[Statement]] = {}
        for statement in self.statements:
            if not statement.driver:
                stack = kept.setdefault(statement.connection, [])
                if stack and stack[-1].verb in ENDS_EMPTY.get(statement.verb, ()):
                    stack.pop()
                else:
                    stack.append(statement)
        shown = {id(statement) for stack in kept.values() for statement in stack}
        return [statement for statement in self.statements if id(statement) in shown]

    @property
    def transactions(self) -> list[Transaction]:
        return self._book.transactions[self._from_transaction : self._to_transaction]

    @property
    def rows(self) -> int:
        """Rows that the server sent for the author's statements."""
        return sum(statement.rows for statement in self.data_statements)

    @property
    def round_trips(self) -> int:
        return self._totals.round_trips - self._before.round_trips

    @property
    def bytes_to_server(self) -> int:
        return self._totals.bytes_to_server - self._before.bytes_to_server

    @property
    def bytes_from_server(self) -> int:
        return self._totals.bytes_from_server - self._before.bytes_from_server

    @property
    def connections_opened(self) -> int:
        return self._totals.connections_opened - self._before.connections_opened

    @property
    def _totals(self) -> Totals:
        return self._after or self._book.totals


def _copy(totals: Totals) -> Totals:
    return Totals(totals.round_trips, totals.bytes_to_server, totals.bytes_from_server, totals.connections_opened)
