"""A shop with rows of all kinds, and what it holds."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from checks.kit.service.app import PendingRequest
    from checks.kit.testbed.rows import Seeded
    from checks.kit.testbed.shop import Shop

UNKNOWN = 2**40
"""An id that no row has."""


async def stocked(shop: Shop, books: int = 5) -> Seeded:
    """A shop with books, of which the first two are in orders, and the last one is not; with reviews and wishes.

    The first order is paid by card.
    """
    ids = await shop.seed(books=books, authors=2, customers=3, reviews=2, orders=2)
    await shop.add(
        "payments",
        order_id=ids.orders[0],
        key="7d444840-9dc0-11d1-b245-5ffdce74fad2",
        card_token="tok",
        amount_cents=1000,
        status="accepted",
    )
    await shop.add(
        "invoices",
        order_id=ids.orders[0],
        lines='[{"title": "x", "quantity": 1, "price_cents": 1000}]',
        total_cents=1000,
    )
    await shop.execute(
        "UPDATE orders SET status = 'paid', customer_id = $2 WHERE id = $1", ids.orders[0], ids.customers[0]
    )
    for book in (ids.books[0], ids.books[-1]):
        await shop.add("wishes", customer_id=ids.customers[0], book_id=book)
        await shop.add("reviews", customer_id=ids.customers[2], book_id=book, rating=3, body="It's fine")
    return ids


async def everything(shop: Shop) -> dict[str, Any]:
    """What each table holds, as one text."""
    names = [row["tablename"] for row in await shop.rows(TABLES)]
    return {name: await shop.value(CONTENT.format(name)) for name in names}


def changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The names of the tables that differ."""
    return ", ".join(name for name in after if after[name] != before.get(name))


async def settled(shop: Shop, requests: Sequence[PendingRequest]) -> None:
    """Returns when each request has its response or waits for a lock of PostgreSQL.

    After a second it returns anyway: a request may wait in the app, and longer waits end in timeouts of the app.
    """
    end = time.monotonic() + 1
    while time.monotonic() < end:
        waiting = [request.task for request in requests if not request.task.done()]
        if await shop.value(LOCKED) >= len(waiting):
            return
        await asyncio.wait(waiting, timeout=0.02)


LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
CONTENT = 'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM "{}" t'
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
