"""The Bookshop's data as a check sees it: puts rows in, looks at what is there. Never goes through the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checks.kit.postgres import Database


@dataclass(frozen=True, slots=True)
class Stock:
    """Ids of what `Shop.has` put in, in the order of their making."""

    authors: list[int] = field(default_factory=list)
    books: list[int] = field(default_factory=list)
    customers: list[int] = field(default_factory=list)
    reviews: list[int] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)


class Shop:
    """Rows are written with the administrator's connection, beside the tap: nothing here shows on the wire."""

    def __init__(self, database: Database, note: Callable[[str], None] = lambda _: None) -> None:
        self.database = database
        self._connection = database.admin
        self._note = note

    async def has(
        self,
        *,
        authors: int = 0,
        books: int = 0,
        customers: int = 0,
        stock: int = 100,
        reviews: int = 0,
        orders: int = 0,
        lines: int = 1,
    ) -> Stock:
        """Fills the shop, which is empty.

        Books take turns with the authors (one for all, unless `authors` says more) and with titles `Book 0`,
        `Book 1` and so on; reviews (of rating 1 to 5) take turns with books and customers, orders with customers,
        and the `lines` of the orders, of one copy each, with the books.
        """
        authors = max(authors, 1 if books else 0)
        there = Stock()
        put_in: list[tuple[list[int], str, int, tuple[object, ...]]] = [
            (there.authors, AUTHORS, authors, ()),
            (there.books, BOOKS, books, (stock, there.authors)),
            (there.customers, CUSTOMERS, customers, ()),
            (there.reviews, REVIEWS, reviews, (there.books, there.customers)),
            (there.orders, ORDERS, orders, (there.customers,)),
        ]
        for ids, sql, count, values in put_in:
            if count:
                ids.extend(row[0] for row in await self._connection.fetch(sql, count, *values))
        if orders:
            await self._connection.execute(LINES, orders * lines, lines, there.orders, there.books)
        counts = {"authors": authors, "books": books, "customers": customers, "reviews": reviews, "orders": orders}
        self._note("the shop holds " + ", ".join(f"{n} {what}" for what, n in counts.items() if n))
        return there

    async def add(self, table: str, **columns: object) -> int:
        """Inserts one row and returns its id."""
        names = ", ".join(columns)
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        row = await self._connection.fetchval(
            f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id", *columns.values()
        )
        self._note(f"a row was put into {table}")
        return int(row)

    async def count(self, table: str, where: str = "true", *values: object) -> int:
        return int(await self._connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}", *values))

    async def value(self, sql: str, *values: object) -> Any:
        return await self._connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._connection.fetch(sql, *values)]

    async def tables_with(self, text: str) -> list[str]:
        """The tables in which some row holds this text."""
        names = await self._connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        sql = 'SELECT EXISTS (SELECT FROM "{}" AS t WHERE strpos(t::text, $1) > 0)'
        return [name for (name,) in names if await self._connection.fetchval(sql.format(name), text)]

    async def refusal(self, sql: str) -> str | None:
        """The name of the constraint that refuses a statement; None if nothing does."""
        import asyncpg

        try:
            await self._connection.execute(sql)
        except asyncpg.IntegrityConstraintViolationError as error:
            return str(error.constraint_name)
        return None

    @asynccontextmanager
    async def lock(self, table: str) -> AsyncIterator[None]:
        """Nobody else can read or write the table until the block ends, as during many a migration."""
        self._note(f"{table} is locked in ACCESS EXCLUSIVE MODE")
        async with self._connection.transaction():
            await self._connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
        self._note(f"{table} is free again")

    async def load(self, script: str, did: str) -> None:
        """Runs an SQL script beside the tap, as the app's role, which then owns what it makes."""
        await self._connection.execute(f'SET ROLE "{self.database.role}";\n{script};\nRESET ROLE')
        self._note(did)

    async def execute(self, sql: str, *values: object, did: str = "") -> None:
        """Runs a statement beside the tap; `did` tells a learner what it was, if that matters."""
        await self._connection.execute(sql, *values)
        if did:
            self._note(did)


# $1 is how many; arrays are ids to take turns with
_EACH = "FROM generate_series(0, $1::int - 1) n ORDER BY n"
AUTHORS = f"INSERT INTO authors (name) SELECT 'Author ' || n {_EACH} RETURNING id"
BOOKS = (
    "INSERT INTO books (isbn, title, author_id, price_cents, stock) SELECT '97800000' || lpad(n::text, 5, '0'), "
    f"'Book ' || n, ($3::bigint[])[1 + n % cardinality($3::bigint[])], 1000 + n, $2 {_EACH} RETURNING id"
)
CUSTOMERS = (
    f"INSERT INTO customers (email, name) SELECT 'reader' || n || '@example.com', 'Reader ' || n {_EACH} RETURNING id"
)
REVIEWS = (
    "INSERT INTO reviews (book_id, customer_id, rating, body) SELECT "
    "($2::bigint[])[1 + n % cardinality($2::bigint[])], "
    f"($3::bigint[])[1 + n % cardinality($3::bigint[])], 1 + n % 5, 'Opinion ' || n {_EACH} RETURNING id"
)
ORDERS = (
    f"INSERT INTO orders (customer_id) SELECT ($2::bigint[])[1 + n % cardinality($2::bigint[])] {_EACH} RETURNING id"
)
LINES = (
    "INSERT INTO order_lines (order_id, book_id, quantity, price_cents) SELECT ($3::bigint[])[1 + n / $2::int], "
    f"($4::bigint[])[1 + n % cardinality($4::bigint[])], 1, 1000 {_EACH}"
)
