"""Templates with many rows, for what shows only in large tables: made once for each schema and script, then cloned."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from checks.kit.postgres.connect import Login, connect, if_free, lock_key
from checks.kit.postgres.source import Source
from checks.kit.postgres.templates import find_or_make as find_or_make_template
from checks.kit.postgres.templates import template_name

if TYPE_CHECKING:
    import asyncpg

    from checks.kit.postgres.database import Database

PREFIX = "workbook_filled_"
"""Begins the name of each of these templates."""

MAX_FILLED = 4
"""How many of them a role keeps on a server, the newest ones and those that a run uses; each may have 100 MB."""

ROWS_SAMPLED = 300
"""Rows that ANALYZE reads for each unit of the statistics target."""

TABLES = """
    SELECT string_agg(oid::regclass::text, ', '), max(reltuples)::bigint FROM pg_class
     WHERE relkind IN ('r', 'm') AND relnamespace NOT IN (
        SELECT oid FROM pg_namespace WHERE nspname = 'information_schema' OR nspname LIKE 'pg\\_%'
     )
"""


async def find_or_make(source: Source, empty: str, script: str, login: Login) -> str:
    """The name of the template with the tables of the database `empty`, and the rows of an SQL script in them.

    A connection of its own does the work, which takes seconds: the run needs its own for other databases meanwhile.
    """
    schema = f"{empty}\0{script}"
    name = template_name(schema, login, PREFIX)

    async def load(database: Database) -> None:
        await database.admin.execute(f"{script}\n;SELECT 1")
        await settle(database.admin)
        await _drop_old(connection, login, database.name)

    connection = await connect(source, source.maintenance)
    try:
        return await find_or_make_template(
            connection, source, schema, login, load=load, lock=lock_key(_making(name)), base=empty, prefix=PREFIX
        )
    finally:
        await connection.close()


def _token(name: str) -> str:
    """The digits in the name of a template, or of its draft. Who uses a template holds their lock."""
    return name.removeprefix(PREFIX)[:16]


def _making(name: str) -> str:
    """The digits whose lock is held by whoever makes a template; so two runs can make two at a time."""
    return f"{int(_token(name), 16) ^ 2:016x}"


async def settle(connection: asyncpg.Connection[Any]) -> None:
    """Vacuums and analyzes all tables, so that the same rows have the same plans and the same blocks each time."""
    tables, _ = await connection.fetchrow(TABLES) or (None, 0)
    if tables is None:
        return
    # VACUUM marks a page as visible to all only if the commits of its rows are on disk. With synchronous_commit off
    # they may not be, until a later commit with it on.
    await connection.execute("SET synchronous_commit = on")
    await connection.execute("SELECT pg_logical_emit_message(true, 'workbook', '')")
    await connection.execute(f"VACUUM (FREEZE) {tables}")
    _, most = await connection.fetchrow(TABLES) or (None, 0)
    # ANALYZE chooses rows at random, unless its sample is the whole table
    await connection.execute(f"SET default_statistics_target = {min(max(most // ROWS_SAMPLED + 1, 100), 10_000)}")
    await connection.execute(f"ANALYZE {tables}")
    await connection.execute("RESET default_statistics_target; RESET synchronous_commit")


async def _drop_old(connection: asyncpg.Connection[Any], login: Login, draft: str) -> None:
    """Leaves room for one more, which is now called `draft`. Drafts of runs that died go, too."""
    import asyncpg

    made = await connection.fetch(
        "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND datname <> $2 "
        "AND datdba = (SELECT oid FROM pg_roles WHERE rolname = $3) ORDER BY oid DESC",
        PREFIX,
        draft,
        login.role,
    )
    drafts = [name for (name,) in made if name.endswith("_draft")]
    old = [name for (name,) in made if name not in drafts][MAX_FILLED - 1 :]
    for name in drafts + old:
        async with if_free(connection, _making(name) if name in drafts else _token(name)) as unused:
            with contextlib.suppress(asyncpg.ObjectInUseError):  # autovacuum may look at it
                if unused:
                    await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')


async def use(lock_connection: asyncpg.Connection[Any], template: str) -> None:
    """Keeps a template from being dropped for as long as the connection lives."""
    await lock_connection.execute("SELECT pg_advisory_lock_shared($1)", lock_key(_token(template)))
