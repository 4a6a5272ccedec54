"""Two shops in one database, an app with a single connection, and the services outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.lesson_15.as_app import AsApp
from checks.lesson_15.hosted import Hosted, turn
from checks.lesson_15.narrow import Narrow

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
async def hosted(shop: Shop) -> AsyncIterator[tuple[Hosted, Hosted]]:
    """Shops A and B with rows in all tables: `a, b = hosted`; `a.book`, `a.visit` and `await a.log_in(app)` are A's."""
    shops = await turn(shop, {"A": 23, "B": 7}, books=4, customers=3)
    yield shops["A"], shops["B"]


@fixture
async def as_app(testbed: Testbed) -> AsyncIterator[AsApp]:
    """Connections as the app's role, past the app: `with as_app.connected() as probe`."""
    yield AsApp(testbed)


@fixture(last=True)
async def narrow(testbed: Testbed) -> AsyncIterator[Narrow]:
    """The learner's app with one connection to the database: each request gets the one that the last one has left."""
    # on a busy machine other requests may take seconds, while the payment provider is asked
    yield Narrow(await testbed.launch(env={"DATABASE_CONNECTIONS": "1", "PAYMENT_TIMEOUT": "60"}))
