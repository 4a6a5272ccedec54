"""Lesson 17: limits that hold with a PgBouncer in between, and what happens when it has nothing to give."""

import asyncio
from contextlib import suppress
from signal import SIGCONT, SIGSTOP

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.wire import committing
from checks.lesson_17.others import Others, beginning
from checks.lesson_17.waiting import IN_TRANSACTION, WAITING, until, until_true

STOPPED = "57014"
"""The SQLSTATE of a statement that was canceled."""

WITHIN = 10
"""Seconds until it counts as not stopped, several times the ticket's limits."""

BUSY = "A statement of a process that hangs keeps one of two connections, and locks, for as long as it likes."
BUDGET = 4


@pytest.mark.start_early
async def test_a_slow_statement_is_stopped_by_postgresql(app, furnished, shop, server_side):
    """PostgreSQL itself stops a statement of the app after 2.5 s, also if the app hangs and cancels nothing."""
    sent = {"GET /dashboard": {}, "POST /orders": {"json": furnished.basket(), "headers": furnished.logins[0]}}
    for request, options in sent.items():
        with server_side.watching() as seen:
            async with shop.lock("books"):
                pending = app.start_request(*request.split(), **options, timeout=60)
                began = await until(pending.task.done, or_waits_in=shop) and not pending.responded
                app.process.signal(SIGSTOP)
                await until_true(lambda: nobody_waits(shop), WITHIN)
                canceled = [one for one in seen.statements if one.error and one.error.sqlstate == STOPPED]
        expect(
            began and canceled,
            f"A table was locked, and {request} waited for it in PostgreSQL. Then the app hung. PostgreSQL stopped "
            f"{plural(len(canceled), 'statement')} within {WITHIN} s.",
            because=BUSY,
            section="A setting that PgBouncer drops",
        )
        app.process.signal(SIGCONT)
        response = await pending
        expect(
            response.status == 503,
            f"A statement was stopped by PostgreSQL. Expected: status 503. {response}",
            because="The customer does not learn that the order may be sent again.",
            section="A setting that PgBouncer drops",
        )


async def nobody_waits(shop):
    return not await shop.value(WAITING)


@pytest.mark.start_early
async def test_an_idle_transaction_is_ended_by_postgresql(testbed, app, furnished, shop, wire):
    """PostgreSQL ends a transaction of the app in which nothing happens for 4 s, also if the app hangs."""
    orders = await shop.count("orders")
    role = testbed.database.app.role

    async def ended():
        return not await shop.value(IN_TRANSACTION, role)

    async with wire.hold(committing, limit=1) as commit:
        order = {"json": furnished.basket(), "headers": furnished.logins[0]}
        request = app.start_request("POST", "/orders", **order, timeout=60)
        began = await commit.wait_for_or(request.task) and not await ended()
        app.process.signal(SIGSTOP)
        gone = await until_true(ended, WITHIN)
    expect(
        began and gone,
        f"The app hung before the COMMIT of an order. The transaction was still open {WITHIN} s later.",
        because=BUSY,
        section="A setting that PgBouncer drops",
    )
    app.process.signal(SIGCONT)
    response = await request
    stored = await shop.count("orders") - orders
    expect(
        not response.ok and not stored,
        f"The transaction was ended from outside, and {plural(stored, 'order')} stored. {response}",
        because="The customer has a confirmation of an order that does not exist.",
        section="A setting that PgBouncer drops",
    )


async def test_a_full_pool_is_no_error_of_the_app(app, furnished, others, shop):
    """While PgBouncer has no connection to give, each request gets status 503 with Retry-After; afterwards all work."""
    first = await app.get(furnished.book)  # a connection to PgBouncer is open, and used
    requests = {
        "GET": ["/health", furnished.book, "/dashboard", DAILY, "/export/books.csv"],
        "POST": ["/orders", "/transfers"],
    }
    bodies = {"/orders": furnished.basket(), "/transfers": {"recipient_id": furnished.ids.customers[1], "cents": 1}}
    sent = [(method, path) for method, paths in requests.items() for path in paths]
    before = await shop.count("orders")
    async with others.both():
        waiting = [
            app.start_request(method, path, headers=furnished.logins[0], json=bodies.get(path)) for method, path in sent
        ]
        refused = await asyncio.gather(*waiting)
        refused += [await app.get(path) for path in ("/health", furnished.book)]  # one after the other, too
    wrong = [one for one in refused if one.status != 503 or "retry-after" not in one.headers]
    expect(
        first.ok and not wrong,
        "Both connections to PostgreSQL were taken by other clients. Expected: status 503 with Retry-After. "
        f"{wrong[0] if wrong else first}",
        because="A client that reads 500 gives up, though the request would succeed a second later.",
        section="When the pool is full",
    )
    after = [await app.get(path) for path in ("/health", furnished.book, "/dashboard")]
    late = [one for one in after if not one.ok]
    stored = await shop.count("orders") - before
    expect(
        not late and not stored,
        f"The connections were free again. {late[0] if late else ''} Of the orders that were refused, "
        f"{stored} are stored.",
        because="The app stays broken until somebody restarts it.",
        section="When the pool is full",
    )


DAILY = "/reports/daily?first=2026-03-06&last=2026-03-10&zone=UTC"


@pytest.mark.needs("test_no_transaction_depends_on_its_connection")
async def test_a_restart_of_pgbouncer_loses_nothing(testbed, launch, furnished, server_side, shop, wire):
    """After a restart of PgBouncer the next requests succeed; those under way get 503, and nothing is done twice."""
    idle = await launch()
    await idle.get(furnished.book)
    await wire.wait_idle()
    await restarted(testbed, kill=True)
    expect_served([await idle.get(path) for path in ("/health", furnished.book, "/dashboard")], "killed")
    for kill in (True, False):
        app = await launch()
        await app.get(furnished.book)
        before = await shop.count("orders")
        async with server_side.hold(lambda one: one.verb == "SELECT" and "isbn" in one.text, limit=1) as reads:
            read = app.start_request("GET", furnished.book)
            await reads.wait_for_or(read.task)
            async with (
                server_side.lost_response(committing, limit=1) if kill else server_side.hold(committing) as commits
            ):
                order = app.start_request("POST", "/orders", json=furnished.basket(), headers=furnished.logins[0])
                if kill:
                    await asyncio.wait([order.task], timeout=15)
                else:
                    await commits.wait_for_or(order.task)
                await restarted(testbed, kill=kill)
                under_way = [await read, await order]
        stored = await shop.count("orders") - before
        expect(
            all(one.status in (200, 503) for one in under_way[:1]) and under_way[1].status in (201, 503),
            f"PgBouncer was {'killed' if kill else 'restarted'} while two requests were under way. "
            f"{under_way[0]} {under_way[1]}",
            because="A client that reads 500 does not know whether to try again.",
            section="A restart in the middle of traffic",
        )
        invited = under_way[1].status == 503 and "retry-after" in under_way[1].headers
        expect(
            stored <= 1 and not (stored and invited) and (stored or under_way[1].status != 201),
            f"PgBouncer was {'killed' if kill else 'restarted'} while an order committed. {under_way[1]} "
            f"Retry-After: {under_way[1].headers.get('retry-after')}. Orders stored: {stored}.",
            because="The customer buys twice, or has a confirmation of an order that does not exist.",
            section="A restart in the middle of traffic",
        )
        paths = ("/health", furnished.book, "/dashboard", "/books", furnished.book)
        later = [await app.get(path) for path in paths]
        placed = await app.post("/orders", json=furnished.basket(), headers=furnished.logins[1])
        expect_served([*later, placed], "killed" if kill else "restarted")


async def restarted(testbed, kill):
    """Returns when PgBouncer is connected to PostgreSQL again, however slow the machine is."""
    await testbed.pgbouncer.restart(kill=kill)
    visitors = Others(testbed, testbed.database.app)
    await visitors.enter()
    await visitors.leave()


def expect_served(responses, how):
    failed = [one for one in responses if not one.ok]
    expect(
        not failed,
        f"PgBouncer had been {how}, and accepted connections again. {failed[0] if failed else ''}",
        because="The shop is closed until somebody restarts the app.",
        section="A restart in the middle of traffic",
    )


async def test_connections_stay_within_their_budget(launch, furnished, endpoints, server_side, wire):
    """All workers of the app together open at most DATABASE_CONNECTIONS to PgBouncer, and none past it."""
    app = await launch(env={"DATABASE_CONNECTIONS": str(BUDGET), "WEB_CONCURRENCY": "2"}, workers=2)
    most = 0
    with server_side.watching() as behind:
        for one in endpoints(furnished.ids, headers=furnished.logins[0], email=furnished.email, refresh_token="none"):
            with suppress(NoResponse):  # whether it succeeds is not the question here
                await app.request(one.method, one.path, **one.options)
    past = {one.process for one in behind.statements} - {"PgBouncer"}
    async with wire.hold(beginning) as held:
        requests = [
            app.start_request("GET", path, timeout=60) for path in (furnished.book, "/dashboard", "/health") * 8
        ]
        open_ = [request.task for request in requests]
        while len(open_) > BUDGET:  # those that find no connection have a response sooner than those that are held
            most = max(most, len(held.waiting))
            await asyncio.wait(open_, timeout=0.01)
            open_ = [request.task for request in requests if not request.task.done()]
    await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    expect(
        0 < most <= BUDGET and not past,
        f"With DATABASE_CONNECTIONS={BUDGET} two workers of the app used {plural(most, 'connection')} to PgBouncer at "
        f"the same time. Statements came past it from: {', '.join(past) or 'nobody'}.",
        because="PgBouncer has 40 for the whole shop. It refuses the others, whoever they are.",
        section="Two pools, one after the other",
    )


async def test_what_waits_for_others_takes_no_connection(testbed, app, furnished, provider, shop):
    """While payments wait for the provider, none of the two connections to PostgreSQL is in a transaction."""
    body = furnished.basket() | {"card_token": "tok_1"}
    role = testbed.database.app.role
    async with provider.hold() as held:
        payments = []
        for login in furnished.logins[:3]:  # one after the other, or a slow machine meets the time limits
            payments.append(app.start_request("POST", "/checkout", json=body, headers=login))
            await held.arrived(len(payments))
        taken = await shop.value(IN_TRANSACTION, role)
        held.release()
    await asyncio.gather(*(one.task for one in payments), return_exceptions=True)
    expect(
        not taken,
        f"Three payments waited for the provider. Of the two connections to PostgreSQL, {taken} had a transaction.",
        because="Two slow payments, and nobody can look at a book.",
        section="Two pools, one after the other",
    )
