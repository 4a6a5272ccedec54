"""A shop with customers, the services outside, and an OpenTelemetry collector."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import jwt

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import OutsideService, outside_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@fixture
async def furnished(testbed: Testbed, shop: Shop) -> AsyncIterator[Furnished]:
    """A shop with rows for all endpoints: `furnished.ids`, and `furnished.logins[0]` is the header of a customer."""
    ids = await shop.seed(books=4, customers=3, authors=2, reviews=2, orders=3, lines=2)
    shop_id = await shop.value("SELECT shop_id FROM books WHERE id = $1", ids.books[0])
    await shop.execute(FURNISH.format(order=ids.orders[0], shop=shop_id))
    claims = {"iss": "bookshop", "aud": "bookshop-api", "shop": shop_id, "exp": int(time.time()) + 600}
    secret = testbed.lesson.env["JWT_SECRET"]
    tokens = [jwt.encode({**claims, "sub": str(one), "jti": uuid4().hex}, secret, "HS256") for one in ids.customers]
    yield Furnished(ids, [{"Authorization": f"Bearer {token}"} for token in tokens])


@fixture
async def provider(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The payment provider. It accepts all charges unless told otherwise."""
    async with outside_service(testbed, env="PAYMENT_URL", title="What the payment provider received") as service:
        yield service


@fixture
async def gateway(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The mail gateway: `gateway.calls` is what workers asked it to send. It accepts all mail unless told otherwise."""
    async with outside_service(testbed, env="MAIL_URL", title="What the mail gateway received") as service:
        yield service


@fixture
async def collector(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """An OpenTelemetry collector: `received(collector)` are the spans that were sent to it."""
    async with outside_service(testbed, env="OTEL_EXPORTER_OTLP_ENDPOINT") as service:
        yield service
