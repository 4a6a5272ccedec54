"""Lesson 17: limits that hold with a PgBouncer in between, and what happens when it has nothing to give."""

import asyncio
from contextlib import suppress
from signal import SIGCONT, SIGSTOP

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.wire import committing
from checks.lesson_17.fixtures import PASSWORD
from checks.lesson_17.hanging import EndOfWork, held_one_by_one, stopped, waiting_for_locks, widen
from checks.lesson_17.others import Others, beginning
from checks.lesson_17.waiting import IN_TRANSACTION, WAITING_ROLE, until_true

BUSY = "A process that hangs keeps one of two connections, and its locks, for as long as it hangs."
BUDGET = 4

LATER = {"statement_timeout": 4_000, "idle_in_transaction_session_timeout": 6_000}
"""Limits of a client of the check's, in milliseconds. It begins after the app, whose limits are 2.5 s and 4 s."""

FIRST_TABLES = "shops, customers"
"""What a request asks for before its own rows: which shop it is, and who sends it."""

OTHER_TABLES = """books, authors, reviews, orders, order_lines, refresh_tokens, wishes, outbox, invoices, coupons,
    receipts, login_tries"""


@pytest.mark.start_early
async def test_a_slow_statement_is_stopped_by_postgresql(testbed, app, furnished, endpoints, shop, server_side):
    """PostgreSQL itself stops a statement of a request after 2.5 s, also if the app hangs and cancels nothing."""
    await widen(testbed, app, furnished.book)
    role = testbed.database.app.role

    async def nobody_waits():
        return not await shop.value(WAITING_ROLE, role)

    account = {"email": furnished.email, "password": PASSWORD, "refresh_token": "none"}
    requests = endpoints(furnished.ids, headers=furnished.logins[0], **account)
    for tables, some in ((FIRST_TABLES, requests[::3]), (OTHER_TABLES, requests[1::3])):
        first = tables.partition(",")[0]
        with server_side.watching() as seen:
            async with shop.lock(tables):
                requested = await waiting_for_locks(app, some, lambda: shop.value(WAITING_ROLE, role))
                app.process.signal(SIGSTOP)
                waited = [one for one in requested if not one.task.done()]
                stuck = await shop.value(WAITING_ROLE, role)
                async with stopped(testbed, "statement_timeout", LATER["statement_timeout"], f"TABLE {first}") as mine:
                    in_time = await until_true(nobody_waits, or_event=mine)
                    still = await shop.value(WAITING_ROLE, role)
                late = [one for one in seen.statements if one.finished is None and one.process == "PgBouncer"]
        expect(
            stuck and in_time,
            f"The table {first} and others were locked. {plural(stuck, 'request')} of the app waited for them in "
            f"PostgreSQL, and the app hung. The check sent a statement after them, which PostgreSQL stops after 4 s. "
            f"By then {plural(still, 'request')} of the app still waited{text_of(late)}. Expected: none.",
            because=BUSY,
            section="A setting that PgBouncer drops",
        )
        app.process.signal(SIGCONT)
        responses = [await one for one in waited]
        other = [one for one in responses if one.status != 503]
        expect(
            len(other) <= len(waited) - stuck and not any(one.status >= 500 for one in other),
            f"A statement was stopped by PostgreSQL. Expected: status 503. {other[0] if other else ''}",
            because="The customer does not learn that the order may be sent again.",
            section="A setting that PgBouncer drops",
        )


@pytest.mark.start_early
async def test_an_idle_transaction_is_ended_by_postgresql(testbed, app, furnished, endpoints, shop, wire):
    """PostgreSQL ends a transaction of a request in which nothing happens for 4 s, also if the app hangs."""
    await widen(testbed, app, furnished.book)
    role = testbed.database.app.role

    async def ended():
        return not await shop.value(IN_TRANSACTION, role)

    account = {"email": furnished.email, "password": PASSWORD, "refresh_token": "none"}
    requests = endpoints(furnished.ids, headers=furnished.logins[0], **account)[2::3][::-1]  # the probe last
    before = await rows(shop)
    async with wire.hold(EndOfWork()) as ends:
        requested = await held_one_by_one(app, requests, wire, ends)
        app.process.signal(SIGSTOP)
        held = await shop.value(IN_TRANSACTION, role)  # a transaction that has failed counts as none
        began = [one for one in requested if not one.task.done()]
        setting = "idle_in_transaction_session_timeout"
        async with stopped(testbed, setting, LATER[setting], "BEGIN") as mine:
            in_time = await until_true(ended, or_event=mine)
            still = await shop.value(IN_TRANSACTION, role)
    expect(
        held and in_time,
        f"The app hung with {plural(held, 'open transaction')}, before COMMIT or ROLLBACK. The check began a "
        f"transaction after them, which PostgreSQL ends after 6 s. By then the app still had {still} open. Expected: "
        "none.",
        because=BUSY,
        section="A setting that PgBouncer drops",
    )
    app.process.signal(SIGCONT)
    responses = [await one for one in began]
    stored = await rows(shop) - before
    wrote = [one for one in responses if one.ok and not one.request.startswith(("GET", "POST /quotes"))]
    expect(
        not wrote and not stored,
        f"PostgreSQL had ended the transactions of these requests. Expected: none succeeds, and nothing is stored. "
        f"Stored: {plural(stored, 'row')}. {wrote[0] if wrote else ''}",
        because="The customer has a confirmation of an order that does not exist.",
        section="A setting that PgBouncer drops",
    )


def text_of(late):
    """Of a statement that waits while PostgreSQL parses it, the wire has nothing yet."""
    return ", such as with " + " ".join(late[0].text.split())[:120] if late else ""


async def rows(shop):
    """How many rows there are that requests store."""
    tables = ("books", "reviews", "customers", "orders", "receipts", "coupons", "wishes", "transfers", "payments")
    return sum([await shop.count(table) for table in tables])


async def test_a_full_pool_is_no_error_of_the_app(app, furnished, endpoints, others, shop):
    """While PgBouncer has no connection to give, each request gets 503 with Retry-After; later ones succeed."""
    first = await app.get(furnished.book)  # a connection to PgBouncer is open, and used
    account = {"email": furnished.email, "password": PASSWORD, "refresh_token": "none"}
    requests = endpoints(furnished.ids, headers=furnished.logins[0], **account)
    requests = [one for one in requests if one.path not in ASKS_NOBODY]
    before = await rows(shop)
    async with others.both():
        waiting = [app.start_request(one.method, one.path, **one.options, timeout=60) for one in requests]
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
    stored = await rows(shop) - before
    expect(
        not late,
        f"The connections were free again. Expected: requests succeed. {late[0] if late else ''}",
        because="The app stays broken until somebody restarts it.",
        section="When the pool is full",
    )
    expect(
        not stored,
        f"Requests got status 503 while both connections were taken. All the same, {plural(stored, 'row')} of theirs "
        f"{'is' if stored == 1 else 'are'} stored. Expected: none.",
        because="A customer who tries again buys twice.",
        section="When the pool is full",
    )


ASKS_NOBODY = ("/live", "/metrics")


@pytest.mark.needs("test_no_transaction_depends_on_its_connection")
async def test_a_restart_of_pgbouncer_loses_nothing(testbed, launch, furnished, server_side, shop, wire):
    """After a restart of PgBouncer the next requests succeed; those under way do so or get 503, and none buys twice."""
    idle = await launch()
    await idle.get(furnished.book)
    await wire.wait_idle()
    await restarted(testbed, kill=True)
    expect_served([await idle.get(path) for path in ("/health", furnished.book, "/dashboard")], "killed")
    for kill in (True, False):
        app = await launch()
        await widen(testbed, app, furnished.book)
        before = await bought(shop, furnished)
        async with server_side.hold(lambda one: one.verb == "SELECT" and "isbn" in one.text, limit=1) as reads:
            read = app.start_request("GET", furnished.book)
            await reads.wait_for_or(read.task)
            many = len(PURCHASES)
            async with (
                server_side.lost_response(committing, limit=many) if kill else server_side.hold(committing) as commits
            ):
                writes = [
                    app.start_request("POST", path, json=furnished.basket(n) | more, headers=furnished.logins[n])
                    for n, (path, more) in enumerate(PURCHASES.items())
                ]
                if kill:
                    await asyncio.wait([one.task for one in writes], timeout=15)
                else:
                    await commits.count_within(many)
                await restarted(testbed, kill=kill)
                reading, *buying = [await one for one in (read, *writes)]
        how = "killed" if kill else "restarted"
        expect(
            reading.status in (200, 503) and all(one.status in (201, 202, 503) for one in buying),
            f"PgBouncer was {how} while {many + 1} requests were under way. Expected: each succeeds or gets status "
            f"503. {reading} {' '.join(map(str, buying))}",
            because="A client that reads 500 does not know whether to try again.",
            section="A restart in the middle of traffic",
        )
        for one, count, earlier in zip(buying, await bought(shop, furnished), before, strict=True):
            stored, invited = count - earlier, one.status == 503 and "retry-after" in one.headers
            expect(
                stored <= 1 and not (stored and invited) and (stored or one.status == 503),
                f"PgBouncer was {how} while an order committed. {one} "
                f"Retry-After: {one.headers.get('retry-after', 'none')}. Orders stored: {stored}. Expected: a "
                "success with one order stored, or status 503, with Retry-After only if no order is stored.",
                because="The customer buys twice, or has a confirmation of an order that does not exist.",
                section="A restart in the middle of traffic",
            )
        paths = ("/health", furnished.book, "/dashboard", "/books", furnished.book)
        later = [await app.get(path) for path in paths]
        placed = await app.post("/orders", json=furnished.basket(), headers=furnished.logins[1])
        expect_served([*later, placed], how)


PURCHASES = {
    "/orders": {},
    "/gifts": {"recipient": {"email": "friend@example.com", "name": "Friend"}, "message": "For you"},
    "/checkout": {"card_token": "tok_1"},
}
"""What places an order, and what belongs into its body besides the lines."""


async def bought(shop, furnished):
    """How many orders the customers have who buy."""
    buyers = furnished.ids.customers[: len(PURCHASES)]
    return [await shop.count("orders", "customer_id = $1", customer) for customer in buyers]


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
        f"PgBouncer had been {how}, and accepted connections again. Expected: requests succeed. "
        f"{failed[0] if failed else ''}",
        because="The shop is closed until somebody restarts the app.",
        section="A restart in the middle of traffic",
    )


async def test_connections_stay_within_their_budget(launch, furnished, endpoints, server_side, wire):
    """All uvicorn workers together open at most DATABASE_CONNECTIONS connections to PgBouncer, none past it."""
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
        f"the same time. Statements came past it from: {', '.join(past) or 'nobody'}. Expected: 1 to {BUDGET} "
        "connections, and nobody.",
        because="PgBouncer accepts 40 connections for all services. It refuses further ones, of whatever service.",
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
        again = f"/checkout/{furnished.ids.orders[0]}"  # of an order whose payment is pending
        payments.append(app.start_request("POST", again, headers=furnished.logins[0]))
        await held.arrived(len(payments))
        taken = await shop.value(IN_TRANSACTION, role)
        held.release()
    await asyncio.gather(*(one.task for one in payments), return_exceptions=True)
    expect(
        not taken,
        f"Three payments, and a second try of another one, waited for the provider. Of the two connections to "
        f"PostgreSQL, {taken} had a transaction. Expected: none.",
        because="With two slow payments, nobody can look at a book any more.",
        section="Two pools, one after the other",
    )
