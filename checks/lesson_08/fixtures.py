"""Fixtures of lesson 08."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import jwt

from checks.kit.testbed.apps import Apps, launch_apps
from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.kit.testbed.testbed import Testbed


@fixture
async def provider(testbed: Testbed) -> AsyncIterator[OutsideService]:
    """The payment provider: accepts each charge, unless `provider.respond(status=402)` says otherwise."""
    async with outside_service(testbed, env="PAYMENT_URL") as provider:
        yield provider


@fixture
async def login(testbed: Testbed) -> AsyncIterator[Callable[[int], dict[str, str]]]:
    """The header of a customer who is logged in: `headers=login(ids.customers[0])`."""

    def headers(customer_id: int) -> dict[str, str]:
        claims = {"sub": str(customer_id), "iss": "bookshop", "aud": "bookshop-api", "exp": int(time.time()) + 600}
        return {"Authorization": f"Bearer {jwt.encode(claims, testbed.lesson.env['JWT_SECRET'], 'HS256')}"}

    yield headers


@fixture(last=True)
async def servers(testbed: Testbed) -> AsyncIterator[Apps]:
    """Two processes of the app as on two servers: `servers[0]` and `servers[1]` differ in hash() of a text."""
    yield await launch_apps(testbed, env=({}, {"PYTHONHASHSEED": "8"}))
