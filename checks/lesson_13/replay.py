"""What each statement of a migration reads while it keeps the shop from a table.

The statements are taken from the wire and run again, as the app's role, in a copy of the database in which nobody else
works. After each one the session's own counters tell how many rows it has read, and pg_locks tells which
locks its transaction holds. Nothing is timed.
"""

from __future__ import annotations

from dataclasses import dataclass

MANY = 5000
"""Rows: less than half of what most of the large tables have."""

READERS_WAIT = ("AccessExclusiveLock",)
WRITERS_WAIT = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", *READERS_WAIT)

COUNTERS = b"SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
LOCKS = b"""
    SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND c.relkind = 'r' ORDER BY 1
"""
TABLES = b"SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"

NO_AUTOVACUUM = b"""
    DO $$
    DECLARE
        name regclass;
    BEGIN
        FOR name IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
            EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', name);
        END LOOP;
    END $$
"""
"""Its lock would be in the way of a statement that does not wait."""

NOT_IN_A_TRANSACTION = ("25001", "2D000")
"""SQLSTATEs of what must be a transaction of its own: CREATE INDEX CONCURRENTLY, and code that commits."""


class NotReplayed(Exception):
    """A statement that succeeded did not succeed again."""


@dataclass(frozen=True)
class Step:
    """A statement: how many rows of each table it read, and the table locks of its transaction after it."""

    text: str
    rows: dict[str, int]
    locks: dict[str, set[str]]
    transaction: int = 0  # its number

    def stopped(self):
        """The tables that the shop can not write, or not even read, while this statement runs; with the lock's name."""
        return {
            table: mode
            for table, modes in self.locks.items()
            for mode in WRITERS_WAIT  # the strongest one comes last
            if mode in modes
        }

    def harm(self, reads="makes PostgreSQL read"):
        """A sentence, if it looks at many rows while its transaction keeps others from a table; else an empty text."""
        stopped, (table, rows) = self.stopped(), max(self.rows.items(), key=lambda item: item[1], default=("", 0))
        if not stopped or rows <= MANY:
            return ""
        what, mode = next(reversed(stopped.items()))
        nobody = "neither read nor write" if mode in READERS_WAIT else "not write"
        return (
            f"`{short(self.text)}` {reads} {rows:,} rows of {table}. Its transaction holds "
            f"{spoken(mode)} on {what} meanwhile: the shop can {nobody} {what} until it ends."
        )


def replay(login, statements):
    """The steps of what one process has sent, in a database that is as the process found it. It blocks."""
    from psycopg import pq

    connection = pq.PGconn.connect(login.conninfo())
    try:
        if connection.status != pq.ConnStatus.OK:
            raise NotReplayed(connection.error_message.decode(errors="replace"))
        connection.exec_(NO_AUTOVACUUM)
        return list(_Replay(connection, pq).steps(statements))
    finally:
        connection.finish()


class _Replay:
    def __init__(self, connection, pq):
        self._connection, self._pq = connection, pq
        self._known = {name for (name,) in self._rows(TABLES)} - {"alembic_version"}

    def steps(self, statements):
        transaction = 0
        for statement in statements:
            if statement.driver or statement.skipped or not statement.text.strip(" ;\n"):
                continue
            transaction += not self._in_transaction
            alone = not self._in_transaction and statement.data
            if alone:
                self._run(b"BEGIN")
            before = self._counters()
            error = self._send(statement)
            if alone and error in NOT_IN_A_TRANSACTION:
                self._run(b"ROLLBACK")
                error = self._send(statement)
                alone = False
            if error and not statement.error:
                raise NotReplayed(f"{error}: {short(statement.text)}")
            if statement.data and not error and self._in_transaction:
                yield Step(statement.text, self._since(before), self._locks(), transaction)
            if alone:
                self._run(b"COMMIT")

    def _send(self, statement):
        """The SQLSTATE of the error, if there is one."""
        text = statement.text.encode()
        if statement.parameters:
            values = statement.bound.read()
            result = self._connection.exec_params(text, values.values, values.types or None, values.formats)
        else:
            result = self._connection.exec_(text)
        field = result.error_field(self._pq.DiagnosticField.SQLSTATE)
        return field.decode() if field else ""

    @property
    def _in_transaction(self):
        return self._connection.transaction_status == self._pq.TransactionStatus.INTRANS

    def _run(self, sql):
        return self._connection.exec_(sql)

    def _rows(self, sql):
        result = self._run(sql)
        columns = range(result.nfields)
        return [tuple(result.get_value(row, n).decode() for n in columns) for row in range(result.ntuples)]

    def _counters(self):
        """Of all tables of the shop; none if the transaction has failed."""
        return {name: int(rows) for name, rows in self._rows(COUNTERS) if name in self._known}

    def _since(self, before):
        after = self._counters()
        return {name: rows - before.get(name, 0) for name, rows in after.items() if rows > before.get(name, 0)}

    def _locks(self):
        found = {}
        for name, mode in self._rows(LOCKS):
            if name in self._known:
                found.setdefault(name, set()).add(mode)
        return found


def spoken(mode):
    """`AccessExclusiveLock` as the manual writes it: ACCESS EXCLUSIVE."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in mode.removesuffix("Lock"))
    return words.strip().upper()


def short(text, width=70):
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[:width].rstrip()} …"
