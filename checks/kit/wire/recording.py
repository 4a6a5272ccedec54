"""What crossed the proxy: the log of all traffic, and recordings, which are windows on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from checks.kit.wire.statements import Statement

MAX_STATEMENTS = 200_000
"""Statements that one proxy remembers, and as many transactions; later ones pass but are not recorded."""

MAX_TEXT = 64 << 20
"""Characters of the statements that one proxy remembers, each text counted once; later texts are not recorded."""

MAX_BOUND = 64 << 20
"""Bytes of the parameters that one proxy remembers; statements after that are recorded without theirs."""

MAX_CLOSED = 20_000
"""Connections that one proxy remembers after their end."""

CLOSES_EMPTY = {"COMMIT": ("BEGIN", "START"), "ROLLBACK": ("BEGIN", "START", "SAVEPOINT"), "RELEASE": ("SAVEPOINT",)}
"""By the verb of a statement: directly after one of these verbs, it closes a transaction or savepoint that is empty."""


@dataclass(slots=True, eq=False)
class Transaction:
    """An explicit transaction.

    `connection` is the number of its Connection. `began` and `ended` are seconds of time.perf_counter at which the
    server's status changed; `ended` is None while it is open. `outcome` is "open", "commit", "rollback", or "lost" if
    its connection ended first.
    """

    connection: int
    began: float
    ended: float | None = None
    outcome: str = "open"


@dataclass(frozen=True, slots=True)
class ClosedConnection:
    """A connection that has ended, with what a Connection says of itself at that time."""

    id: int
    parameters: dict[str, str]
    close_reason: str
    status: str
    process: str = ""


@dataclass(slots=True)
class Totals:
    """Counters since the proxy was opened. A round trip is a message after which a client waits for the server.

    Bytes are those of messages, start-up included, as they would be without TLS.
    """

    round_trips: int = 0
    bytes_to_server: int = 0
    bytes_from_server: int = 0
    connections_opened: int = 0


class TrafficLog:
    """Everything that one proxy recorded, for as long as it is open.

    `on_statement` is called with each Statement when the server has responded to it, `on_fault` with a sentence for
    each thing that was done to the traffic, `on_connection` with a connection's number and "opened" when a client
    logs in, or else with the reason of its end; all in the proxy's event loop, before the traffic goes on.
    """

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.transactions: list[Transaction] = []
        self.totals = Totals()
        self._texts: dict[str, str] = {}  # so that a text which is sent again and again is kept once
        self._characters = 0
        self._bound = 0
        self.live = 0  # connections that are open now
        self._open: list[Recording] = []  # those whose block has not ended
        self.on_statement: list[Callable[[Statement], None]] = []
        self.on_fault: list[Callable[[str], None]] = []
        self.on_connection: list[Callable[[int, str], None]] = []

    def add(self, statement: Statement) -> None:
        """Remembers a statement that a client has sent."""
        if len(self.statements) >= MAX_STATEMENTS:
            return
        known = self._texts.get(statement.text)
        if known is None:
            known = statement.text
            if self._characters + len(known) > MAX_TEXT:
                return
            self._characters += len(known)
            self._texts[known] = known
        statement.text = known
        if statement.bound is not None:
            self._bound += len(statement.bound.bind)
            if self._bound > MAX_BOUND:
                statement.bound = None
        self.statements.append(statement)

    def add_transaction(self, transaction: Transaction) -> None:
        """Remembers a transaction that has begun."""
        if len(self.transactions) < MAX_STATEMENTS:
            self.transactions.append(transaction)

    def connected(self) -> None:
        self.totals.connections_opened += 1
        self.live += 1
        for recording in self._open:
            recording.peak_connections = max(recording.peak_connections, self.live)

    def disconnected(self) -> None:
        self.live -= 1

    def connection_event(self, number: int, what: str) -> None:
        for listener in self.on_connection:
            listener(number, what)

    def statement_done(self, statement: Statement) -> None:
        for listener in self.on_statement:
            listener(statement)

    def fault(self, sentence: str) -> None:
        for listener in self.on_fault:
            listener(sentence)

    @contextmanager
    def watching(self) -> Iterator[Recording]:
        """Records what starts within the block."""
        recording = Recording(self)
        self._open.append(recording)
        try:
            yield recording
        finally:
            self._open.remove(recording)
            recording.close()


class Recording:
    """A window on the traffic: what started between its opening and its closing.

    It may be read while it is open, and grows. A statement that started inside the window changes even after it is
    closed, until the server has responded to it.
    """

    def __init__(self, log: TrafficLog) -> None:
        # A window is two positions in the log, so opening one costs nothing and any number may be open at a time.
        self._log = log
        self._from = len(log.statements)
        self._from_transaction = len(log.transactions)
        self._to: int | None = None
        self._to_transaction: int | None = None
        self._before = _copy(log.totals)
        self._after: Totals | None = None
        self.peak_connections = log.live
        """The most connections that were open at the same time."""

    def close(self) -> None:
        """Ends the window; what starts from now on is not in it."""
        self._to = len(self._log.statements)
        self._to_transaction = len(self._log.transactions)
        self._after = _copy(self._log.totals)

    @property
    def statements(self) -> list[Statement]:
        """All, in the order in which they were sent, drivers' own included."""
        return self._log.statements[self._from : self._to]

    @property
    def data_statements(self) -> list[Statement]:
        """Those that read or change data on the author's behalf."""
        return [statement for statement in self.statements if statement.data]

    @property
    def for_display(self) -> list[Statement]:
        """For a reader: without what drivers send for themselves, and without transactions that hold nothing else."""
        kept: dict[int, list[Statement]] = {}  # by connection, for only there do neighbors belong together
        for statement in self.statements:
            if not statement.driver:
                stack = kept.setdefault(statement.connection, [])
                # a stack, so that an empty savepoint goes first and then the transaction that held nothing else
                if stack and stack[-1].verb in CLOSES_EMPTY.get(statement.verb, ()):
                    stack.pop()
                else:
                    stack.append(statement)
        shown = {id(statement) for stack in kept.values() for statement in stack}
        return [statement for statement in self.statements if id(statement) in shown]

    @property
    def transactions(self) -> list[Transaction]:
        """Explicit transactions that began in the window, also those that are still open."""
        return self._log.transactions[self._from_transaction : self._to_transaction]

    @property
    def rows(self) -> int:
        """Rows that the server sent for the author's statements."""
        return sum(statement.rows for statement in self.data_statements)

    @property
    def round_trips(self) -> int:
        """How often a client waited for the server, drivers' own statements included."""
        return self._totals.round_trips - self._before.round_trips

    @property
    def bytes_to_server(self) -> int:
        """Bytes that clients sent, of any statement."""
        return self._totals.bytes_to_server - self._before.bytes_to_server

    @property
    def bytes_from_server(self) -> int:
        """Bytes that the server sent, of any statement."""
        return self._totals.bytes_from_server - self._before.bytes_from_server

    @property
    def connections_opened(self) -> int:
        """Connections that clients opened in the window, whether or not they got through."""
        return self._totals.connections_opened - self._before.connections_opened

    @property
    def _totals(self) -> Totals:
        return self._after or self._log.totals


def _copy(totals: Totals) -> Totals:
    return Totals(totals.round_trips, totals.bytes_to_server, totals.bytes_from_server, totals.connections_opened)
