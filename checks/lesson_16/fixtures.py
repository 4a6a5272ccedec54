"""A shop with customers, the services outside, and an OpenTelemetry collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.lesson_15.fixtures import gateway, provider  # noqa: F401  (what is here is a fixture of this lesson)
from checks.lesson_16.furnished import Furnished, furnish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed


@fixture
async def furnished(testbed: Testbed, shop: Shop) -> AsyncIterator[Furnished]:
    """A shop with rows for all endpoints: `furnished.ids`, and `furnished.logins[0]` is the header of a customer."""
    testbed.provoked.update(("app.busy.Unavailable", "response already started"))  # checks cut what is under way
    yield await furnish(shop, testbed.lesson.env["JWT_SECRET"])


@fixture
async def collector(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """An OpenTelemetry collector: `received(collector)` are the spans that were sent to it."""
    async with outside_service(testbed, env="OTEL_EXPORTER_OTLP_ENDPOINT") as service:
        yield service
