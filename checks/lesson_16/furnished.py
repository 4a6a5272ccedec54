"""A shop with rows for all endpoints, and customers who are logged in."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import jwt

if TYPE_CHECKING:
    from checks.kit.testbed.rows import Seeded
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed

FURNISH = """
    UPDATE customers SET credit_cents = 100000000;
    INSERT INTO invoices (order_id, lines, total_cents, shop_id) VALUES ({order}, '[]', 0, {shop});
    INSERT INTO payments (order_id, key, card_token, amount_cents, shop_id)
        VALUES ({order}, gen_random_uuid(), 'tok', 1000, {shop});
    INSERT INTO coupons (code, percent, shop_id) VALUES ('SPRING', 10, {shop});
"""


@dataclass(frozen=True)
class Furnished:
    """Rows of the shop, and the headers of customers who are logged in: `logins[n]` is that of `ids.customers[n]`."""

    ids: Seeded
    logins: list[dict[str, str]]

    @property
    def book(self) -> str:
        """The path of a book."""
        return f"/books/{self.ids.books[0]}"

    @property
    def order(self) -> str:
        """The path of an order of the first customer."""
        return f"/orders/{self.ids.orders[0]}"

    def basket(self, number: int = 0) -> dict[str, object]:
        """An order of one copy."""
        return {"lines": [{"book_id": self.ids.books[number], "quantity": 1}]}


async def break_wishes(testbed: Testbed, shop: Shop) -> None:
    """From now on each request about wishes fails with 500. The app is not to blame for that."""
    await shop.execute("ALTER TABLE wishes RENAME TO wishes_gone")
    testbed.note("the check has renamed the table wishes, so statements about it fail")
    testbed.provoked.add('"wishes"')


async def furnish(shop: Shop, secret: str) -> Furnished:
    """Fills the empty shop. `secret` is the key of access tokens."""
    ids = await shop.seed(books=4, customers=3, authors=2, reviews=2, orders=3, lines=2)
    shop_id = await shop.value("SELECT shop_id FROM books WHERE id = $1", ids.books[0])
    await shop.execute(FURNISH.format(order=ids.orders[0], shop=shop_id))
    claims = {"iss": "bookshop", "aud": "bookshop-api", "shop": shop_id, "exp": int(time.time()) + 600}
    tokens = [jwt.encode({**claims, "sub": str(one), "jti": uuid4().hex}, secret, "HS256") for one in ids.customers]
    return Furnished(ids, [{"Authorization": f"Bearer {token}"} for token in tokens])
