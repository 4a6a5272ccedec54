"""Fixtures of lesson 11."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import jwt

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.kit.testbed.testbed import Testbed


@fixture
async def login(testbed: Testbed) -> AsyncIterator[Callable[[int], dict[str, str]]]:
    """The header of a customer who is logged in: `headers=login(ids.customers[0])`."""

    def headers(customer_id: int) -> dict[str, str]:
        claims = {"sub": str(customer_id), "iss": "bookshop", "aud": "bookshop-api", "exp": int(time.time()) + 600}
        return {"Authorization": f"Bearer {jwt.encode(claims, testbed.lesson.env['JWT_SECRET'], 'HS256')}"}

    yield headers


@fixture
async def provider(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The payment provider: accepts each charge, unless `provider.respond_next(status=402)` says otherwise."""
    async with outside_service(testbed, env="PAYMENT_URL", title="What the payment provider received") as provider:
        yield provider
