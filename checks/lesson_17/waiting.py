"""Waits for what only PostgreSQL knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.kit.testbed.shop import Shop

WAITING = """
    SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (
        SELECT pid FROM pg_stat_activity WHERE datname = current_database()
    )
"""
"""How many sessions of this database wait for a lock."""

WAITING_ROLE = """
    SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (
        SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = $1
    )
"""
"""How many sessions of this role wait for a lock."""

IN_TRANSACTION = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND granted AND pid IN (
        SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = $1
    )
"""
"""How many sessions of this role are in a transaction.

Each transaction holds a lock on its own number. The state in pg_stat_activity is shown to the role itself, and to a
superuser, which the kit is not where it grades a class.
"""


async def until(
    holds: Callable[[], bool], *, or_waits_in: Shop | None = None, waiting: int = 1, within: float = 15
) -> bool:
    """Returns True when `holds()`, or so many sessions wait for a lock; False after so many seconds, a bound."""

    async def look() -> bool:
        return holds() or (or_waits_in is not None and await or_waits_in.value(WAITING) >= waiting)

    return await until_true(look, within)


async def until_true(
    look: Callable[[], Awaitable[bool]], within: float = 15, or_event: asyncio.Event | None = None
) -> bool:
    """Asks again and again, for PostgreSQL tells nobody. False: not within so many seconds, or not before the event."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not await look():
        if loop.time() > end or (or_event is not None and or_event.is_set()):
            return False
        await asyncio.sleep(0.02)
    return True
