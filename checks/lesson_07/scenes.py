"""What the notebook of lesson 07 needs besides its subject: a database, a payment provider and a picture."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from checks.kit.notebook import command_line, run_app
from checks.kit.testbed.outside_service import OutsideService
from checks.lesson_07.orders import checkout_of, login, order_of, until_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from checks.kit.notebook import RunningApp
    from checks.kit.testbed.rows import Ids
    from checks.kit.testbed.shop import Shop
    from checks.kit.wire import Wire

SLOW = 1.5
"""Seconds that the provider takes in the picture."""

SERVED, FAILED, WAITING = "#1f7a3d", "#c0352c", "#8a8a8a"


@dataclass(frozen=True, slots=True)
class Database:
    """Sessions on a database of its own with the tables of the lesson, its wire, and the ids of its rows."""

    engine: AsyncEngine
    sessions: async_sessionmaker[Any]
    wire: Wire
    shop: Shop
    ids: Ids


@asynccontextmanager
async def database(**rows: int) -> AsyncIterator[Database]:
    """A database with so many rows: `async with database(authors=1) as db:`."""
    async with command_line(7) as line:
        ids = await line.shop.seed(**rows, others=False)
        engine = create_async_engine(line.testbed.url)
        try:
            yield Database(engine, async_sessionmaker(engine), line.wire, line.shop, ids)
        finally:
            await engine.dispose()


@asynccontextmanager
async def shop_with_provider(target: str, **env: str | None) -> AsyncIterator[tuple[RunningApp, OutsideService]]:
    """An app of lesson 07, and a payment provider that accepts each card until it is told otherwise."""
    service = OutsideService("payment provider")
    service.respond(status=201, json={"id": "ch_1"})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    try:
        await service.listen(listener)
        async with run_app(7, target, env={"PAYMENT_URL": service.url, **env}) as running:
            yield running, service
    finally:
        await service.close()
        listener.close()


@dataclass(frozen=True, slots=True)
class Served:
    """A request of the picture: what it was about, when it was sent and had its response, and the status."""

    what: str
    sent: float
    ended: float
    status: int


@dataclass(frozen=True, slots=True)
class SlowMinute:
    """The requests of the picture, the checkout first, and when the provider responded."""

    requests: list[Served]
    responded: float


async def slow_minute(target: str) -> SlowMinute:
    """One checkout, whose provider takes SLOW seconds. Meanwhile others order the same book, and then another one.

    The service has four connections. Times are seconds since the checkout was sent.
    """
    async with shop_with_provider(target, DATABASE_CONNECTIONS="4") as (s, provider):
        ids = await s.shop.seed(books=2, customers=6, others=False)
        same, another = ids.books
        await asyncio.gather(*(s.app.get(f"/books/{same}") for _ in range(4)))  # opens the connections
        async with provider.hold() as held:
            began = time.perf_counter()

            async def send(what: str, path: str, body: Mapping[str, Any], customer: int) -> Served:
                sent = time.perf_counter() - began
                response = await s.app.post(path, json=body, headers=login(customer))
                return Served(what, sent, time.perf_counter() - began, response.status)

            def order(what: str, book: int, customer: int) -> asyncio.Task[Served]:
                return asyncio.create_task(send(what, "/orders", order_of((book, 1)), customer))

            checkout = send("checkout", "/checkout", checkout_of((same, 1)), ids.customers[0])
            requests = [asyncio.create_task(checkout)]
            await held.arrived()
            requests += [order("the same book", same, customer) for customer in ids.customers[1:4]]
            await until_blocked(s.shop, requests, count=3)
            others = [order("another book", another, customer) for customer in ids.customers[4:]]
            await asyncio.wait(others)
            await asyncio.sleep(max(0, began + SLOW - time.perf_counter()))
            responded = time.perf_counter() - began
        return SlowMinute(list(await asyncio.gather(*requests, *others)), responded)


def slow_minute_picture(minutes: Mapping[str, SlowMinute]) -> Any:
    """A pane for each version: a bar for each request, from its sending to its response."""
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(len(minutes), 1, figsize=(9, 1.9 * len(minutes) + 0.6), sharex=True, squeeze=False)
    end = max(one.ended for minute in minutes.values() for one in minute.requests)
    for pane, (title, minute) in zip(panes[:, 0], minutes.items(), strict=True):
        for line, one in enumerate(minute.requests):
            color = WAITING if line == 0 else SERVED if one.status < 300 else FAILED
            pane.barh(-line, one.ended - one.sent, left=one.sent, height=0.6, color=color)
            pane.text(one.ended + 0.01 * end, -line, str(one.status), va="center", fontsize=9)
        pane.axvline(minute.responded, color=WAITING, linestyle="--", linewidth=1)
        pane.text(minute.responded, 0.65, "the provider responds", ha="center", fontsize=8, color="#555555")
        pane.set_yticks([-line for line in range(len(minute.requests))], [one.what for one in minute.requests])
        pane.set_title(title, loc="left", fontsize=10, fontweight="bold")
        pane.set_xlim(0, 1.08 * end)
        for side in ("top", "right", "left"):
            pane.spines[side].set_visible(False)
    panes[-1, 0].set_xlabel("seconds since the checkout was sent")
    figure.tight_layout()
    plt.close(figure)
    return figure
