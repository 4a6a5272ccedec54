"""Requests at the same moment: two in step, statement by statement, or a crowd."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, NamedTuple

from checks.kit.wire import committing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.testbed.shop import Shop
    from checks.kit.wire import Hold, Recording, Statement, Wire

PATIENCE = 1.5
"""Seconds for a request to send its next statement; one that sends none, because it waits for another, is left out.

It is less than the limit of a statement, 2.5 s, which counts while a request waits for a lock.
"""

HELD = 2.2
"""Seconds for which a COMMIT is held: an app waits 3 s for its response, and an UPDATE 2.5 s for a lock."""

UNDER_WAY = 8
"""Requests of a crowd that one process has at a time: fewer than it has connections, so that none waits for one."""

TIMES = 20
"""How often a client sends a request that is asked to come again."""

LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

BLOCKED = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""

WAIT_IN_COMMIT = """
    CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(8);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER zz_wait AFTER INSERT ON order_lines DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_in_commit()
"""
"""Triggers fire in the order of their names, so the check of the credit comes first."""


def _steps(statement: Statement) -> bool:
    """Statements about rows, those that take a lock by its name, and COMMIT."""
    return statement.data or committing(statement) or "pg_advisory" in statement.text


class Together(list["Response"]):
    """Responses to requests at the same moment. `sqlstates` are those of the errors that PostgreSQL sent meanwhile."""

    def __init__(self, responses: Sequence[Response], seen: Recording) -> None:
        super().__init__(responses)
        self.sqlstates = sorted({one.error.sqlstate for one in seen.statements if one.error})


async def in_step(wire: Wire, shop: Shop, *sends: Callable[[], PendingRequest]) -> Together:
    """The responses to requests of which each statement is let through in turn: one of the first, one of the second, …

    So each has read before any of them writes. A request that waits for a lock is left out until it has the lock.
    """
    with wire.watching() as seen:
        return Together(await _in_step(wire, shop, *sends), seen)


async def _in_step(wire: Wire, shop: Shop, *sends: Callable[[], PendingRequest]) -> list[Response]:
    async with wire.hold(_steps) as held:
        turns = Turns(shop, held)
        for send in sends:  # one after the other, so that the order of their first statements is known
            turns.requests.append(send())
            await turns.settled()
        while turns.under_way:
            if turns.only_one_can_go_on:  # so there is no choice any more; all others wait for it, and not for long
                held.release()
                break
            held.release_one()
            await turns.settled()
    return [await request for request in turns.requests]


class Turns:
    """Requests whose statements are held, and the wait until each of them has come as far as it can."""

    def __init__(self, shop: Shop, held: Hold) -> None:
        self.requests: list[PendingRequest] = []
        self._shop = shop
        self._held = held
        self.only_one_can_go_on = False
        self._absent = 0  # requests that were waited for in vain: they sleep, or wait for another one in the app

    @property
    def under_way(self) -> list[asyncio.Task[Response]]:
        return [request.task for request in self.requests if not request.task.done()]

    async def settled(self) -> None:
        """Returns when each request is held, waits for a lock or has ended; or, if one is held, after PATIENCE."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while open_ := self.under_way:
            missing, locked = len(open_) - len(self._held.waiting), 0
            if missing > 0 and self._held.waiting:
                locked = await self._shop.value(LOCKED)
                missing -= locked
            if self._held.waiting and (missing <= self._absent or loop.time() > until):
                self._absent = max(missing, 0)
                self.only_one_can_go_on = len(self._held.waiting) == 1 and 0 < locked >= len(open_) - 1
                return
            await asyncio.wait(open_, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)


async def overtaken(wire: Wire, shop: Shop, *sends: Callable[[], PendingRequest]) -> Together:
    """The responses to requests of which one after the other writes and ends while the rest have read already.

    So a request that compares what it has read finds it changed by each of those before it.
    """
    first: set[int] = set()
    with wire.watching() as seen:
        async with wire.hold(lambda statement: statement.changes and statement.connection not in first) as held:
            turns = Turns(shop, held)
            turns.requests += [send() for send in sends]
            await turns.settled()
            while open_ := turns.under_way:
                first.update(statement.connection for statement in held.waiting[:1])
                held.release_one()
                await turns.settled()
                first.clear()  # a pool may give this connection to another request
                if len(turns.under_way) < len(open_):
                    for _ in held.waiting:
                        held.release_one()
                    await turns.settled()
        return Together([await request for request in turns.requests], seen)


def following(which: Callable[[Statement], bool]) -> Callable[[Statement], bool]:
    """For `wire.hold`: any statement after the first one of this kind."""
    first: list[Statement] = []

    def matches(statement: Statement) -> bool:
        if not first and which(statement):
            first.append(statement)
        return bool(first) and statement is not first[0] and not statement.driver

    return matches


async def before_it_locks_books(
    wire: Wire, shop: Shop, early: Callable[[], PendingRequest], late: Callable[[], PendingRequest]
) -> Together:
    """The responses to a request that is about to use books, and to one that is sent then and goes as far as it can.

    So `early` has locked what it locks before the books, and `late` has, if it does so in another order, the books.
    """
    with wire.watching() as seen:
        async with wire.hold(lambda one: one.data and "books" in one.text, limit=1) as held:
            requests = [early()]
            await held.wait_for_or(requests[0].task)
            requests.append(late())
            await blocked(shop, requests[1:], 1)
        return Together([await request for request in requests], seen)


async def while_writing(
    wire: Wire, shop: Shop, writer: Callable[[], PendingRequest], other: Callable[[], PendingRequest]
) -> Together:
    """The responses to a request that has read and is about to write, and to one that is sent at this moment."""
    with wire.watching() as seen:
        async with wire.hold(lambda statement: statement.changes, limit=1) as held:
            turns = Turns(shop, held)
            turns.requests.append(writer())
            await held.wait_for_or(turns.requests[0].task)
            turns.requests.append(other())
            await turns.settled()
        return Together([await request for request in turns.requests], seen)


async def committing_together(shop: Shop, *sends: Callable[[], PendingRequest]) -> list[Response]:
    """The responses to orders that PostgreSQL commits at the same moment.

    A trigger makes each COMMIT wait after its own checks, until all orders have got there or wait for another one.
    """
    await shop.execute(WAIT_IN_COMMIT, step="each COMMIT of an order will wait for the other one")
    await shop.execute("SELECT pg_advisory_lock(8)")
    try:
        requests = [send() for send in sends]
        await _all_locked(shop, requests)
    finally:
        await shop.execute("SELECT pg_advisory_unlock(8)")
    responses = [await request for request in requests]
    await shop.execute("DROP TRIGGER zz_wait ON order_lines; DROP FUNCTION wait_in_commit")
    return responses


async def past_a_gate(wire: Wire, shop: Shop, table: str, row: int, *sends: Callable[[], PendingRequest]) -> Together:
    """The responses to requests that have to lock this row, each sent when the one before it waits for a lock.

    So each of them has locked what it locks before this row, and the first one is the first that gets it.
    """
    requests: list[PendingRequest] = []
    with wire.watching() as seen:
        async with shop.database.admin.transaction():
            locking = f"another program locks a row of {table}, until the requests wait for it"
            await shop.execute(f"SELECT FROM {table} WHERE id = $1 FOR UPDATE", row, step=locking)
            for send in sends:
                requests.append(send())
                await _all_locked(shop, requests)
        return Together([await request for request in requests], seen)


async def around_a_move(
    wire: Wire,
    shop: Shop,
    moves: Callable[[], PendingRequest],
    stays: Callable[[], PendingRequest],
    early: Callable[[], PendingRequest],
    late: Callable[[], PendingRequest],
) -> Together:
    """The responses to four requests, of which the first changes a row that two others want, so that it lies elsewhere.

    `early` has looked for its rows before that, and `late` does so afterwards: rows come to them in different orders,
    unless they ask for an order. `stays` holds a row that `early` wants, until `late` waits for a lock; or for HELD
    seconds, if they wait for each other in the app, or on a busy machine.
    """
    with wire.watching() as seen:
        async with wire.hold(committing, limit=2) as held:
            requests = [moves()]
            await held.wait_for_or(requests[0].task)
            until = asyncio.get_running_loop().time() + HELD
            requests.append(stays())
            if await held.count_within(2, PATIENCE) == 2:  # or one lock is for all orders
                requests.append(early())
                await blocked(shop, requests[2:], 1, until)
                held.release_one()
                await requests[0]
                await blocked(shop, requests[2:], 1, until)
                requests.append(late())
                await blocked(shop, requests[2:], 2, until)
        requests += [send() for send in (early, late)[len(requests) - 2 :]]
        return Together([await request for request in requests], seen)


async def blocked(shop: Shop, requests: Sequence[PendingRequest], count: int, until: float | None = None) -> None:
    """Returns when so many transactions wait for others, or when all these requests have ended.

    Or at the time `until` of the event loop, which is after PATIENCE if it is not given.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE if until is None else until
    while open_ := [request.task for request in requests if not request.task.done()]:
        if await shop.value(BLOCKED) >= count or loop.time() > until:
            return
        await asyncio.wait(open_, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)


async def turn_around(shop: Shop, table: str) -> None:
    """Stores the rows anew, the highest id first; not while a transaction is open that has used the table."""
    import asyncpg

    with contextlib.suppress(asyncpg.LockNotAvailableError):
        async with shop.database.admin.transaction():
            await shop.execute(
                f"SET LOCAL lock_timeout = '1s'; CREATE INDEX backward ON {table} ((-id)); "
                f"CLUSTER {table} USING backward; DROP INDEX backward",
                step=f"the rows of {table} are stored anew, the highest id first",
            )


async def stored_by(wire: Wire, send: Callable[[], PendingRequest]) -> tuple[Response, Durable]:
    """The response to a request, and which statement of such a request stores it: its COMMIT, or each of several."""
    with wire.watching() as seen:
        response = await send()
    texts = [statement.text for statement in seen.statements if committing(statement)]
    # a function that SELECT calls may store all of it without a COMMIT
    by_select = [] if texts else [statement.text for statement in seen.data_statements][-1:]
    return response, Durable(max(len(texts), 1), lambda one: committing(one) or one.text in by_select)


class Durable(NamedTuple):
    """How many statements of a request make work durable, and which."""

    count: int
    which: Callable[[Statement], bool]

    def number(self, number: int) -> Callable[[Statement], bool]:
        """For `wire.lost_response`: that one of them, counted from 1."""
        seen: list[Statement] = []

        def matches(statement: Statement) -> bool:
            if self.which(statement) and not any(one is statement for one in seen):
                seen.append(statement)
            return len(seen) == number and seen[-1] is statement

        return matches


async def _all_locked(shop: Shop, requests: Sequence[PendingRequest]) -> None:
    """Returns when each request waits for a lock or has ended; PATIENCE after the first one of them at the latest."""
    loop = asyncio.get_running_loop()
    until = math.inf
    while open_ := [request.task for request in requests if not request.task.done()]:
        locked = await shop.value(LOCKED)
        if locked and until == math.inf:
            until = loop.time() + PATIENCE
        if locked >= len(open_) or loop.time() > until:
            return
        await asyncio.wait(open_, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)


def asks_to_come_again(response: Response) -> bool:
    """503 with Retry-After: nothing is stored, as busy.py promises."""
    return response.status == 503 and "retry-after" in response.headers


async def until_served(send: Callable[[], Awaitable[Response]], times: int = TIMES) -> Response:
    """The response to a client that repeats its request while it is asked to come again."""
    response = await send()
    while asks_to_come_again(response) and (times := times - 1):
        response = await send()
    return response


async def crowd(apps: Sequence[App], sends: Sequence[Callable[[App], Awaitable[Response]]]) -> list[Response]:
    """The responses to all these requests. Each process always has UNDER_WAY of them, and gets every second one.

    Those that are asked to come again do so at the same moment, after all others have ended. So in each round some are
    served, also by an app that sends away at once whom it cannot serve now.
    """
    responses = await _at_once(apps, sends)
    for _ in range(TIMES):
        again = [number for number, response in enumerate(responses) if asks_to_come_again(response)]
        if not again:
            break
        for number, response in zip(again, await _at_once(apps, [sends[number] for number in again]), strict=True):
            responses[number] = response
    return responses


async def _at_once(apps: Sequence[App], sends: Sequence[Callable[[App], Awaitable[Response]]]) -> list[Response]:
    free = [asyncio.Semaphore(UNDER_WAY) for _ in apps]

    async def one(number: int, send: Callable[[App], Awaitable[Response]]) -> Response:
        which = number % len(apps)
        async with free[which]:
            return await send(apps[which])

    return await asyncio.gather(*(one(number, send) for number, send in enumerate(sends)))
