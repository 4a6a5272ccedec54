"""Mixed traffic: a fixed number of requests by customers of all shops, the same ones for the same seed."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from checks.kit.service.app import NoResponse, Response
from checks.lesson_19.timeline import Sent, is_refused

if TYPE_CHECKING:
    from checks.kit.service.app import App
    from checks.lesson_19.world import Buyer

AT_ONCE = 6
"""Requests under way: fewer than one process has connections."""

TRIES = 20
"""How often a client repeats what was refused with Retry-After, and needs no second thought."""

TIMEOUT = 90
"""Seconds for a response; a bound for failures, on a machine that does much else."""

Request = tuple[str, str, dict[str, Any]]
Kind = Callable[["Buyer", int, random.Random], Request]

KINDS: dict[Kind, int] = {
    lambda buyer, n, dice: ("GET", "/catalogue?size=20", {}): 3,
    lambda buyer, n, dice: ("GET", f"/books/{dice.choice(buyer.owner.ids.books)}", {}): 4,
    lambda buyer, n, dice: ("GET", "/books?limit=10", {}): 2,
    lambda buyer, n, dice: ("GET", "/search/titles", {"params": {"title": "An Atlas of Rain"}}): 1,
    lambda buyer, n, dice: ("GET", "/authors", {}): 1,
    lambda buyer, n, dice: ("POST", "/quotes", {"json": buyer.basket(n)}): 2,
    lambda buyer, n, dice: ("GET", "/me", {}): 2,
    lambda buyer, n, dice: ("GET", f"/customers/{buyer.customer}/orders", {}): 1,
    lambda buyer, n, dice: ("PUT", f"/wishlist/{dice.choice(buyer.owner.ids.books)}", {}): 1,
    lambda buyer, n, dice: ("POST", "/orders", {"json": buyer.basket(n, n + 1)}): 4,
    lambda buyer, n, dice: ("POST", "/checkout", {"json": buyer.card(n)}): 2,
    lambda buyer, n, dice: ("POST", "/transfers", {"json": {"recipient_id": another(buyer), "cents": 1}}): 1,
    lambda buyer, n, dice: ("GET", "/dashboard", {}): 1,
    lambda buyer, n, dice: ("GET", "/reports/sales", {}): 1,
}
"""What people do, and how often."""


def another(buyer: Buyer) -> int:
    """Somebody else of the same shop."""
    customers = buyer.owner.ids.customers
    return customers[(customers.index(buyer.customer) + 1) % len(customers)]


class Traffic:
    """Sends requests to the apps in turn. No order of it has an Idempotency-Key, so no client repeats one."""

    def __init__(self, buyers: Sequence[Buyer], seed: int = 19) -> None:
        self._buyers = itertools.cycle(buyers)
        self._dice = random.Random(seed)
        self._numbers = itertools.count()

    async def send(self, apps: Sequence[App], count: int) -> list[Sent]:
        """So many requests, AT_ONCE at a time; what came back, in the order of the requests."""
        free = asyncio.Semaphore(AT_ONCE)

        async def one(app: App, method: str, path: str, options: dict[str, Any]) -> Sent:
            async with free:
                return await sent(app, method, path, **options)

        requests = [self._next() for _ in range(count)]
        return await asyncio.gather(*(one(apps[n % len(apps)], *request) for n, request in enumerate(requests)))

    def _next(self) -> Request:
        buyer, number = next(self._buyers), next(self._numbers)
        [kind] = self._dice.choices(list(KINDS), list(KINDS.values()))
        method, path, options = kind(buyer, number, self._dice)
        return method, path, {"headers": buyer.headers, **options}


async def sent(app: App, method: str, path: str, **options: Any) -> Sent:
    """A request, and what came back, if something did."""
    try:
        return Sent(f"{method} {path}", await app.request(method, path, **{"timeout": TIMEOUT} | options))
    except NoResponse:
        return Sent(f"{method} {path}", None)


async def patiently(app: App, method: str, path: str, **options: Any) -> Response:
    """The response to a client that comes again as long as it is told to: a slow machine meets its limits."""
    for _ in range(TRIES):  # at least once
        response = await app.request(method, path, **{"timeout": TIMEOUT} | options)
        if not is_refused(response):
            break
        await asyncio.sleep(0)
    return response
