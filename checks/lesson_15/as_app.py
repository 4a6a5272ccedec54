"""The database as the app's role finds it, without the app: in no shop, or in that of a request of the app."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Statement


NO_SETTINGS = {"user", "database", "replication", "options", "application_name", "client_encoding"}
"""Of a start-up message: what `options` cannot say, or what the check says by itself."""

TIME_LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

ESCAPES = str.maketrans({" ": "\\ ", "\\": "\\\\"})


class NotEntered(Exception):
    """The database did not take a statement of the app's a second time, or the kit could not connect."""


class AsApp:
    """Makes connections that log in as the app does, straight to the database of the check."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed

    @contextmanager
    def connected(
        self, statements: Sequence[Statement] = (), settings: Mapping[str, str] | None = None
    ) -> Iterator[Probe]:
        """A connection that has sent what the app sent; one in no shop if that is nothing.

        `settings` are those with which the app's connection began: its `search_path`, perhaps. Its time limits are not
        taken over.
        """
        from psycopg import pq

        connection = pq.PGconn.connect(self._conninfo(settings or {}))
        try:
            if connection.status != pq.ConnStatus.OK:
                raise NotEntered(connection.error_message.decode(errors="replace"))
            probe = Probe(connection)
            for statement in statements:
                probe.repeat(statement)
            yield probe
        finally:
            connection.finish()

    def _conninfo(self, settings: Mapping[str, str]) -> bytes:
        from psycopg.conninfo import make_conninfo

        database = self._testbed.database
        app, address = database.app, self._testbed.login(database).address
        assert app is not None, "lesson.toml says app_role = true"
        return make_conninfo(
            host=address.host,
            port=str(address.port),
            dbname=database.name,
            user=app.role,
            password=app.password,
            sslmode="require" if address.tls else "disable",
            application_name="workbook",
            options=_options(settings),
        ).encode()


class Probe:
    """Runs statements in savepoints, so that one that is refused does no harm to the next one."""

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection

    def repeat(self, statement: Statement) -> None:
        """Sends a statement as it crossed the wire. Raises NotEntered if it succeeded there and does not here."""
        text = statement.text.encode()
        if statement.parameters:
            values = statement.bound.read() if statement.bound else None
            if values is None:
                raise NotEntered(f"The parameters were not kept: {statement.text}")
            result = self._connection.exec_params(text, values.values, values.types or None, values.formats)
        else:
            result = self._connection.exec_(text)
        if sqlstate(result) and not statement.error:
            raise NotEntered(f"{sqlstate(result)}: {statement.text}")

    def run(self, sql: str) -> tuple[str, int, list[str]]:
        """The SQLSTATE of its error, if any; how many rows it changed or returned; the first column of those."""
        inside = self._in_transaction
        self._connection.exec_(b"SAVEPOINT probe" if inside else b"BEGIN")
        result = self._connection.exec_(sql.encode())
        found = [(result.get_value(n, 0) or b"").decode() for n in range(result.ntuples)]
        answer = sqlstate(result), result.command_tuples or 0, found
        self._connection.exec_(b"ROLLBACK TO probe" if inside else b"ROLLBACK")
        return answer

    @property
    def _in_transaction(self) -> bool:
        from psycopg import pq

        return self._connection.transaction_status == pq.TransactionStatus.INTRANS


def _options(settings: Mapping[str, str]) -> str:
    """The settings of a start-up message as libpq takes them, and no time limits: a busy machine needs more time."""
    kept = {name: value for name, value in settings.items() if name not in NO_SETTINGS}
    kept |= dict.fromkeys(TIME_LIMITS, "0")
    each = (f"-c {name}={value.translate(ESCAPES)}" for name, value in kept.items())
    return " ".join([settings.get("options", ""), *each]).strip()


def sqlstate(result: PGresult) -> str:
    """Of an error; empty if there is none."""
    from psycopg import pq

    field = result.error_field(pq.DiagnosticField.SQLSTATE)
    return field.decode() if field else ""
