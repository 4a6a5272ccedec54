"""The fixtures of lesson 19: the services outside, and a rehearsal of the sale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.lesson_15.fixtures import as_app, gateway, provider  # noqa: F401  (these are fixtures here, too)
from checks.lesson_19.rehearsal import Rehearsal
from checks.lesson_19.world import open_shops, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.testbed.outside_service import OutsideService
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed
    from checks.lesson_15.hosted import Hosted


@fixture
async def hosted(shop: Shop) -> AsyncIterator[tuple[Hosted, Hosted]]:
    """Shops A and B with rows in all tables: `a, b = hosted`; `a.book`, `a.visit` and `await a.log_in(app)` are A's."""
    yield await open_shops(shop, books=4, customers=3)


@fixture
async def rehearsal(
    testbed: Testbed,
    shop: Shop,
    provider: OutsideService,  # noqa: F811
    gateway: OutsideService,  # noqa: F811
) -> AsyncIterator[Rehearsal]:
    """Two shops and their customers. After `await rehearsal.open()` two processes serve them."""
    rehearsal = Rehearsal(testbed, shop, await open_world(testbed, shop), provider, gateway)
    testbed.add_evidence("The timeline of the rehearsal", rehearsal.timeline.lines)
    yield rehearsal
