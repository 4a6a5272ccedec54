"""The fixtures of lesson 19: the services outside, and a rehearsal of the sale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.lesson_15.fixtures import as_app, gateway, hosted, provider  # noqa: F401  (these are fixtures here, too)
from checks.lesson_19.rehearsal import Rehearsal
from checks.lesson_19.world import open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.testbed.outside_service import OutsideService
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed


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
