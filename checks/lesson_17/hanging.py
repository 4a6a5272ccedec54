"""Requests that wait while their app hangs, and a client of the check's to which PostgreSQL gives more time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from checks.lesson_17.waiting import until_true

if TYPE_CHECKING:
    from checks.kit.service.app import App
    from checks.kit.testbed.endpoints import Endpoint
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Statement

WHO_ASKS = "FROM customers WHERE customers.id"
"""In the last statement of the transaction that finds out who sends a request."""


async def sent(app: App, requests: Iterable[Endpoint], waiting: Callable[[], Awaitable[int]]) -> list[Any]:
    """Sends requests, each when those before it wait or have ended: many logins at once take a busy machine too long.

    `await waiting()` is how many wait. Returns when all that are under way do.
    """
    sent: list[Any] = []

    async def all_wait() -> bool:
        return await waiting() >= sum(not one.task.done() for one in sent)

    for one in requests:
        sent.append(app.start_request(one.method, one.path, **one.options, timeout=60))
        await until_true(all_wait, within=3)
    await until_true(all_wait)  # the pool's ping is a transaction, too, and has no limits
    return sent


class EndOfWork:
    """For `wire.hold`: the end of a transaction that has done more than to find out who sends the request."""

    __name__ = "the end of a transaction"

    def __init__(self) -> None:
        self._last: dict[int, str] = {}

    def __call__(self, one: Statement) -> bool:
        if one.verb in ("COMMIT", "ROLLBACK"):
            last = " ".join(self._last.pop(one.connection, "").split())
            return bool(last) and WHO_ASKS not in last
        if one.data:
            self._last[one.connection] = one.text
        return False


@asynccontextmanager
async def stopped(testbed: Testbed, setting: str, milliseconds: int, sql: str) -> AsyncIterator[asyncio.Event]:
    """Set when PostgreSQL has stopped a client of the check's, which runs `sql` with a limit of its own.

    It tells what is stopped too late without a clock of the check's, which a slow machine would hurry.
    """
    where = testbed.server_side
    client = await asyncpg.connect(testbed.database.url(where.host, where.port, "postgresql"))
    ended = asyncio.Event()

    async def run() -> None:
        try:
            await client.execute(sql)
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError):
            ended.set()

    client.add_termination_listener(lambda _: ended.set())
    await client.execute(f"SET {setting} = {milliseconds}")
    running = asyncio.ensure_future(run())
    try:
        yield ended
    finally:
        client.terminate()
        running.cancel()
        await asyncio.wait([running])
