"""Lesson 04: connections are few and shared, nothing waits without a limit, and an outage passes."""

import asyncio
import contextlib
import csv
import io
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.testbed.waiting import wait_quiescent
from checks.kit.wire import OUTAGES

BUDGET = 20
"""Connections that the ticket allows to the whole service, which runs in two workers."""
STOPPED = "57014"
"""The sqlstate of a statement that PostgreSQL has stopped, because of statement_timeout or because it was canceled."""
LIMIT = 10
"""Seconds within which each request has a response, as the ticket promises."""
SLOW = 1.7
"""Seconds that a slow statement takes. The ticket allows it two: the rest is a margin for a machine under load."""
REFUSING = [how for how in OUTAGES if how != "silent"]


async def test_the_service_stays_within_its_budget(app, shop, wire, endpoints):
    """With 60 requests at once, of all kinds, both workers together use at least 5 and at most 20 connections."""
    doors = endpoints(await shop.seed(**WORLD))
    async with wire.hold(any_data) as busy:
        requests = [start(app, door) for door in (doors * 4)[:60]]
        at_work = await busy.count_within(5, 3 * LIMIT)
        most = await connections_at_work(app, busy, wire)
        # after an error the service must still count the connections that other requests have
        lost = [statement.connection for statement in busy.waiting[:4]]
        await wire.cut(lambda connection: connection.id in lost)
        await some_responded(requests, len(lost) + 4)  # these, and some that have found no connection
        requests += [start(app, door) for door in (doors * 2)[:20]]
        after_errors = await connections_at_work(app, busy, wire)
    await outcomes(requests)
    expect(
        at_work >= 5,
        f"{at_work} of 60 requests reached the database at the same time; at least 5 must.",
        because="A connection that waits for a response serves nobody else. At noon people wait for one of them, "
        "although the service may open 20.",
        section="How large a pool should be",
    )
    expect(
        most <= BUDGET,
        f"60 requests at once had {most} connections open at the same time; the budget is {BUDGET}.",
        because="Each connection is a process of the server with its memory, and PostgreSQL has a limit for all "
        "services together. What this one takes beyond its share, others cannot open.",
        section="Connections that a service may open",
    )
    expect(
        after_errors <= BUDGET,
        f"{len(lost)} connections were cut while their statements were under way. After the first responses 20 more "
        f"requests came, and {after_errors} connections were open; the budget is {BUDGET}.",
        because="After an error the service counts from zero, although connections of other requests are still open. "
        "In an outage, when errors are many, it opens far more than its share.",
        section="Connections that a service may open",
    )


async def test_a_busy_service_turns_requests_away(launch, shop, wire, endpoints):
    """With more requests than connections, each one is served or gets 503 with Retry-After, within 10 s."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD)
    slow = await shop.add("books", isbn="9781234567897", title="Slow", author_id=ids.authors[0], price_cents=1)
    await shop.execute(
        SLOW_BOOK.format(id=slow, seconds=SLOW), step=f"a statement that reads book {slow} takes {SLOW} s"
    )
    by_id = [door for door in endpoints(ids) if door.writes or door.path.startswith(("/health", "/customers"))]
    with wire.watching() as seen:
        requests = [app.start_request("GET", f"/books/{slow}", timeout=2 * LIMIT) for _ in range(20)]
        requests += [start(app, door) for door in by_id]
        responses = await outcomes(requests)
    expect_all_responded(responses, wire)
    expect_served_or_turned_away(responses)
    well = sum(served(response) for response in responses[:20])
    stopped = sum(statement.error is not None and statement.error.sqlstate == STOPPED for statement in seen.statements)
    expect(
        well > 0,
        f"20 requests read a book, which takes {SLOW} s in PostgreSQL. None was served. {first(responses)}"
        + (
            f". PostgreSQL stopped {plural(stopped, 'statement')} (sqlstate {STOPPED}), because of a time limit."
            if stopped
            else ""
        ),
        because="At noon such a statement is normal. It is stopped although it would have succeeded, so nobody sees "
        "this book while the shop is busy.",
        section="Each wait needs its own limit",
    )


async def test_cut_connections_fail_nobody(launch, shop, wire, endpoints):
    """After all idle connections were cut, as in a fail-over, no reading request fails, whichever comes first."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD)
    async with wire.latency(0.02):  # so that requests overlap, and the pool holds several connections
        await expect_well(app, endpoints(ids, writes=False))
    failed = []
    doors = endpoints(ids, writes=False)
    for door in doors:
        await wire.wait_idle(strict=False)
        await wire.cut()
        await app.flush()
        responses = await outcomes([start(app, door)])
        # more of the same, so that the pool holds no connection from before this cut when the next one comes
        responses += await a_few_at_a_time(app, [door] * 8)
        failed += failures(responses)
    expect(
        not failed,
        f"All idle connections were cut {len(doors)} times, and each time another reading request came first. "
        f"{plural(len(failed), 'request')} failed. {first(failed)}",
        because="The pool handed out a connection whose other end was gone. After each fail-over people see errors for "
        "pages that the new server could have shown, some at once and some minutes later.",
        section="A fail-over leaves dead connections in the pool",
    )


async def test_a_refusing_database_is_a_503(launch, shop, wire, endpoints):
    """While the database refuses connections, in whichever way, each request gets 503 with Retry-After."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD)
    await expect_well(app, endpoints(ids))  # from now on there are connections to lose
    before = await stored(shop)
    for turn, how in enumerate(REFUSING):
        async with wire.hold(any_data) as busy:
            # other ones in each outage, and few enough that each has a connection
            doors = endpoints(ids)[turn :: len(REFUSING)]
            under_way = [start(app, door) for door in doors]
            await busy.count_within(len(under_way), 3)
            async with wire.outage(how):
                lost = await outcomes(under_way)
                responses = await a_few_at_a_time(app, endpoints(ids))
                expect_all_responded(lost + responses, wire)
        way = how.replace("_", " ")
        cut = f"{len(doors)} requests had their statements under way when the database went away ({way})."
        asked = [(got, repeatable(door)) for got, door in zip(lost, doors, strict=True)]
        expect_turned_away([got for got, again in asked if again], cut, "GET and PUT requests")
        expect_unavailable([got for got, again in asked if not again], cut)
        expect_turned_away(responses, f"The database refused connections ({way}).")
        await expect_well(app, endpoints(ids, writes=False), f"the database refused connections ({way})")
    after = await stored(shop)
    expect(
        before == after,
        f"Every request got 503. The shop held {before} before the outages, and holds {after} after them.",
        because="A client that obeys the 503 sends its order again, and gets it twice.",
        section="What the driver raises",
    )
    await expect_well(app, endpoints(ids), "the last outage")


@pytest.mark.start_early
async def test_a_silent_database_is_a_503(launch, shop, wire, endpoints):
    """When the database goes silent, each request gets 503 with Retry-After within 10 s; afterwards it is served."""
    one, other = await launch(workers=1), await launch(workers=1)
    ids = await shop.seed(**WORLD)
    for app in (one, other):
        await expect_well(app, endpoints(ids))
    await wire.wait_idle()
    async with wire.hold("FROM books", limit=2) as busy:
        under_way = [one.start_request("GET", f"/books/{ids.books[0]}", timeout=2 * LIMIT) for _ in range(2)]
        await busy.wait_for(2)
        with wire.watching() as seen:
            async with wire.outage("silent"):
                later = start_apart(one, other, endpoints(ids))
                later += [start(one, door) for door in endpoints(ids, writes=False) * 5]  # find no connection
                responses = await outcomes(under_way + later)
                opening = [connection for connection in wire.connections if not connection.status]
    if None in responses:
        await wire.wait_idle(strict=False)  # an app that still waits to connect can do so now
    connecting = sum(bool(connection.status) for connection in opening)
    expect_all_responded_in_silence(responses[:2], responses[2:], seen.connections_opened, connecting)
    expect_turned_away(responses, "The database was silent: nothing passed in either direction.")
    for app in (one, other):
        await expect_well(app, endpoints(ids), "the database was silent")


@pytest.mark.start_early
async def test_a_locked_table_is_a_503(launch, shop, wire, endpoints):
    """While tables are locked, as by a migration, a request gets 503 within 10 s and leaves no statement behind."""
    one, other, crowded = [await launch(workers=1) for _ in range(3)]
    ids = await shop.seed(**WORLD)
    await expect_well(one, endpoints(ids))
    doors = [door for door in endpoints(ids) if door.path != "/health"]
    async with shop.lock("authors, books, customers, reviews, orders, order_lines"):
        requests = start_apart(one, other, doors)
        reading = [door for door in doors if not door.writes]
        requests += [start(crowded, door) for door in reading * 3]  # more than its pool has connections
        responses = await outcomes(requests)
        expect_all_responded(responses, wire)
        expect_turned_away(responses, "All tables were locked, as by a migration.")
        await wire.wait_idle(strict=False)
        left = await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    expect(
        left == 0,
        f"All {len(responses)} requests have a response, and "
        f"{plural(left, 'statement of theirs still waits', 'statements of theirs still wait')} for the lock.",
        because="Nobody reads the results of these statements any more. Each one keeps its place in the queue for the "
        "lock and delays those that come after it, long after its client has gone.",
        section="Each wait needs its own limit",
    )
    for app in (one, other, crowded):
        await expect_well(app, endpoints(ids), "the tables were locked")
    await wire.wait_idle(strict=False)
    open_still = sum(connection.status in "TE" for connection in wire.connections if connection.status)
    expect(
        open_still == 0,
        f"{len(responses)} requests gave up their wait for a lock. Their responses were sent long ago, and "
        f"{plural(open_still, 'connection is', 'connections are')} still inside a transaction.",
        because="Each lock that lasts too long takes connections away, until the service hangs and is restarted.",
        section="A leak takes connections from the pool",
    )


async def test_slow_readers_starve_nobody(launch, shop, wire, endpoints):
    """While 30 clients pause in the middle of the export, each other request is served."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD | {"books": 1200})
    await expect_well(app, [door for door in endpoints(ids) if "export" not in door.path])
    await shop.execute(LONG_TITLES)
    async with AsyncExitStack() as streams:
        readers, status = 0, 200
        while readers < 30:
            try:
                async with asyncio.timeout(LIMIT):
                    status = (await streams.enter_async_context(app.stream("/export/books.csv"))).status
            except (NoResponse, TimeoutError):
                status = None
            if status != 200:
                break
            readers += 1
        await wait_quiescent(app, wire)
        held = sum(connection.status in "TE" for connection in wire.connections if connection.status)
        doors = [door for door in endpoints(ids) if "export" not in door.path]
        responses = await a_few_at_a_time(app, doors)
        failed = failures(responses)
    paused = (
        f"While {plural(readers, 'client')} paused in the middle of the export, "
        f"{plural(held, 'connection was', 'connections were')} inside a transaction"
    )
    got = f"status {status}" if status else f"no response within {LIMIT} s"
    expect(
        readers == 30 and not failed,
        f"{paused}. "
        + ("" if readers == 30 else f"The next export got {got}. ")
        + f"{len(failed)} of {len(responses)} requests to other endpoints failed. {first(failed)}",
        because="A client on a train reads for minutes, and the connection waits with it. A few of them take all "
        "connections, and the shop is closed for everybody else."
        if held
        else "A client on a train reads for minutes. A few of them keep everybody else out meanwhile.",
        section="A slow reader keeps its connection",
    )
    expect(
        held <= BUDGET - 5,
        f"{paused}, in one of two workers. The service may have {BUDGET} connections.",
        because="A client on a train reads for minutes, and the connection waits with it. With the connections that "
        "the service may have, a few such clients close the shop for everybody else.",
        section="A slow reader keeps its connection",
    )
    await wait_quiescent(app, wire)
    left = sum(connection.status in "TE" for connection in wire.connections if connection.status)
    expect(
        left == 0,
        "The 30 clients hung up in the middle of the export, and "
        f"{plural(left, 'connection is', 'connections are')} still inside a transaction.",
        because="Each client that closes its browser too early takes a connection away until the service restarts.",
        section="A slow reader keeps its connection",
    )


async def test_an_export_is_complete(launch, shop):
    """`GET /export/books.csv` has a header row, and each book once as it is stored."""
    app = await launch(workers=1)
    empty = await read_export(app)
    await shop.seed(authors=3, books=2500)
    await shop.execute("UPDATE books SET title = title || E', \"new\"\\nedition', stock = id % 3 WHERE id % 7 < 3")
    status, header, *rows = await read_export(app)
    expect(
        empty == [200, EXPORTED] and status == 200 and header == EXPORTED,
        f"GET /export/books.csv → {status}, first row {header}; of an empty shop: {empty}",
        because="The accountants' program finds the columns by their names in the first row.",
        section="A slow reader keeps its connection",
    )
    wanted = {tuple(map(str, row.values())) for row in await shop.rows(EXPORT)}
    got = [tuple(row) for row in rows]
    missing, foreign = wanted - set(got), set(got) - wanted
    expect(
        len(got) == len(wanted) and not missing and not foreign,
        f"{len(wanted)} books are stored. The file has {plural(len(got), 'row')}, {len(set(got))} of them different; "
        f"{plural(len(missing), 'book is', 'books are')} missing, {plural(len(foreign), 'row is', 'rows are')} not as "
        f"stored. {first(sorted(missing or foreign))}",
        because="The accountants add these rows up. A book that is missing, twice there, or with another price makes "
        "their balance wrong.",
        section="A slow reader keeps its connection",
    )


@pytest.mark.needs("test_an_export_is_complete")
async def test_a_broken_export_is_not_a_whole_file(launch, shop, wire):
    """An export that cannot be finished breaks off: a file that ends as it should has each book."""
    app = await launch(workers=1)
    await shop.seed(authors=3, books=2500)
    for _ in range(5):  # 12 MB: the system itself keeps some for a client that pauses
        await shop.execute(LONG_TITLES)
    text = None
    with contextlib.suppress(NoResponse):
        async with app.stream("/export/books.csv") as stream:
            await wait_quiescent(app, wire)
            async with wire.outage("reset"):
                text = await stream.rest()
    wanted = await shop.count("books")
    rows = 0 if text is None else len(list(csv.reader(io.StringIO(text, newline="")))) - 1
    expect(
        text is None or rows == wanted,
        "A client had read the beginning of the export when the database went away (reset). The file then ended as "
        f"a whole one does. It has {plural(rows, 'row')} below its header; the shop has {plural(wanted, 'book')}.",
        because="The accountants cannot tell this file from a whole one, and add up what is in it. A download that "
        "breaks off is started again.",
        section="A slow reader keeps its connection",
    )


async def test_failing_requests_leak_nothing(launch, shop, wire, endpoints):
    """After 60 requests that fail, each connection is back in its pool, and no transaction is open."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD)
    await expect_well(app, endpoints(ids))
    failing = failing_requests(ids)
    sent = []
    for half in (failing[::2], failing[1::2]) * 4:  # few enough at once that each has a connection
        sent += await outcomes([start(app, door) for door, _ in half])
        if None in sent:  # what leaked blocks the next request already
            break
    await expect_no_leak(
        shop, wire, f"{len(sent)} requests were sent that can never succeed, such as one for an unknown book"
    )
    await expect_well(app, endpoints(ids), f"{len(sent)} requests failed")
    await shop.execute(NO_THIRTEEN, step="books.stock must not be 13 any more, which the app does not know")
    await shop.execute(RENAME, step="authors.name has another name, unknown to the app")
    for _ in range(3):
        await a_few_at_a_time(app, refused_by_the_database(ids))
    await expect_no_leak(shop, wire, "Requests were sent whose statements PostgreSQL refuses, as for an unknown column")


async def test_failing_requests_change_nothing(launch, shop):
    """A request that fails leaves the shop as it was."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD)
    for door, _ in failing_requests(ids):
        before = await everything(shop)
        [response] = await outcomes([start(app, door)])
        after = await everything(shop)
        changed = [table for table in before if before[table] != after[table]]
        what = response if response is not None else f"{door.method} {door.path} → no response after {LIMIT} s"
        expect(
            not changed,
            f"{what}. This request can never succeed, and it has changed what is stored in {' and '.join(changed)}.",
            because="People are told that nothing has happened, and a part of it is stored: an order without books, "
            "or copies that nobody has bought.",
            section="A leak takes connections from the pool",
        )


async def test_an_error_that_lasts_is_not_a_503(launch, shop, endpoints):
    """A request that will never succeed keeps its status: 404, 409, 422, or 500 for a mistake in the service."""
    app = await launch(workers=1)
    ids = await shop.seed(**WORLD)
    wrong = []
    for door, status in failing_requests(ids):
        [response] = await outcomes([start(app, door)])
        if getattr(response, "status", None) != status:
            what = response if response is not None else f"{door.method} {door.path} → no response after {LIMIT} s"
            wrong.append(f"{what}, expected {status}")
    expect(
        not wrong,
        f"{len(wrong)} of {len(failing_requests(ids))} requests that can never succeed got another status than "
        f"before. {first(wrong)}",
        because="A client that is told 503 with Retry-After sends the same request again, for ever, and nobody learns "
        "that the book does not exist or the stock is too low.",
        section="What the driver raises",
    )
    await shop.execute(RENAME, step="authors.name has another name, unknown to the app")
    readers = [Request("GET", path, {}) for path in ("/authors", "/catalogue", "/reports/sales")]
    await expect_no_503(app, readers, "authors.name has got another name, so that statements of the app are wrong.")
    await shop.execute(CLOSED, step="a new trigger raises an exception for each change of a book or a review")
    writers = [
        Request("PUT", f"/books/{ids.books[0]}/stock", {"json": {"stock": 90}}),
        Request("PATCH", f"/books/{ids.books[0]}", {"json": {"title": "Changed"}}),
        Request("POST", f"/books/{ids.books[0]}/reviews", {"json": {"customer_id": ids.customers[0], "rating": 5}}),
    ]
    await expect_no_503(app, writers, "A new trigger refuses the change (sqlstate P0001).")


async def test_a_count_is_entered(launch, shop):
    """`PUT /books/{id}/stock` enters the count; 404 for an unknown book, 409 if it differs by more than 100."""
    app = await launch(workers=1)
    ids = await shop.seed(books=8, stock=150)
    # each count for a book of its own, and the last one for a book that has been counted before
    counted = [*zip(ids.books, COUNTS, strict=False), (ids.books[0], (0, 200))]
    for book, (count, status) in counted:
        before = await shop.value(STOCK, book)
        response = await app.put(f"/books/{book}/stock", json={"stock": count})
        after, expected = await shop.value(STOCK, book), count if status == 200 else before
        expect(
            response.status == status and after == expected,
            f"{before} copies are stored and {count} were counted. PUT /books/{book}/stock should return {status} and "
            f"leave {expected}; it returned {response.status} and left {after}.",
            because=WRONG_STOCK,
            section="A leak takes connections from the pool",
        )
    response = await app.put(f"/books/{UNKNOWN}/stock", json={"stock": 150})
    expect(
        response.status == 404,
        f"{response}, expected 404: there is no such book.",
        because="Somebody in the shop has typed a wrong number, and does not hear of it.",
        section="A leak takes connections from the pool",
    )
    changed = await shop.count("books", "stock <> 150 AND NOT id = ANY($1)", [book for book, _ in counted])
    expect(
        changed == 0,
        f"The stock of {plural(changed, 'other book')} has changed, which nobody counted.",
        because=WRONG_STOCK,
        section="A leak takes connections from the pool",
    )


async def test_two_counts_do_not_meet(launch, shop, wire):
    """Of two counts of a book at the same time, the second is compared with what the first has entered."""
    one, other = await launch(workers=1), await launch(workers=1)
    ids = await shop.seed(books=1, stock=150)
    path = f"/books/{ids.books[0]}/stock"
    async with wire.hold("UPDATE") as updates:
        requests = [app.start_request("PUT", path, json={"stock": count}) for app, count in ((one, 60), (other, 240))]
        await both_under_way(shop, requests, updates)
    got = [getattr(response, "status", "no response") for response in await outcomes(requests)]
    stock = await shop.value(STOCK, ids.books[0])
    entered = [count for count, status in zip((60, 240), got, strict=True) if status == 200]
    happened = (
        "150 copies were stored. Two workers got counts of 60 and of 240 at the same time. One of them should get "
        "status 200, and the other one 409 (it differs by 180 from the first) or 503. They got "
        f"{got[0]} and {got[1]}, and {stock} copies are stored."
    )
    expect(
        all(status in (200, 409, 503) for status in got) and (bool(entered) or 409 not in got),
        happened,
        because="Somebody in the shop has counted, and is told that something is wrong with the book or the count.",
        section="A leak takes connections from the pool",
    )
    expect(
        len(entered) <= 1 and stock == (entered or [150])[0],
        happened,
        because="Both counts were compared with a stock that was no longer true. One of the two people has counted "
        "wrong, and nobody counts again.",
        section="A leak takes connections from the pool",
    )


async def test_reports_open_nothing_of_their_own(app, shop, wire):
    """30 reports, one after the other, open no more connections than the budget has."""
    ids = await shop.seed(authors=3, books=5, customers=2, orders=4, lines=3)
    with wire.watching() as seen:
        for _ in range(2):
            responses = [await app.get("/reports/sales") for _ in range(15)]
            wanted = sorted((row["author"], row["cents"]) for row in await shop.rows(SALES))
            for response in responses:
                got = response.ok and sorted((sale["author"], sale["revenue_cents"]) for sale in response.json)
                expect(
                    got == wanted,
                    f"{response}\nThe rows that are stored make {wanted}.",
                    because="The authors are paid by this report.",
                    section="A new engine for each request costs round trips",
                )
            await shop.add("order_lines", order_id=ids.orders[0], book_id=ids.books[0], quantity=3, price_cents=7)
    expect(
        seen.connections_opened <= BUDGET,
        f"30 reports, one after the other, opened {seen.connections_opened} connections; "
        f"{plural(len(wire.connections), 'connection is', 'connections are')} still open.",
        because="To open a connection takes several round trips, a new process of the server and a password check, "
        "which is slow on purpose. Each reader of a report waits for all of it.",
        section="A new engine for each request costs round trips",
    )


# -- requests


def any_data(statement):
    return statement.data


def start(app, door):
    """Sends the request. It may take longer than the ticket allows: `outcomes` looks at the time."""
    return app.start_request(door.method, door.path, timeout=2 * LIMIT, **door.options)


def start_apart(one, other, doors):
    """Sends each request to one of two apps, so that each has a connection, and comes as far as the trouble."""
    return [start(app, door) for app, half in ((one, doors[::2]), (other, doors[1::2])) for door in half]


async def outcomes(requests):
    """For each request its response, the error that broke it off, or None if there is neither after 10 s."""
    tasks = [request.task for request in requests]
    await asyncio.wait(tasks, timeout=LIMIT)
    return [(task.exception() or task.result()) if task.done() else None for task in tasks]


async def a_few_at_a_time(app, doors):
    """Sends the requests, at most 3 at the same time, and returns their outcomes. If one hangs, it sends no more.

    So no request waits for a connection, and a pool's time limit does not measure how busy this machine is.
    """
    free, ended = asyncio.Semaphore(3), {}

    async def send(number, door):
        async with free:
            if None not in ended.values():  # each of the rest would take as long
                [ended[number]] = await outcomes([start(app, door)])

    await asyncio.gather(*(send(number, door) for number, door in enumerate(doors)))
    return [ended[number] for number in sorted(ended)]


def served(response):
    return getattr(response, "ok", False)


def failures(responses):
    return [response for response in responses if not served(response)]


def first(items):
    """The first of these outcomes, in words."""
    if not items:
        return ""
    return f"The first one: {items[0] if items[0] is not None else f'no response after {LIMIT} s'}"


# -- what is expected


def turned_away(response):
    """503, with a Retry-After that a client can read: seconds, or a date of HTTP."""
    if getattr(response, "status", None) != 503:
        return False
    when = response.headers.get("retry-after", "")
    try:
        return when.isdecimal() or parsedate_to_datetime(when) is not None
    except ValueError:
        return False


def expect_turned_away(responses, trouble, kind="requests"):
    wrong = [response for response in responses if not turned_away(response)]
    expect(
        not wrong,
        f"{trouble} {len(wrong)} of {len(responses)} {kind} did not get 503 with a valid Retry-After header. "
        f"{described(wrong)}",
        because=why_wrong(wrong),
        section="What the driver raises",
    )


def repeatable(door):
    """Whether a client may send the request again even if it was carried out."""
    return door.method in ("GET", "PUT")


def expect_unavailable(responses, trouble):
    """As `expect_turned_away`, for requests that a cautious service does not invite a client to repeat."""
    wrong = [response for response in responses if getattr(response, "status", None) not in (503, 504)]
    expect(
        not wrong,
        f"{trouble} {len(wrong)} of {len(responses)} POST and PATCH requests got no 503. {first(wrong)}",
        because=why_wrong(wrong),
        section="What the driver raises",
    )


def expect_served_or_turned_away(responses):
    wrong = [response for response in responses if not served(response) and not turned_away(response)]
    expect(
        not wrong,
        f"Neither served nor given 503 with a valid Retry-After header: {len(wrong)} of {len(responses)} requests. "
        f"{described(wrong)}",
        because=why_wrong(wrong),
        section="A full pool makes requests wait",
    )


def described(wrong):
    """The first of these outcomes, and its Retry-After if that is what is wrong."""
    if wrong and getattr(wrong[0], "status", None) == 503:
        return f"{first(wrong)}, Retry-After: {wrong[0].headers.get('retry-after', 'missing')}"
    return first(wrong)


def why_wrong(wrong):
    outcome = wrong[0] if wrong else None
    status = getattr(outcome, "status", None)
    if isinstance(outcome, NoResponse):
        return (
            "The connection broke before the whole response was there. The client has a part of it, or nothing, and no "
            "status that tells it to come back."
        )
    if status == 503:
        return "A client that does not know when to come back reloads at once, and adds to the trouble."
    if status is not None and status < 400:
        return "The client believes that it was served, although the database could not serve it."
    if status is not None and status < 500:
        return "The client believes that its request was wrong, and does not send it again when the trouble is over."
    return "A 500 says that the service is broken: clients give up, and somebody is called at night to look for a bug."


def expect_all_responded_in_silence(under_way, later, opened, connecting):
    """Fails if there are outcomes of None, and tells where these requests wait.

    In the silence `opened` connections were opened, and at its end the app still waited for `connecting` of them. More
    than the budget shows that waits for a connection end, and make room in the pool.
    """
    hanging = [sum(response is None for response in group) for group in (under_way, later)]
    they_wait = "It waits" if sum(hanging) == 1 else "They wait"
    if hanging[1] and not hanging[0] and opened > BUDGET:
        where, why = f"{they_wait} for a free connection", WAITS_FOR_POOL
    elif hanging[1] and not hanging[0] and connecting:
        where, why = f"The service waits for {plural(connecting, 'new connection')} to open", WAITS_FOR_CONNECT
    else:
        where, why = f"{they_wait} for the response to a statement", WAITS_FOR_STATEMENT
    expect(
        not any(hanging),
        f"The database went silent. After {LIMIT} s there was no response to {hanging[0]} of {len(under_way)} requests "
        f"whose statements were under way, and to {hanging[1]} of {len(later)} that came later. {where}.",
        because=why,
        section="Each wait needs its own limit",
    )


def expect_all_responded(responses, wire):
    """Fails if there are outcomes of None, and tells by the connections where these requests wait."""
    hanging = sum(response is None for response in responses)
    connecting = sum(not connection.status for connection in wire.connections)
    in_statement = sum(bool(connection.status) and not connection.idle for connection in wire.connections)
    in_pool = max(0, hanging - connecting - in_statement)
    where = [
        (in_statement, "waiting for the response to a statement", WAITS_FOR_STATEMENT),
        (connecting, "waiting until a new connection is open", WAITS_FOR_CONNECT),
        (in_pool, "waiting for a free connection", WAITS_FOR_POOL),
    ]
    expect(
        hanging == 0,
        f"{hanging} of {len(responses)} requests had no response after {LIMIT} s: "
        + ", ".join(f"{count} {what}" for count, what, _ in where if count)
        + ".",
        because=next((why for count, _, why in where if count), WAITS_FOR_POOL),
        section="Each wait needs its own limit",
    )


WAITS_FOR_STATEMENT = (
    "PostgreSQL was asked and does not respond, and nothing ends this wait. The client waits for minutes, and its "
    "connection serves nobody else meanwhile."
)
WAITS_FOR_CONNECT = (
    "The service tries to open a connection, and nothing ends this wait. The network reports no error, so clients wait "
    "for a minute or longer before they hear anything."
)
WAITS_FOR_POOL = (
    "All connections are taken, and nothing ends the wait for one in time. Everybody waits, gives up and reloads, so "
    "that the queue grows."
)


async def expect_no_leak(shop, wire, sent):
    """No connection is idle in transaction, and none was thrown away."""
    await wire.wait_idle(2, strict=False)
    dropped = sum(connection.close_reason != "terminate" or connection.status in "TE" for connection in wire.closed)
    idle = await shop.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    expect(
        idle == 0,
        f"{sent}. After them {plural(idle, 'connection is', 'connections are')} idle in transaction.",
        because="A transaction that nobody ends keeps its locks and its connection. When all are taken the service "
        "hangs, until somebody restarts it.",
        section="A leak takes connections from the pool",
    )
    expect(
        dropped == 0,
        f"{sent}. After them {plural(dropped, 'connection was', 'connections were')} thrown away: in the middle of a "
        "transaction, or without being closed.",
        because="Each one has to be opened anew, with a password check and a new process of the server. A connection "
        "that its request does not give back ends like this, when the garbage collector finds it.",
        section="A leak takes connections from the pool",
    )


async def expect_no_503(app, doors, trouble):
    responses = await a_few_at_a_time(app, doors)
    later = [response for response in responses if getattr(response, "status", None) == 503]
    expect(
        not later,
        f"{trouble} {len(later)} of {len(responses)} requests got 503. {first(later)}",
        because="This error lasts until a developer corrects it. Clients that get 503 come back for ever, and an alarm "
        "for 500s stays silent.",
        section="What the driver raises",
    )


async def expect_well(app, doors, trouble=""):
    """Fails if not each request is served: after the trouble, or, without one, before it."""
    responses = await a_few_at_a_time(app, [door for door in doors if not door.writes])
    for door in doors:
        if door.writes and None not in responses:  # in turn: they change the same book, and would wait for each other
            responses += await outcomes([start(app, door)])
    failed = failures(responses)
    expect(
        not failed or trouble,
        f"Before the check made any trouble, {len(failed)} of {len(responses)} requests failed. {first(failed)}",
        because="These requests fail while the database is well, so people in the shop never get what they ask for.",
        section="See it break",
    )
    expect(
        not failed,
        f"Before, {trouble}. That is over, and {len(failed)} of {len(responses)} requests failed. {first(failed)}",
        because="The cause is gone, and the service still fails. For people in the shop the trouble goes on.",
        section="A fail-over leaves dead connections in the pool",
    )


async def both_under_way(shop, requests, updates):
    """Returns when each request has sent its UPDATE, waits for a lock, or has its response."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    for _ in range(100):
        ended = sum(request.task.done() for request in requests)
        if len(updates.waiting) + ended + await shop.value(waiting) >= len(requests):
            return
        await asyncio.sleep(0.02)  # between two looks at pg_stat_activity


async def connections_at_work(app, busy, wire):
    """How many connections are open while their statements are held."""
    await busy.count_within(BUDGET, 1)
    await busy.count_within(BUDGET + 1, 0.5)
    counted = []
    for _ in range(2):  # one that was opened may be counted before the one is gone whose place it takes
        await app.flush()
        counted.append(sum(bool(connection.parameters) for connection in wire.connections))  # no request to cancel
    return min(counted)


async def some_responded(requests, count):
    """Returns when so many of the requests have a response, or after 2 seconds."""
    waiting = {request.task for request in requests}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            while len(requests) - len(waiting) < count:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


async def stored(shop):
    return {table: await shop.count(table) for table in ("books", "orders", "order_lines", "reviews")}


async def everything(shop):
    """The rows of each table that requests may change."""
    tables = ("books", "customers", "reviews", "orders", "order_lines")
    return {table: await shop.rows(f"SELECT * FROM {table} ORDER BY id") for table in tables}


async def read_export(app):
    """Status and rows of the export."""
    async with app.stream("/export/books.csv") as stream:
        return [stream.status, *csv.reader(io.StringIO(await stream.rest(), newline=""))]


# -- the shop

WORLD = {"authors": 2, "books": 5, "customers": 3, "reviews": 4, "orders": 3}
UNKNOWN = 999_999
COUNTS = [(50, 200), (250, 200), (49, 409), (251, 409), (150, 200), (151, 200), (0, 409)]
"""What is counted where 150 copies are stored, and the status for it."""
WRONG_STOCK = "The shop sells copies that it does not have, or has copies that it does not sell."
STOCK = "SELECT stock FROM books WHERE id = $1"
SALES = """
    SELECT a.name AS author, sum(l.quantity * l.price_cents) AS cents
      FROM authors a JOIN books b ON b.author_id = a.id JOIN order_lines l ON l.book_id = b.id GROUP BY a.id"""
EXPORT = """
    SELECT b.id, b.isbn, b.title, a.name, b.price_cents, b.stock FROM books b JOIN authors a ON a.id = b.author_id"""
LONG_TITLES = "UPDATE books SET title = title || repeat(' and more', 110)"
"""Makes the export larger than what is on its way while a client pauses."""
NO_THIRTEEN = "ALTER TABLE books ADD CONSTRAINT no_thirteen CHECK (stock <> 13) NOT VALID"
RENAME = "ALTER TABLE authors RENAME COLUMN name TO pen_name"
CLOSED = """
    CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'closed today'; END $$;
    CREATE TRIGGER closed BEFORE UPDATE ON books FOR EACH ROW EXECUTE FUNCTION closed();
    CREATE TRIGGER closed BEFORE INSERT ON reviews FOR EACH ROW EXECUTE FUNCTION closed()"""
EXPORTED = ["id", "isbn", "title", "author", "price_cents", "stock"]

# To read this row takes long; to read or change another one does not. The database is not used again: a function
# is a change of its schema.
SLOW_BOOK = """
    CREATE FUNCTION slowly() RETURNS boolean LANGUAGE sql AS 'SELECT pg_sleep({seconds}) IS NOT NULL';
    CREATE POLICY everything ON books USING (true);
    CREATE POLICY one_is_slow ON books AS RESTRICTIVE FOR SELECT
        USING (CASE WHEN id = {id} THEN slowly() ELSE true END);
    ALTER TABLE books ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"""


class Request(NamedTuple):
    """A request to send: `options` are those of `app.request`."""

    method: str
    path: str
    options: dict


def failing_requests(ids):
    """Requests that can never succeed, and the status that each one gets."""
    book, customer = ids.books[0], ids.customers[0]
    taken = "9780000000001"

    def order(customer_id, *lines):
        return {"customer_id": customer_id, "lines": [{"book_id": b, "quantity": n} for b, n in lines]}

    def review(customer_id):
        return {"customer_id": customer_id, "rating": 5, "body": "good"}

    new = {"isbn": "9781111111111", "title": "New", "price_cents": 900}
    requests = [
        ("PUT", f"/books/{UNKNOWN}/stock", {"stock": 3}, 404),
        ("PUT", f"/books/{ids.books[2]}/stock", {"stock": 1000}, 409),
        ("PUT", f"/books/{book}/stock", {"stock": -1}, 422),
        ("POST", "/orders", order(customer, (UNKNOWN, 1)), 404),
        ("POST", "/orders", order(customer, (book, 1), (ids.books[1], 1000)), 409),
        ("POST", "/orders", order(UNKNOWN, (book, 1)), 409),
        ("POST", "/orders", order(customer), 422),
        ("POST", f"/books/{UNKNOWN}/reviews", review(customer), 404),
        ("POST", f"/books/{book}/reviews", review(UNKNOWN), 409),
        ("POST", "/books", new | {"author_id": UNKNOWN}, 409),
        ("PATCH", f"/books/{book}", {"isbn": taken}, 409),
        ("PATCH", f"/books/{UNKNOWN}", {"title": "Changed"}, 404),
        ("GET", f"/books/{UNKNOWN}", None, 404),
        ("GET", f"/customers/{UNKNOWN}", None, 404),
        ("GET", f"/orders/{UNKNOWN}", None, 404),
    ]
    return [(Request(method, path, {"json": body} if body else {}), status) for method, path, body, status in requests]


def refused_by_the_database(ids):
    """Requests whose statements PostgreSQL refuses after NO_THIRTEEN and RENAME."""
    counts = [Request("PUT", f"/books/{book}/stock", {"json": {"stock": 13}}) for book in ids.books[:3]]
    return counts + [Request("GET", path, {}) for path in ("/authors", "/reports/sales", "/export/books.csv")]
