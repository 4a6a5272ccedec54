"""A shop with customers, other clients of PgBouncer, and the services outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt

from checks.kit.testbed.fixtures import fixture
from checks.lesson_15.fixtures import gateway, provider  # noqa: F401  (what is here is a fixture of this lesson)
from checks.lesson_17.others import Others

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.testbed.rows import Seeded
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed

PASSWORD = "the password of a reader"
PASSWORD_HASH = "$argon2id$v=19$m=19456,t=2,p=1$oqeDW5e4eM5L1mX5GoHl3A$PUstvNtc1S6BgWKum+X0hKpCV2mbYp7l2i7udlhywGg"

FURNISH = """
    UPDATE customers SET credit_cents = 100000000, password_hash = '{hash}' WHERE shop_id = {shop};
    INSERT INTO invoices (order_id, lines, total_cents, shop_id) VALUES ({order}, '[]', 0, {shop});
    INSERT INTO payments (order_id, key, card_token, amount_cents, shop_id)
        VALUES ({order}, gen_random_uuid(), 'tok', 1000, {shop});
    INSERT INTO coupons (code, percent, shop_id) VALUES ('SPRING', 10, {shop});
"""


@dataclass(frozen=True)
class Furnished:
    """Rows of a shop, and the headers of customers who are logged in: `logins[n]` is that of `ids.customers[n]`."""

    shop_id: int
    ids: Seeded
    logins: list[dict[str, str]]
    email: str

    @property
    def book(self) -> str:
        """The path of a book."""
        return f"/books/{self.ids.books[0]}"

    def basket(self, number: int = 0) -> dict[str, object]:
        """An order of one copy."""
        return {"lines": [{"book_id": self.ids.books[number], "quantity": 1}]}


@fixture
async def furnished(testbed: Testbed, shop: Shop) -> AsyncIterator[Furnished]:
    """A shop with rows for all endpoints: `furnished.ids`, and `furnished.logins[0]` is the header of a customer."""
    yield await furnish(testbed, shop)


async def furnish(testbed: Testbed, shop: Shop, shop_id: int | None = None) -> Furnished:
    """Adds rows to a shop, the usual one unless told otherwise."""
    ids = await shop.seed(books=4, customers=4, authors=2, reviews=2, orders=3, lines=2, shop_id=shop_id)
    shop_id = shop_id or await shop.value("SELECT shop_id FROM books WHERE id = $1", ids.books[0])
    await shop.execute(FURNISH.format(order=ids.orders[0], shop=shop_id, hash=PASSWORD_HASH))
    claims = {"iss": "bookshop", "aud": "bookshop-api", "shop": shop_id, "exp": int(time.time()) + 600}
    secret = testbed.lesson.env["JWT_SECRET"]
    tokens = [jwt.encode({**claims, "sub": str(customer)}, secret, "HS256") for customer in ids.customers]
    email = await shop.value("SELECT email FROM customers WHERE id = $1", ids.customers[0])
    assert shop_id is not None
    logins = [{"Authorization": f"Bearer {token}"} for token in tokens]
    return Furnished(shop_id, ids, logins, str(email))


@fixture
async def others(testbed: Testbed) -> AsyncIterator[Others]:
    """Other clients of PgBouncer, in the role of the app: `async with others.taking_turns()`."""
    assert testbed.database.app is not None
    others = Others(testbed, testbed.database.app)
    await others.enter()
    yield others
    await others.leave()


@fixture
async def owners(testbed: Testbed) -> AsyncIterator[Others]:
    """Other clients of PgBouncer, in the role that owns the tables."""
    owners = Others(testbed, testbed.database.login)
    await owners.enter()
    yield owners
    await owners.leave()
