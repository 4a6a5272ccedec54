"""A rehearsal of the sale: two processes of the app, the services outside, two shops, and traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from checks.kit.report import expect
from checks.kit.testbed.apps import Apps, launch_apps
from checks.kit.testbed.invariants import Ledger, read_ledger
from checks.lesson_19 import audit
from checks.lesson_19.timeline import FAILED, SERVED, Sent, Timeline
from checks.lesson_19.traffic import Traffic, patiently

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response
    from checks.kit.service.process import RunningProcess
    from checks.kit.testbed.outside_service import OutsideService
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Wire
    from checks.lesson_19.world import Buyer, World

SETTINGS = {"PAYMENT_TIMEOUT": "30"}
"""Long, so that a provider that is held is not given up while a slow machine does something else."""


class Rehearsal:
    """`apps` are open after `await rehearsal.open()`. `timeline` tells what happened; a verdict shows it."""

    apps: Apps
    before: Ledger

    def __init__(
        self, testbed: Testbed, shop: Shop, world: World, provider: OutsideService, gateway: OutsideService
    ) -> None:
        self.testbed, self.shop, self.world = testbed, shop, world
        self.provider, self.gateway = provider, gateway
        self.timeline = Timeline()
        self._traffic = Traffic(world.buyers)

    @property
    def wire(self) -> Wire:
        return self.testbed.wire

    @property
    def role(self) -> str:
        """The app's, in PostgreSQL."""
        assert self.testbed.database.app is not None
        return self.testbed.database.app.role

    async def open(self, **env: str) -> Apps:
        """Starts two processes of the app."""
        settings = SETTINGS | env
        self.before = await read_ledger(self.shop)
        self.apps = await launch_apps(self.testbed, [settings, settings])
        self.timeline.note("two processes of the app serve")
        return self.apps

    async def worker(self, **env: str) -> RunningProcess:
        """Starts a worker; returns when it is connected."""
        worker = await self.testbed.start("app.worker", name="worker", env=env, connected=True)
        self.timeline.note("a worker has started")
        return worker

    async def traffic(self, count: int, meanwhile: str = "traffic", apps: Sequence[App] = ()) -> list[Sent]:
        """So many mixed requests of others; what came back."""
        sent = await self._traffic.send(apps or self.apps, count)
        self.timeline.sent(meanwhile, sent)
        return sent

    def expect_served(self, sent: Sequence[Sent], when: str, section: str) -> None:
        """Each request of the traffic was served; on a slow machine some may be told to come again."""
        failed = [one for one in sent if one.mark == FAILED]
        served = [one for one in sent if one.mark == SERVED]
        expect(
            not failed and 2 * len(served) > len(sent),
            f"{when}: of {len(sent)} requests of others {len(served)} were served. {(failed or ['', *sent])[0]}",
            because="Customers who have nothing to do with the fault cannot buy.",
            section=section,
        )

    async def order(self, buyer: Buyer, *numbers: int, app: App | None = None) -> int:
        """The id of an order that is paid by credit."""
        body = buyer.basket(*numbers)
        placed = await patiently(app or self.apps[0], "POST", "/orders", json=body, headers=buyer.headers)
        return self._placed(placed, 201)

    async def pay(self, buyer: Buyer, *numbers: int, app: App | None = None, status: int = 201) -> int:
        """The id of an order that is paid by card."""
        body = buyer.card(*numbers)
        placed = await patiently(app or self.apps[0], "POST", "/checkout", json=body, headers=buyer.headers)
        return self._placed(placed, status)

    def _placed(self, placed: Response, status: int) -> int:
        expect(
            placed.status == status,
            f"{placed}. Expected: status {status}, as before this release.",
            because="Nobody can buy.",
            section="Orders and stock",
        )
        return int(placed["id"])

    async def cancel(self, buyer: Buyer, order: int, app: App | None = None) -> Response:
        """The response to a cancellation."""
        path = f"/orders/{order}/cancellation"
        response = await patiently(app or self.apps[0], "POST", path, headers=buyer.headers)
        self.timeline.note(f"the customer cancels order {order}: status {response.status}")
        return response

    async def status(self, order: int) -> str:
        """Of an order, as it is stored."""
        return str(await self.shop.value("SELECT status::text FROM orders WHERE id = $1", order))

    async def expect_it_adds_up(self, section: str, *, exactly: bool = False) -> None:
        """No copy and no cent has appeared or is gone since `open`; with `exactly`, no cent was given back twice."""
        found = await audit.discrepancies(self.shop, self.before, self.provider, exactly=exactly)
        if not found:
            self.timeline.note("books: stock, credit and money add up")
        expect(
            not found,
            " ".join(found[:3]) + (f" And {len(found) - 3} more." if len(found) > 3 else ""),
            because="The shop sells books that it does not have, or a customer has paid for nothing.",
            section=section,
        )

    async def at_once(self, *requests: tuple[App, str, str, dict[str, Any]]) -> list[Response]:
        """The responses to requests that are sent at the same time."""
        return await asyncio.gather(
            *(patiently(app, method, path, **options) for app, method, path, options in requests)
        )
