"""The mail gateway, the payment provider, and a customer in a shop whose prices are not friendly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.lesson_10.baskets import shelve
from checks.lesson_10.imports import Imports
from checks.lesson_10.shopping import Customer
from checks.lesson_10.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed


@fixture
async def gateway(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The mail gateway: `gateway.calls` is what workers asked it to send. It accepts all mail unless told otherwise."""
    async with outside_service(testbed, env="MAIL_URL", title="What the mail gateway received") as service:
        yield service


@fixture
async def provider(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The payment provider. It accepts all charges unless told otherwise."""
    async with outside_service(testbed, env="PAYMENT_URL", title="What the payment provider received") as service:
        yield service


@fixture
async def customer(testbed: Testbed, shop: Shop) -> AsyncIterator[Customer]:
    """A customer who can afford everything: `order = await customer.buy(app, basket)`, of books in `customer.books`."""
    ids = await shop.seed(books=8, customers=2, stock=1000)
    await shop.execute("UPDATE customers SET credit_cents = 2147483647", step="all customers have credit")
    secret = testbed.lesson.env["JWT_SECRET"]
    yield Customer(ids.customers[0], await shelve(shop, ids.books), secret)


@fixture
async def another_customer(customer: Customer, testbed: Testbed, shop: Shop) -> AsyncIterator[Customer]:
    """A second customer of the same shop, whose orders are other ones."""
    number = await shop.value("SELECT min(id) FROM customers WHERE id <> $1", customer.id)
    yield Customer(number, customer.books, testbed.lesson.env["JWT_SECRET"])


@fixture
async def workers(testbed: Testbed, gateway: OutsideService) -> AsyncIterator[Workers]:
    """Starts workers and waits for what they send: `await workers.start()`, `await workers.sent(order)`."""
    yield Workers(testbed, gateway)


@fixture
async def imports(testbed: Testbed) -> AsyncIterator[Imports]:
    """Imports modules of the app in fresh interpreters: `await imports.first()`, `await imports.together(env)`."""
    yield Imports(testbed)
