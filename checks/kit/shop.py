"""The Bookshop's data as a check sees it: puts rows in, looks at what is there. Never goes through the app."""

from __future__ import annotations

from collections.abc import Callable
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


class Shop:
    """Rows are written with the administrator's connection, beside the tap: nothing here shows on the wire."""

    def __init__(self, database: Database, note: Callable[[str], None] = lambda _: None) -> None:
        self.database = database
        self._connection = database.admin
        self._note = note

    async def has(self, *, authors: int = 0, books: int = 0, customers: int = 0, stock: int = 100) -> Stock:
        """Fills the shop; every book has an author (one for all, unless `authors` says more) and `stock` copies."""
        there = Stock()
        for number in range(max(authors, 1 if books else 0)):
            there.authors.append(await self.add("authors", name=f"Author {number}"))
        for number in range(books):
            there.books.append(
                await self.add(
                    "books",
                    isbn=f"97800000{number:05}",
                    title=f"Book {number}",
                    author_id=there.authors[number % len(there.authors)],
                    price_cents=1000 + number,
                    stock=stock,
                )
            )
        for number in range(customers):
            there.customers.append(
                await self.add("customers", email=f"reader{number}@example.com", name=f"Reader {number}")
            )
        counts = {"authors": len(there.authors), "books": books, "customers": customers}
        self._note("the shop holds " + ", ".join(f"{n} {what}" for what, n in counts.items() if n))
        return there

    async def add(self, table: str, **columns: object) -> int:
        """Inserts one row and returns its id."""
        names = ", ".join(columns)
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        row = await self._connection.fetchval(
            f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id", *columns.values()
        )
        return int(row)

    async def count(self, table: str, where: str = "true", *values: object) -> int:
        return int(await self._connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}", *values))

    async def value(self, sql: str, *values: object) -> Any:
        return await self._connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._connection.fetch(sql, *values)]

    async def execute(self, sql: str, *values: object) -> None:
        await self._connection.execute(sql, *values)
