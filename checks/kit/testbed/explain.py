"""Has PostgreSQL explain what an app sent: the statement and its parameters as they crossed the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.kit.testbed.plan import Node, Plan, counted, draw, read, statement_lines
from checks.kit.wire.bound import Values
from checks.kit.wire.protocol import MAX_KEPT

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

    from checks.kit.postgres import Database
    from checks.kit.postgres.address import Address
    from checks.kit.wire import Recording, Statement, Wire

EXPLAIN = b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON) "

VERBS = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE", "DECLARE"))
"""What EXPLAIN takes."""

MAX_STATEMENTS = 100
"""Statements of one recording that are explained."""

MAX_PARAMETERS = 1600
"""As many columns as a query may have: values are turned into text by one."""

LOCK_TIMEOUT, TIMEOUT = "10s", "20s"
"""Bounds for a statement that the app still holds locks against, and for one that takes too long."""

STEADY = {
    "lock_timeout": LOCK_TIMEOUT,
    "statement_timeout": TIMEOUT,
    # how many workers there are depends on what else runs on the server
    "max_parallel_workers_per_gather": "0",
    # a scan would begin where another one of the same table has got to
    "synchronize_seqscans": "off",
    "jit": "off",
}
"""Settings under which the same statement touches the same blocks each time."""

NOT_SETTINGS = frozenset(("user", "database", "replication", "options", "client_encoding", "application_name"))
"""Parameters of a start-up message that are something else, or that do not matter here."""

SIZES = """
    SELECT name, coalesce(nullif((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(relation)), 0)::bigint,
                          pg_relation_size(relation)) / current_setting('block_size')::bigint
      FROM (SELECT name, to_regclass(quote_ident(name)) AS relation FROM unnest($1::text[]) AS name) AS named
     WHERE relation IS NOT NULL
"""


Settings = tuple[tuple[str, str], ...]
"""Names and values."""


class NotExplained(Exception):
    """PostgreSQL, or the kit, cannot explain a statement; the message says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the app's database as the app's role, not through the proxy. `options` are settings of libpq's."""

    database: Database
    address: Address

    def conninfo(self, options: str = "") -> bytes:
        values = {
            "host": self.address.host,
            "port": str(self.address.port),
            "dbname": self.database.name,
            "user": self.database.role,
            "password": self.database.password,
            "sslmode": "require" if self.address.tls else "disable",
            "application_name": "workbook explain",
            "client_encoding": "UTF8",
            "options": options,
        }
        return " ".join(f"{name}='{_quoted(value)}'" for name, value in values.items() if value).encode()


class Explain:
    """`plan = await explain(statement)`: how PostgreSQL runs a statement that the app sent, and the blocks it touches.

    The statement comes from `seen.data_statements`. It is run once more, with the parameters that crossed the wire, by
    a connection of the kit's that logs in as the app's role with the settings of the app's start-up message, and then
    rolled back. It meets the rows that are stored now, and it runs twice: the second run counts. Without parallel
    workers, for their number depends on what else runs.

    With `generic=True` the plan is made without looking at the values, as PostgreSQL may do from the sixth execution
    of a prepared statement on. Raises NotExplained. A verdict shows the plans of the last call.
    """

    def __init__(self, login: Login, wire: Wire | None = None) -> None:
        self._login = login
        self._wire = wire
        self._shown: list[Plan] = []

    async def __call__(self, statement: Statement, *, generic: bool = False) -> Plan:
        return (await self._explain([statement], generic))[0]

    async def all(self, seen: Recording, *, generic: bool = False) -> list[Plan]:
        """The plans of the author's statements in a recording that read or change rows; NotExplained if over a hundred.

        Statements that failed are left out, and so is what fetches more rows through a cursor.
        """
        asked = [one for one in seen.data_statements if one.verb in VERBS and not one.error and not one.continues]
        if len(asked) > MAX_STATEMENTS:
            raise NotExplained(f"The app sent {len(asked):,} statements. The kit explains {MAX_STATEMENTS} at most.")
        return await self._explain(asked, generic)

    async def sql(self, sql: str, *values: object, generic: bool = False) -> Plan:
        """The plan of a statement of your own; `$1` is the first of the values, which are passed as text."""
        texts = tuple(None if value is None else _text(value).encode() for value in values)
        asked = Asked(sql, Values((0,) * len(texts), (0,) * len(texts), texts))
        self._shown = await asyncio.to_thread(_explain, self._login, [asked], generic)
        return self._shown[0]

    async def blocks(self, table: str) -> int:
        """The size of a table in blocks of 8 kB, partitions included, indexes and TOAST not."""
        sizes = await asyncio.to_thread(_sizes, self._login, [table])
        if table not in sizes:
            raise NotExplained(f"There is no table {table}.")
        return sizes[table]

    async def _explain(self, statements: Sequence[Statement], generic: bool) -> list[Plan]:
        asked = [_asked(statement, self._parameters(statement.connection)) for statement in statements]
        self._shown = await asyncio.to_thread(_explain, self._login, asked, generic)
        return self._shown

    def _parameters(self, connection: int) -> dict[str, str]:
        """Those of the start-up message of a connection."""
        if self._wire is None:
            return {}
        live = {one.id: one.parameters for one in self._wire.connections}
        return live.get(connection) or {one.id: one.parameters for one in self._wire.closed}.get(connection, {})

    def statements(self) -> list[str]:
        """For a verdict: what was explained last; of several, the one that touched the most blocks."""
        return statement_lines(self._heaviest) if self._shown else []

    def plans(self) -> list[str]:
        """For a verdict: its plan, and what the others touched."""
        if not self._shown:
            return []
        others = len(self._shown) - 1
        rest = sum(plan.buffers for plan in self._shown) - self._heaviest.buffers
        also = f"{counted(others, 'other statement')} touched {counted(rest, 'block')}."
        return [*draw(self._heaviest), *([also] if others else [])]

    @property
    def _heaviest(self) -> Plan:
        return max(self._shown, key=lambda plan: plan.buffers)


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement to explain. `options` and `settings` are those with which its connection logged in."""

    text: str
    values: Values
    options: str = ""
    settings: Settings = ()


def _asked(statement: Statement, parameters: dict[str, str]) -> Asked:
    if len(statement.text.encode()) >= MAX_KEPT - 64:
        raise NotExplained(f"The kit explains no statement of more than {MAX_KEPT // 1024} kB: {_short(statement)}")
    values = Values((), (), ())
    if statement.parameters:
        found = statement.bound.read() if statement.bound else None
        if found is None:
            raise NotExplained(
                f"Its parameters were too long to be kept, so it cannot be explained: {_short(statement)}"
            )
        values = found
    settings = tuple((name, value) for name, value in parameters.items() if name not in NOT_SETTINGS)
    return Asked(statement.text, values, parameters.get("options", ""), settings)


def _explain(login: Login, all_asked: Sequence[Asked], generic: bool) -> list[Plan]:
    """Plans in the order of the statements. It waits for the server, so it has a thread of its own."""
    found: dict[Asked, tuple[Node, tuple[str, ...]]] = {}
    with ExitStack() as stack:
        connections: dict[tuple[str, Settings], PGconn] = {}
        for number, asked in enumerate(dict.fromkeys(all_asked)):  # the same one is explained once
            key = asked.options, asked.settings
            if key not in connections:
                connections[key] = stack.enter_context(_connected(login, *key))
            try:
                found[asked] = _twice(connections[key], asked, generic, f"explained_{number}")
            except NotExplained as error:
                raise NotExplained(f"{error} The statement: {asked.text[:200]}") from None
    relations = {node.relation for root, _ in found.values() for _, node in root.walk() if node.relation}
    sizes = _sizes(login, sorted(relations))
    plans = []
    for asked in all_asked:
        root, literals = found[asked]
        tables = {node.relation: sizes[node.relation] for _, node in root.walk() if node.relation in sizes}
        plans.append(Plan(asked.text, literals, generic, root, tables))
    return plans


def _twice(connection: PGconn, asked: Asked, generic: bool, name: str) -> tuple[Node, tuple[str, ...]]:
    """The tree, and the values as SQL. The first run fills the caches of the connection, which are read like tables.

    `name` is that of a prepared statement, another one each time.
    """
    values = asked.values
    if len(values.values) > MAX_PARAMETERS:
        raise NotExplained(f"It has {len(values.values):,} parameters, and {MAX_PARAMETERS:,} can be shown.")
    _check(connection, connection.prepare(name.encode(), asked.text.encode(), values.types))
    described = connection.describe_prepared(name.encode())
    types = [described.param_type(number) for number in range(described.nparams)]
    literals = _literals(connection, Values(tuple(types), values.formats, values.values))
    explained = None
    for _ in range(2):
        _run(connection, b"BEGIN")
        if generic:
            _run(connection, b"SET LOCAL plan_cache_mode = force_generic_plan")
            # EXECUTE has its parameters as expressions, and they cannot be parameters themselves
            call = f"EXECUTE {name}({', '.join(literals)})" if literals else f"EXECUTE {name}"
            explained = _check(connection, connection.exec_params(EXPLAIN + call.encode(), None))
        else:
            explained = _check(
                connection,
                connection.exec_params(EXPLAIN + asked.text.encode(), values.values, types, values.formats),
            )
        _run(connection, b"ROLLBACK")
    raw = explained.get_value(0, 0) if explained else None
    trees = [one for one in json.loads(raw or b"[]") if "Plan" in one]
    if not trees:  # such as a rule that says DO INSTEAD NOTHING
        raise NotExplained("PostgreSQL has nothing to do for it.")
    return read(trees), literals


def _literals(connection: PGconn, values: Values) -> tuple[str, ...]:
    """The values as SQL: `'red'`, `NULL`. The server turns them into text, for it knows all types."""
    if not values.values:
        return ()
    columns = ", ".join(f"quote_nullable(${number}::text)" for number in range(1, len(values.values) + 1))
    result = _check(
        connection,
        connection.exec_params(f"SELECT {columns}".encode(), values.values, values.types, values.formats),
    )
    return tuple((result.get_value(0, at) or b"NULL").decode() for at in range(len(values.values)))


def _sizes(login: Login, names: Sequence[str]) -> dict[str, int]:
    """Blocks of the tables with these names, of those that there are."""
    with _connected(login) as connection:
        quoted = ",".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names)
        result = _run(connection, SIZES.encode(), [f"{{{quoted}}}".encode()])
        rows = range(result.ntuples)
        return {_column(result, row, 0): int(_column(result, row, 1)) for row in rows}


def _column(result: PGresult, row: int, column: int) -> str:
    return (result.get_value(row, column) or b"").decode()


@contextmanager
def _connected(login: Login, options: str = "", settings: Settings = ()) -> Iterator[PGconn]:
    from psycopg import pq

    connection = pq.PGconn.connect(login.conninfo(options))
    try:
        if connection.status != pq.ConnStatus.OK:
            raise NotExplained(f"No connection for EXPLAIN: {connection.error_message.decode(errors='replace')}")
        for name, value in (dict(settings) | STEADY).items():
            _run(connection, b"SELECT set_config($1, $2, false)", [name.encode(), value.encode()])
        yield connection
    finally:
        connection.finish()


def _run(connection: PGconn, sql: bytes, values: Sequence[bytes] = ()) -> PGresult:
    return _check(connection, connection.exec_params(sql, values or None))


def _check(connection: PGconn, result: PGresult) -> PGresult:
    from psycopg import pq

    if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise NotExplained(f"PostgreSQL does not explain it: {result.error_message.decode(errors='replace').strip()}")
    return result


def _quoted(value: str) -> str:
    """For use between single quotes in a connection string."""
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _short(statement: Statement) -> str:
    return f"{' '.join(statement.text[:300].split())[:120]}…"
