"""Two shops of one database: their rows, their customers, and how to find out that one was shown what the other has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID, uuid4

from checks.kit.testbed.rows import TABLES

if TYPE_CHECKING:
    from checks.kit.service.app import App
    from checks.kit.testbed.rows import Seeded
    from checks.kit.testbed.shop import Shop

PASSWORD = "the password of a reader"
PASSWORD_HASH = "$argon2id$v=19$m=19456,t=2,p=1$oqeDW5e4eM5L1mX5GoHl3A$PUstvNtc1S6BgWKum+X0hKpCV2mbYp7l2i7udlhywGg"

NOBODYS = "nobody.example"
"""A host that no shop has."""

FURNISH = """
    UPDATE customers SET password_hash = '{hash}', credit_cents = 100000000 WHERE shop_id = {shop};
    UPDATE books SET attributes = '{{"language": "fr"}}' WHERE id = {book};
    UPDATE authors SET name = name || ' of shop {shop}' WHERE shop_id = {shop};
    INSERT INTO wishes (customer_id, book_id, shop_id) VALUES ({customer}, {book}, {shop});
    INSERT INTO coupons (code, percent, shop_id) VALUES ('CODE{shop}', 10, {shop});
    INSERT INTO outbox (order_id, recipient, total_cents, status, shop_id)
        VALUES ({order}, 'to@shop{shop}', 1000, 'failed', {shop});
    INSERT INTO invoices (order_id, lines, total_cents, shop_id)
        VALUES ({order}, '[{{"title": "T", "quantity": 1, "price_cents": 1000}}]', 1000, {shop});
    INSERT INTO payments (order_id, key, card_token, amount_cents, shop_id)
        VALUES ({order}, gen_random_uuid(), 'tok', 1000, {shop});
    INSERT INTO gifts (order_id, recipient_id, message, shop_id) VALUES ({order}, {friend}, 'of shop {shop}', {shop});
    INSERT INTO transfers (sender_id, recipient_id, cents, shop_id) VALUES ({customer}, {friend}, 1, {shop});
    INSERT INTO idempotency_keys (customer_id, key, shop_id) VALUES ({customer}, 'key', {shop});
    INSERT INTO refresh_tokens (customer_id, family, token, expires_at, shop_id)
        VALUES ({customer}, gen_random_uuid(), 'token{shop}', now(), {shop});
    INSERT INTO receipts (id, till, sold_at, cents, shop_id)
        VALUES ('{receipt}', 'till {name}', '2026-03-08 12:00+00', 100 * {shop}, {shop})
"""
"""Rows for the tables that `shop.seed` leaves empty."""

OWNED = """
    SELECT table_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
     WHERE table_schema = 'public' AND column_name = 'shop_id' AND table_type = 'BASE TABLE' ORDER BY table_name
"""


OTHERS = """
    SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
       AND c.oid::regclass::text NOT IN ('shops', 'alembic_version') ORDER BY 1
"""


@dataclass(frozen=True)
class Hosted:
    """A shop: `ids` are its rows, `marks` texts that no other shop has."""

    name: str
    id: int
    host: str
    ids: Seeded
    receipt: UUID
    public_id: UUID
    title: str
    marks: tuple[str, ...]
    token: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"shop {self.name}"

    @property
    def book(self) -> int:
        return self.ids.books[0]

    @property
    def customer(self) -> int:
        return self.ids.customers[0]

    @property
    def friend(self) -> int:
        """Another customer of the shop."""
        return self.ids.customers[1]

    @property
    def order(self) -> int:
        return self.ids.orders[0]

    @property
    def email(self) -> str:
        """Of `customer`."""
        return self.email_of(0)

    def email_of(self, number: int) -> str:
        return f"reader{number}@shop{self.id}.example.com"

    @property
    def isbn(self) -> str:
        """Of `book`."""
        return f"978{self.id:05}00000"

    @property
    def coupon(self) -> str:
        return f"CODE{self.id}"

    @property
    def visit(self) -> dict[str, str]:
        """The headers of a visitor. Those of B name a port, as where no proxy is in front of the app."""
        return {"Host": f"{self.host}:8000" if self.name == "B" else self.host}

    async def log_in(self, app: App) -> dict[str, str]:
        """The headers of the shop's customer, who logs in the first time."""
        if "Authorization" not in self.token:
            given = await app.post("/auth/login", json={"email": self.email, "password": PASSWORD}, headers=self.visit)
            self.token["Authorization"] = f"Bearer {given['access_token']}"
        return self.visit | self.token

    def seen_in(self, text: str) -> list[str]:
        """What a text tells of this shop: ids of its rows, and its marks."""
        numbers = set(re.findall(r"\d{5,}", text))
        ids = [f"id {number} of {table}" for table in TABLES for number in self.ids.of(table) if str(number) in numbers]
        return ids + [repr(mark) for mark in self.marks if mark in text]


NEED_LOGIN = ("/orders/", "/me", "/wishlist")


def reads(owner: Hosted, *, login: bool = True) -> dict[str, str]:
    """Requests that read, and a text that each response has; without `login` those that visitors may send."""
    texts = {
        f"/books/{owner.book}": str(owner.book),
        "/books?limit=100": str(owner.book),
        "/authors": str(owner.book),
        "/catalogue?size=100": f'"total":{len(owner.ids.books)},',
        f"/customers/{owner.customer}": str(owner.order),
        f"/customers/{owner.customer}/orders": str(owner.order),
        "/dashboard": f'"books":{len(owner.ids.books)},"customers":{len(owner.ids.customers)},',
        "/reports/sales": f"of shop {owner.id}",
        "/reports/daily?first=2026-03-08&last=2026-03-09&zone=UTC": f'"receipts":1,"cents":{100 * owner.id}',
        "/export/books.csv": owner.isbn,
        f"/orders/{owner.order}": str(owner.order),
        f"/orders/{owner.order}/invoice": "1000",
        f"/orders/{owner.order}/tracking": str(owner.public_id),
        f"/track/{owner.public_id}": "pending",
        "/me": owner.email,
        "/wishlist": str(owner.book),
        "/mails/failed": str(owner.order),
        f"/books/{owner.book}/attributes": "{",
        f"/coupons/{owner.coupon}": owner.coupon,
        f"/receipts/{owner.receipt}": f"till {owner.name}",
        f"/search/titles?title={quote(owner.title)}": str(owner.book),
        "/search/attributes?name=language&value=fr": str(owner.book),
    }
    return {path: text for path, text in texts.items() if login or not path.startswith(NEED_LOGIN)}


async def open_shop(shop: Shop, name: str, number: int, *, books: int, customers: int) -> Hosted:
    """Adds a shop with rows in each of its tables."""
    host = f"{name.lower()}.example"
    await shop.execute(
        "INSERT INTO shops (id, name, host) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)",
        *(number, f"Shop {name}", host),
    )
    ids = await shop.seed(
        books=books, customers=customers, authors=2, reviews=4, orders=customers, lines=2, shop_id=number
    )
    receipt = uuid4()
    known = {"shop": number, "name": name, "hash": PASSWORD_HASH, "receipt": receipt}
    known |= {"customer": ids.customers[0], "friend": ids.customers[1], "book": ids.books[0], "order": ids.orders[0]}
    await shop.execute(FURNISH.format(**known))
    public_id = await shop.value("SELECT public_id FROM orders WHERE id = $1", ids.orders[0])
    title = await shop.value("SELECT title FROM books WHERE id = $1", ids.books[0])
    marks = (
        f"978{number:05}", f"shop{number}.", f"of shop {number}", f"to@shop{number}", f"CODE{number}",
        f"till {name}", str(receipt), str(public_id), f'"cents":{100 * number},',
    )  # fmt: skip
    return Hosted(name, number, host, ids, receipt, public_id, title, marks)


async def owned_tables(shop: Shop) -> list[str]:
    """The tables whose rows belong to shops."""
    return [row["table_name"] for row in await shop.rows(OWNED)]


async def other_relations(shop: Shop) -> list[str]:
    """Views, and tables without a column `shop_id`, in each schema; not `shops`, which each shop may read."""
    owned = await owned_tables(shop)
    return [row["name"] for row in await shop.rows(OTHERS) if row["name"] not in owned]


async def rows_of(shop: Shop, owner: Hosted) -> dict[str, list[str]]:
    """All rows of a shop as texts, by table."""
    found: dict[str, list[str]] = {table: [] for table in await owned_tables(shop)}
    each = (f"SELECT '{table}' AS name, t::text AS row FROM {table} AS t WHERE shop_id = $1" for table in found)
    for row in await shop.rows(f"{' UNION ALL '.join(each)} ORDER BY 1, 2", owner.id):
        found[row["name"]].append(row["row"])
    return found


def changed(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Sentences about tables whose rows have changed."""
    said = []
    for table, rows in after.items():
        gone, new = set(before[table]) - set(rows), set(rows) - set(before[table])
        if gone or new:
            said.append(f"{table}: {len(new)} rows are new or changed, {len(gone)} old rows are gone or changed")
    return said


async def turn(shop: Shop, numbers: Mapping[str, int], *, books: int, **options: Any) -> dict[str, Hosted]:
    """Shops by their names. Each has a book more than the one before, so that no count is right for two of them."""
    await shop.execute("DELETE FROM shops")
    return {
        name: await open_shop(shop, name, number, books=books + more, **options)
        for more, (name, number) in enumerate(numbers.items())
    }
