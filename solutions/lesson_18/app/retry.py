"""Repeats a transaction that PostgreSQL rolled back because of another one."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.busy import Unavailable

T = TypeVar("T")

TRIES = 5
ROLLED_BACK = {"40001", "40P01"}
"""A serialization failure and a deadlock: nothing of the transaction is stored, even if the error came at COMMIT."""


async def repeated(transaction: Callable[[], Awaitable[T]]) -> T:
    """Awaits `transaction()`, again if PostgreSQL rolled it back, at most TRIES times; then raises Unavailable.

    `transaction` begins and commits: a single statement cannot be repeated, because what the transaction read before
    is out of date. An error that leaves open whether the COMMIT succeeded is not repeated.
    """
    for attempt in range(TRIES):
        try:
            return await transaction()
        except Unavailable as error:
            if getattr(error.__cause__, "sqlstate", None) not in ROLLED_BACK:
                raise
        await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # or the same transactions would meet again
    raise Unavailable
