"""The Bookshop's data as a check sees it: inserts rows and reads them, never through the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.words import plural
from checks.kit.service.app import HOST
from checks.kit.service.process import Note, ignore
from checks.kit.testbed.rows import ALWAYS, PLAIN, TYPES, UNFRIENDLY, Seeded, World

if TYPE_CHECKING:
    from checks.kit.postgres import Database


MAX_LISTED = 6
"""Ids of one table that a step names."""


class Shop:
    """A check's own access to the database: an administrator's connection that bypasses the proxy.

    Nothing that is done here is seen on the wire. `database` is the one that the app uses.
    """

    def __init__(self, database: Database, note: Note = ignore) -> None:
        self.database = database
        self._connection = database.admin
        self._note = note

    async def seed(
        self,
        *,
        authors: int = 0,
        books: int = 0,
        customers: int = 0,
        stock: int = 100,
        reviews: int = 0,
        orders: int = 0,
        lines: int = 1,
        others: bool = True,
        shop_id: int | None = None,
    ) -> Seeded:
        """Inserts so many rows into the empty database and returns their ids: `ids = await shop.seed(books=3)`.

        Books have `stock` copies each, and the authors in turn (one for all, unless `authors` says more). Reviews (of
        rating 1 to 5) have the books and the customers in turn, orders the customers, and the orders' `lines`, of one
        copy each, the books.

        Titles and names are what people type (see testbed/rows.py), some of them equal, so read what is stored
        instead of assuming it. No table's ids start at 1, no two tables share one. Beside the rows that were asked for
        there are rows of others: an author with a book, a customer, and that customer's review of the book and order
        of it, where reviews and orders were asked for. Their ids are in `ids.others`; `others=False` leaves them out.

        Where there are several shops, all rows belong to one whose host is that of a request without a Host header of
        its own, or to the one of `shop_id`. A call for each shop is possible then, and the rows of one are those of
        others for another one, so there are no more.
        """
        counts = {"authors": authors, "books": books, "customers": customers, "reviews": reviews, "orders": orders}
        world = replace(UNFRIENDLY, shop=await self._usual_shop()) if shop_id is None else UNFRIENDLY.of_shop(shop_id)
        return await self._insert(world, counts, stock, lines, others and shop_id is None)

    async def _usual_shop(self) -> int | None:
        """The shop in which a request is by itself; None where there is only one, and so no table of shops."""
        if await self.value("SELECT to_regclass('public.shops')") is None:
            return None
        return int(await self.value(USUAL_SHOP, HOST))

    async def _insert(self, world: World, counts: dict[str, int], stock: int, lines: int, others: bool) -> Seeded:
        """Makes the rows of `world` and inserts them, with a statement for each table."""
        counts = counts | {"authors": max(counts["authors"], 1 if counts["books"] else 0)}
        found = {row["tablename"] for row in await self.rows(TABLES_THERE)} if others else set()
        strangers = [table for table in counts if table in found and (counts[table] or table in ALWAYS)]
        ids, rows = world.rows(counts, stock=stock, lines=lines, others=strangers)
        for table, made in rows.items():
            if made:
                columns = ", ".join(made[0])
                arrays = ", ".join(f"${n}::{TYPES[name]}[]" for n, name in enumerate(made[0], 1))
                await self._connection.execute(
                    f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({arrays})",
                    *([row[name] for row in made] for name in made[0]),
                )
        last = world.last_ids(rows)
        await self._connection.execute(GO_ON, list(last), list(last.values()), world.elsewhere)
        said = ", ".join(plural(n, what.removesuffix("s")) for what, n in counts.items() if n)
        detail = "; ".join(f"{what} {_listed(getattr(ids, what))}" for what, n in counts.items() if n)
        self._note(
            f"the shop holds {said}{' and a few more rows beside them' if strangers else ''}", detail=f"ids: {detail}"
        )
        return ids

    async def add(self, table: str, **columns: object) -> int:
        """Inserts one row into `table`, with its columns as keyword arguments, and returns its id."""
        names = ", ".join(columns)
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        row = await self._connection.fetchval(
            f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id", *columns.values()
        )
        self._note(f"a row was put into {table}", detail=", ".join(f"{name} = {columns[name]!r}" for name in columns))
        return int(row)

    async def count(self, table: str, where: str = "true", *values: object) -> int:
        """How many rows of `table` there are for which the SQL condition `where` holds; `$1` is the first value."""
        return int(await self._connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}", *values))

    async def value(self, sql: str, *values: object) -> Any:
        """The first column of the first row that a query returns; None if there is none."""
        await self._see_all_sessions(sql)
        return await self._connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """The rows that a query returns, as dictionaries."""
        await self._see_all_sessions(sql)
        return [dict(row) for row in await self._connection.fetch(sql, *values)]

    async def _see_all_sessions(self, sql: str) -> None:
        """Within a transaction, such as that of `lock`, pg_stat_activity keeps the sessions that it had at first."""
        if "pg_stat_activity" in sql and self._connection.is_in_transaction():
            await self._connection.execute("SELECT pg_stat_clear_snapshot()")

    async def tables_with(self, text: str) -> list[str]:
        """The names of the tables in which some row contains this text in any column."""
        names = await self._connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        sql = 'SELECT EXISTS (SELECT FROM "{}" AS t WHERE strpos(t::text, $1) > 0)'
        return [name for (name,) in names if await self._connection.fetchval(sql.format(name), text)]

    async def refusal(self, sql: str) -> str | None:
        """Runs a statement; the name of the constraint that it violates, None if it succeeds."""
        import asyncpg

        try:
            await self._connection.execute(sql)
        except asyncpg.IntegrityConstraintViolationError as error:
            return str(error.constraint_name)
        return None

    @asynccontextmanager
    async def lock(self, table: str) -> AsyncIterator[None]:
        """Locks the table until the block ends: nobody else can read or write it, as during many migrations."""
        self._note(f"{table} is locked in ACCESS EXCLUSIVE MODE")
        async with self._connection.transaction():
            await self._connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
        self._note(f"{table} is free again")

    async def load(self, script: str, step: str) -> None:
        """Runs an SQL script as the app's role, which then owns what it creates; `step` says what it was for."""
        await self._connection.execute(f'SET ROLE "{self.database.role}";\n{script};\nRESET ROLE')
        self._note(step)

    async def settle(self) -> None:
        """Vacuums and analyzes all tables, as a server does in time: for plans of rows that a check has inserted."""
        from checks.kit.postgres.filled import settle

        await settle(self._connection)

    async def execute(self, sql: str, *values: object, step: str = "") -> None:
        """Runs a statement; `step`, if given, is listed among what the check did."""
        await self._connection.execute(sql, *values)
        if step:
            self._note(step)


def _listed(ids: Sequence[int]) -> str:
    """`120011, 120012, …`: enough of them to ask for one."""
    return ", ".join([*map(str, ids[:MAX_LISTED]), *(["…"] if len(ids) > MAX_LISTED else [])])


async def fill(shop: Shop) -> None:
    """Inserts a few plain rows for a person to look at, into those tables that the lesson has.

    A table that a migration of the learner's has made unfit for them, by a new column without a default, stays empty.
    """
    from asyncpg import IntegrityConstraintViolationError

    found = {row["tablename"] for row in await shop.rows(TABLES_THERE)}
    worlds = [PLAIN]
    if "shops" in found:
        hosts = await shop.rows(HOSTS, list(PEOPLES_HOSTS))
        worlds = [PLAIN.of_shop(row["id"]) for row in hosts]
    wanted = {"authors": 3, "books": 12, "customers": 3, "reviews": 36, "orders": 6}
    counts = {table: count if table in found else 0 for table, count in wanted.items()}
    while True:
        try:
            async with shop.database.admin.transaction():
                for world in worlds:
                    await shop._insert(world, counts, stock=100, lines=3, others=False)
        except IntegrityConstraintViolationError as error:
            unfit = error.table_name or ""
            if not counts.get(unfit):
                raise
            counts[unfit] = 0
        else:
            return


PEOPLES_HOSTS = ("127.0.0.1", "localhost")
"""Where a person finds two shops of one app, without a change of this machine."""

HOSTS = "INSERT INTO shops (name, host) SELECT 'Shop at ' || host, host FROM unnest($1::text[]) AS host RETURNING id"

USUAL_SHOP = """
    INSERT INTO shops (name, host) VALUES ('The usual shop', $1)
        ON CONFLICT (host) DO UPDATE SET host = excluded.host RETURNING id
"""

TABLES_THERE = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"

GO_ON = """
    SELECT setval(sequence, last) FROM (
        SELECT pg_get_serial_sequence(c.oid::regclass::text, 'id')::regclass AS sequence,
               coalesce(known.last, $3::bigint + 10000 * row_number() OVER (ORDER BY c.relname)) AS last
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id' AND NOT a.attisdropped
          LEFT JOIN unnest($1::text[], $2::bigint[]) AS known (name, last) ON known.name = c.relname
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    ) AS each WHERE coalesce(pg_sequence_last_value(sequence), 0) < last
"""
"""Lets the sequences of all tables go on after the ids ($2) of these tables ($1), of others from $3 on."""
