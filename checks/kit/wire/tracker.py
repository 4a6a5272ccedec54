"""What a client and its server say to each other, as statements: bytes in, statements out, no sockets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING

from checks.kit.wire import protocol
from checks.kit.wire.portals import Portals
from checks.kit.wire.recording import Transaction
from checks.kit.wire.statements import ServerError, Statement

if TYPE_CHECKING:
    from checks.kit.wire.bound import Bound
    from checks.kit.wire.recording import TrafficLog

QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FLUSH, TERMINATE, CALL, COPY_DONE, COPY_FAIL = b"QPBDECSHXFcf"
DATA_ROW, COMPLETE, EMPTY, SUSPENDED, ERROR, READY, COPY_IN, COPY_DATA = b"DCIsEZGd"

WAITS = frozenset((QUERY, SYNC, FLUSH, CALL, COPY_DONE, COPY_FAIL))
"""Messages after which a client waits for the server: each is a round trip."""

STEP_DONE = frozenset(b"123Tn")
"""What the server says to Parse, Bind, Close and Describe; to a Describe either T (columns) or n (no rows)."""

StopPoint = tuple[int, int, Statement | None, bool]
"""`(start, end, statement, waits)` of a message before which a relay may stop; see `StatementTracker.read_client`."""


class Mark(Enum):
    """What a client has sent besides statements, in the queue of what the server owes.

    SYNC and CALL (a function call) are due a ReadyForQuery. COPY_END is the end of a client's data, due nothing.
    """

    SYNC = auto()
    CALL = auto()
    COPY_END = auto()


A_SYNC, A_CALL, A_COPY_END = Mark  # for a name of a module is found faster than that of an Enum


class StatementTracker:
    """Reads one connection's bytes in both directions and keeps its statements and transactions in a TrafficLog.

    Give it every byte that follows the start-up message, in order, cut into pieces anywhere. Bytes that are not the
    PostgreSQL protocol raise nothing; they are counted no further.

    `status` is the server's last word: "I" idle, "T" in a transaction, "E" in a failed one; "" before the first.
    `last` is the statement that the client sent last. `terminated` turns true when the client says Terminate.
    """

    def __init__(self, connection: int, log: TrafficLog, process: str = "") -> None:
        self.status = ""
        self.last: Statement | None = None
        self.terminated = False
        self._connection = connection
        self._process = process
        self._log = log
        self._client_splitter = protocol.Splitter(bytes((QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE)))
        self._server_splitter = protocol.Splitter(bytes((COMPLETE, ERROR, READY)))
        self._portals = Portals()
        # Everything to which the server has yet to respond. It responds strictly in the order of the requests, so the
        # next row, tag or error belongs to the head. A text stands for a step of that statement: Parse, Bind,
        # Describe or Close.
        self._begun = 0  # bytes of a message of the server whose end is still to come
        self._owed: deque[Statement | str | Mark] = deque()
        self._skipping = False  # the server ignores everything from the client up to the next Sync
        self._copying = False  # the server reads a client's data, and ignores every Sync before its end
        self._refused: str | None = None  # a statement whose Parse or Bind failed, before its Execute was seen
        self._done: Statement | None = None  # the last one executed by the extended protocol, before its Sync
        self._committed = False  # since the last ReadyForQuery
        self._transaction: Transaction | None = None
        # A pipelining client sends BEGIN, INSERT and COMMIT before the server has said a word. What the statements
        # mean is therefore foretold from their texts, and corrected by the server's status whenever nothing is owed.
        self._in_transaction = False
        self._changed_data = False  # by the transaction that is open

    @property
    def busy(self) -> bool:
        """Whether the server owes a response."""
        return bool(self._owed)

    # -- the client's side

    def read_client(self, data: bytes) -> Iterator[StopPoint]:
        """Reads a piece from the client and yields each message that executes a statement or that the client waits for.

        A message is `data[start:end]`, or what of it lies in this piece. `statement` is the one that it executes, or
        None; `waits` says whether the client now waits for the server. To stop at a message, leave the iterator and
        later give what follows `end` as a new piece; exhaust it otherwise, for it reads only as far as it is asked.
        """
        position, size = 0, len(data)
        next_message = self._client_splitter.next
        while position < size and (message := next_message(data, position)):
            kind, body, end = message
            start, position = position, end
            statement = self._note(kind, body)
            waits = kind in WAITS
            if waits:
                self._log.totals.round_trips += 1
            if waits or statement is not None:
                yield start, end, statement, waits

    def _note(self, kind: int, body: bytes) -> Statement | None:
        """Takes note of one message of the client; the statement, if it executes one."""
        if kind == EXECUTE:
            text, parameters, bound, again = self._portals.execute(body)
            return self._execute(text, parameters, bound, simple=False, continues=again)
        if kind == QUERY:
            return self._execute(protocol.text(protocol.cstring(body)[0]), 0, None, simple=True)
        if kind == BIND:
            self._step(self._portals.bind(body))
        elif kind == SYNC:
            self._skipping = False
            self._refused = None
            if not self._copying:
                self._owed.append(A_SYNC)
        elif kind == PARSE:
            self._step(self._portals.parse(body))
        elif kind == DESCRIBE:
            self._step(self._portals.describe(body))
        elif kind == CLOSE:
            if not self._skipping:  # else the server keeps it
                self._step(self._portals.close(body))
        elif kind == CALL:
            if not self._skipping:
                self._owed.append(A_CALL)
        elif kind in (COPY_DONE, COPY_FAIL):
            if self._copying:
                self._copying = False
            elif self._owed:  # sent before the server has said that it reads data
                self._owed.append(A_COPY_END)
        elif kind == TERMINATE:
            self.terminated = True
        return None

    def _step(self, text: str) -> None:
        if not self._skipping:
            self._owed.append(text)

    def _execute(
        self, text: str, parameters: int, bound: Bound | None, *, simple: bool, continues: bool = False
    ) -> Statement | None:
        statement = Statement(self._connection, text, time.perf_counter(), parameters, self._in_transaction, simple)
        statement.process = self._process
        statement.bound = bound
        verb = statement.verb
        statement.continues = continues or verb == "FETCH"
        if self._skipping:
            self._skipped(statement)
            return None
        if verb in ("BEGIN", "START"):
            self._in_transaction = True
            self._changed_data = False
        elif verb in ("COMMIT", "END", "ABORT") or (verb == "ROLLBACK" and " TO " not in text.upper()):
            # ROLLBACK TO goes back to a savepoint and stays in the transaction
            statement.commits = self._changed_data and verb in ("COMMIT", "END")
            self._in_transaction = self._changed_data = False
        elif statement.changes:
            statement.commits = not self._in_transaction
            self._changed_data = self._in_transaction
        self.last = statement
        self._owed.append(statement)
        self._log.add(statement)
        return statement

    def _skipped(self, statement: Statement) -> None:
        """Takes note of a statement that arrives while the server ignores what the client sends."""
        if statement.text == self._refused:  # recorded already, with the error of its Parse or Bind
            self._refused = None
            return
        _skip(statement)
        self.last = statement
        self._log.add(statement)

    # -- the server's side

    def read_server(self, data: bytes) -> bool:
        """Reads a piece from the server; true if it made the connection ready for a next query (ReadyForQuery)."""
        ready = False
        position, size = 0, len(data)
        start = -self._begun  # the first message may have begun in an earlier piece
        next_message = self._server_splitter.next
        owed = self._owed
        while position < size and (message := next_message(data, position)):
            kind, body, end = message
            if kind == DATA_ROW:  # first: by far the most frequent
                rows = 1
                if data[end : end + 1] == b"D":
                    more, end = protocol.skip_run(data, end, DATA_ROW)
                    rows += more
                if owed and isinstance(head := owed[0], Statement):
                    head.rows += rows
                    head.size += end - start
            elif kind == COPY_DATA:
                end = protocol.skip_run(data, end, COPY_DATA)[1]
            elif kind in STEP_DONE:
                if owed and isinstance(owed[0], str):  # a T may also announce the columns of a simple query
                    self._take()
            elif kind == COMPLETE:
                self._completed(protocol.text(protocol.cstring(body)[0]))
            elif kind == READY:
                self._ready(protocol.text(body[:1]))
                ready = True
            elif kind == ERROR:
                self._failed(protocol.error_fields(body))
            elif kind in (EMPTY, SUSPENDED):
                self._completed("")
            elif kind == COPY_IN:
                self._reads_copy()
            start = position = end
        self._begun = size - start
        return ready

    def _take(self) -> None:
        """Takes the head from the queue."""
        self._owed.popleft()
        while self._owed and self._owed[0] is A_COPY_END:  # of data that nobody wanted, which the server ignores
            self._owed.popleft()

    def _completed(self, tag: str) -> None:
        if not self._owed or not isinstance(statement := self._owed[0], Statement):
            return
        statement.tag = f"{statement.tag}; {tag}" if statement.tag else tag
        # COMMIT of a failed transaction rolls back, and only the tag says so: it reads ROLLBACK
        self._committed |= tag == "COMMIT"
        if not statement.simple:  # a simple query may hold several commands; it ends with ReadyForQuery
            self._finish(statement)
            self._done = statement
            self._take()

    def _reads_copy(self) -> None:
        """The server reads data from the client now: it ignores every Sync up to the end of the data."""
        if not self._owed or not isinstance(statement := self._owed.popleft(), Statement):
            return
        while self._owed and self._owed[0] is A_SYNC:
            self._owed.popleft()
        self._copying = not self._owed or self._owed[0] is not A_COPY_END
        if not self._copying:
            self._owed.popleft()
        self._owed.appendleft(statement)

    def _failed(self, fields: dict[str, str]) -> None:
        error = ServerError(fields.get("C", ""), fields.get("M", ""))
        self._copying = False
        if not self._owed:  # of nothing that the client has sent: such as a server that shuts down
            return
        head = self._owed[0]
        if isinstance(head, Statement):
            head.error = error
            self._finish(head)
            if not head.simple:
                self._skip_to_sync()
        elif isinstance(head, str):
            self._refuse(head, error)
            self._skip_to_sync()
        elif head is A_SYNC and self._done is not None:  # it was executed, but could not be committed
            self._done.error = error

    def _refuse(self, text: str, error: ServerError) -> None:
        """A Parse, Bind or Describe has failed. The error is that of the statement, whose Execute the server skips."""
        for owed in self._owed:
            if owed is A_SYNC:
                break
            if isinstance(owed, Statement) and owed.text == text:
                owed.error = error
                self._finish(owed)
                return
        if text:
            now = time.perf_counter()
            statement = Statement(self._connection, text, now, 0, self._in_transaction, False, now, error=error)
            statement.process = self._process
            self._refused = text
            self._log.add(statement)
            self._log.statement_done(statement)

    def _skip_to_sync(self) -> None:
        """After an error the server ignores every message up to the next Sync, also those that are still to come."""
        while self._owed and (skipped := self._owed[0]) is not A_SYNC:
            if isinstance(skipped, Statement) and skipped.error is None:
                _skip(skipped)
            self._owed.popleft()
        self._skipping = not self._owed

    def _ready(self, status: str) -> None:
        self._done = None
        while self._owed:
            head = self._owed[0]
            self._take()
            if isinstance(head, Statement):
                self._finish(head)
                if head.simple:
                    break
            elif head is A_SYNC or head is A_CALL:
                break
        if not self._owed:
            self._in_transaction = status != "I"
            if status == "I":
                self._portals.end_transaction()
        before, self.status = self.status, status
        if status in ("T", "E") and before not in ("T", "E"):
            self._transaction = Transaction(self._connection, time.perf_counter())
            self._log.add_transaction(self._transaction)
        elif status == "I" and self._transaction is not None:
            self._end_transaction("commit" if self._committed else "rollback")
        self._committed = False

    def _finish(self, statement: Statement) -> None:
        if statement.finished is None:
            statement.finished = time.perf_counter()
            self._log.statement_done(statement)

    # -- both

    def connection_lost(self) -> None:
        """An open transaction ends as "lost"; what the server still owed stays unfinished."""
        self._end_transaction("lost")

    def _end_transaction(self, outcome: str) -> None:
        if self._transaction is not None:
            self._transaction.ended = time.perf_counter()
            self._transaction.outcome = outcome
            self._transaction = None


def _skip(statement: Statement) -> None:
    statement.skipped = True
    statement.commits = False
    statement.finished = time.perf_counter()
