"""Requests that wait while their app hangs, and a client of the check's to which PostgreSQL gives more time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from checks.lesson_17.waiting import until_true

if TYPE_CHECKING:
    from checks.kit.service.app import App, PendingRequest
    from checks.kit.testbed.endpoints import Endpoint
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Hold, Statement, Wire

WHO_ASKS = "FROM customers WHERE customers.id"
"""In the last statement of the transaction that finds out who sends a request."""


AT_ONCE = 16
"""Connections to PostgreSQL where many requests are to meet a limit at the same time."""


async def widen(testbed: Testbed, app: App, path: str) -> None:
    """Gives the app more connections, and lets it open them: on a busy machine a login takes long."""
    await testbed.pgbouncer.command(f"SET default_pool_size = {AT_ONCE}")
    await asyncio.gather(*(app.get(path) for _ in range(AT_ONCE)))


async def waiting_for_locks(
    app: App, requests: Iterable[Endpoint], waiting: Callable[[], Awaitable[int]]
) -> list[PendingRequest]:
    """Sends requests, and returns when all that are under way wait. `await waiting()` is how many do so."""
    sent = [app.start_request(one.method, one.path, **one.options, timeout=60) for one in requests]

    async def all_wait() -> bool:
        return await waiting() >= sum(not one.task.done() for one in sent)

    await until_true(all_wait)
    return sent


async def held_one_by_one(app: App, requests: Iterable[Endpoint], wire: Wire, hold: Hold) -> list[PendingRequest]:
    """Sends requests, each when the one before is held or over, and returns when no other statement is under way.

    A response may come before the end of its transaction. And a ping of the pool is a transaction without limits.
    """
    sent: list[PendingRequest] = []

    async def quiet() -> bool:
        held = {one.connection for one in hold.waiting}
        return all(one.idle or one.id in held for one in wire.connections if one.status)

    for one in requests:
        before = set(map(id, hold.waiting))
        sent.append(app.start_request(one.method, one.path, **one.options, timeout=60))

        async def settled(before: set[int] = before) -> bool:
            came = sent[-1].task.done() or any(id(one) not in before for one in hold.waiting)
            return came and await quiet()

        await until_true(settled, within=3)
    await until_true(quiet)
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
