"""The mail gateway, the payment provider, a customer who buys, and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.invariants import assert_the_shop_adds_up, read_ledger
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.kit.testbed.shop import Shop
from checks.lesson_09.buyer import Buyer
from checks.lesson_09.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.testbed.testbed import Testbed


@fixture
async def gateway(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The mail gateway: `gateway.calls` is what workers asked it to send. It accepts all mail unless told otherwise."""
    async with outside_service(testbed, env="MAIL_URL", title="What the mail gateway received") as service:
        yield service


@fixture
async def another_gateway(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The mail gateway at a second address: `workers.start(MAIL_URL=another_gateway.url)` makes a worker use it."""
    async with outside_service(testbed, env="ANOTHER_MAIL_URL", title="And at its second address") as service:
        service.respond(status=202, json={"id": "m_0"})
        yield service


@fixture
async def provider(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The payment provider. It accepts all charges unless told otherwise."""
    async with outside_service(testbed, env="PAYMENT_URL", title="What the payment provider received") as service:
        yield service


@fixture
async def buyers(testbed: Testbed, shop: Shop) -> AsyncIterator[list[Buyer]]:
    """Two customers who buy different books. At the end, stock and money must add up."""
    ids = await shop.seed(books=4, customers=2, stock=1000)
    before = await read_ledger(shop)
    secret = testbed.lesson.env["JWT_SECRET"]
    made = []
    for customer, books in zip(ids.customers, (ids.books[:2], ids.books[2:]), strict=True):
        email = await shop.value("SELECT email FROM customers WHERE id = $1", customer)
        made.append(Buyer(customer, email, books, secret))
    yield made
    await assert_the_shop_adds_up(shop, before)


@fixture
async def buyer(buyers: list[Buyer]) -> AsyncIterator[Buyer]:
    """A customer who buys: `order = await buyer.buy(app, "POST /gifts")`. At the end, stock and money must add up."""
    yield buyers[0]


@fixture
async def another_buyer(buyers: list[Buyer]) -> AsyncIterator[Buyer]:
    """A second customer, who buys other books, so that neither one's order waits for the other's."""
    yield buyers[1]


@fixture
async def workers(testbed: Testbed) -> AsyncIterator[Workers]:
    """Starts workers: `worker = await workers.start(MAIL_RETRY_SECONDS="3600")` returns when it waits for mail."""
    yield Workers(testbed)
