"""Two shops with their customers, all of them logged in."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from checks.lesson_15.hosted import Hosted, turn

if TYPE_CHECKING:
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed

BOOKS, CUSTOMERS = 6, 6

SETTLE = """
    DELETE FROM payments; DELETE FROM outbox; DELETE FROM gifts;
    UPDATE orders SET status = 'shipped'
"""
"""The rows of the beginning are over: each of them was paid by invoice, and its mail was sent."""


@dataclass(frozen=True)
class Buyer:
    """A customer of a shop; `headers` are those of a login."""

    owner: Hosted
    customer: int
    headers: dict[str, str]

    def basket(self, *numbers: int, quantity: int = 1) -> dict[str, Any]:
        """An order of these books of the shop, by their numbers."""
        books = self.owner.ids.books
        return {"lines": [{"book_id": books[n % len(books)], "quantity": quantity} for n in numbers or (0,)]}

    def card(self, *numbers: int, token: str = "tok_1") -> dict[str, Any]:
        """The same, paid by card."""
        return self.basket(*numbers) | {"card_token": token}


@dataclass(frozen=True)
class World:
    """Shops A and B, and their customers in turn: one of A, one of B, and so on."""

    a: Hosted
    b: Hosted
    buyers: list[Buyer]

    def of(self, owner: Hosted) -> list[Buyer]:
        return [buyer for buyer in self.buyers if buyer.owner is owner]


UNFILLED = """
    SELECT count(*) FROM information_schema.columns
     WHERE table_name = 'outbox' AND column_name = 'kind' AND is_nullable = 'NO' AND column_default IS NULL
"""
"""Whether rows from before the release do not fit: one check is about that, and the others need rows."""


async def open_shops(shop: Shop, *, books: int = BOOKS, customers: int = CUSTOMERS) -> tuple[Hosted, Hosted]:
    """Shops A and B with rows in all tables."""
    unfilled = await shop.value(UNFILLED)
    if unfilled:
        await shop.execute("ALTER TABLE outbox ALTER kind SET DEFAULT 'order_confirmation'")
    shops = await turn(shop, {"A": 23, "B": 7}, books=books, customers=customers)
    if unfilled:
        await shop.execute("ALTER TABLE outbox ALTER kind DROP DEFAULT")
    return shops["A"], shops["B"]


async def open_world(testbed: Testbed, shop: Shop) -> World:
    """Fills the empty database. No order of the beginning waits for anything."""
    a, b = await open_shops(shop)
    await shop.execute(SETTLE)
    secret = testbed.lesson.env["JWT_SECRET"]
    return World(a, b, [log_in(owner, number, secret) for number in range(CUSTOMERS) for owner in (a, b)])


def log_in(owner: Hosted, number: int, secret: str) -> Buyer:
    customer = owner.ids.customers[number]
    claims = {"iss": "bookshop", "aud": "bookshop-api", "shop": owner.id, "sub": str(customer)}
    token = jwt.encode({**claims, "exp": int(time.time()) + 3600}, secret, "HS256")
    return Buyer(owner, customer, owner.visit | {"Authorization": f"Bearer {token}"})
