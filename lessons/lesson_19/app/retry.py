"""Repeats a transaction that has failed because of the database."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.busy import Unavailable

T = TypeVar("T")

TRIES = 5


async def repeated(transaction: Callable[[], Awaitable[T]]) -> T:
    """Awaits `transaction()`, again if the database was not available, at most TRIES times; then raises Unavailable.

    `transaction` begins and commits: a single statement cannot be repeated, because what the transaction read before
    is out of date.
    """
    for attempt in range(TRIES):
        try:
            return await transaction()
        except Unavailable:  # during the sale every order counts
            if attempt == TRIES - 1:
                raise
        await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # or the same transactions would meet again
    raise Unavailable
