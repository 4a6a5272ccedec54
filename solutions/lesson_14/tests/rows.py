"""What tests put into the database and read there."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import jwt


@dataclass
class Customer:
    """A customer, and the header with which a request is theirs."""

    id: int
    email: str
    headers: dict[str, str] = field(repr=False)


class Rows:
    """Makes rows that nobody else has, and reads what is stored."""

    def __init__(self, connection: "asyncpg.Connection[Any]", secret: str) -> None:
        self.connection = connection
        self._secret = secret

    async def one(self, sql: str, *values: object) -> Any:
        return await self.connection.fetchval(sql, *values)

    async def book(self, *, price: int = 1000, stock: int = 5) -> int:
        author = await self.one("INSERT INTO authors (name) VALUES ('Jane') RETURNING id")
        book = (
            "INSERT INTO books (isbn, title, author_id, price_cents, stock) VALUES ($1, 'Emma', $2, $3, $4) "
            "RETURNING id"
        )
        return int(await self.one(book, uuid4().hex[:13], author, price, stock))

    async def customer(self, *, credit: int = 100_000) -> Customer:
        email = f"{uuid4().hex}@example.com"
        added = "INSERT INTO customers (email, name, credit_cents) VALUES ($1, 'Ann', $2) RETURNING id"
        number = int(await self.one(added, email, credit))
        claims = {"sub": str(number), "iss": "bookshop", "aud": "bookshop-api", "exp": int(time.time()) + 600}
        return Customer(number, email, {"Authorization": f"Bearer {jwt.encode(claims, self._secret, 'HS256')}"})

    async def stock(self, book: int) -> int:
        return int(await self.one("SELECT stock FROM books WHERE id = $1", book))

    async def credit(self, customer: Customer) -> int:
        return int(await self.one("SELECT credit_cents FROM customers WHERE id = $1", customer.id))

    async def orders(self, customer: Customer) -> int:
        return int(await self.one("SELECT count(*) FROM orders WHERE customer_id = $1", customer.id))

    async def mails(self, customer: Customer) -> int:
        return int(await self.one("SELECT count(*) FROM outbox WHERE recipient = $1", customer.email))

    async def waiting(self, sessions: int) -> None:
        """Returns when so many sessions of this database wait for a lock, so that they go on at the same moment."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while await self.one(sql) < sessions:
                await asyncio.sleep(0.02)
                # within a transaction, pg_stat_activity keeps the sessions that it had when it was read first
                await self.connection.execute("SELECT pg_stat_clear_snapshot()")
