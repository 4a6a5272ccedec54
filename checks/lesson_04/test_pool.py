"""Lesson 04: connections are few and shared, nothing waits without a limit, and trouble passes."""

import asyncio
import csv
import io
from contextlib import AsyncExitStack

import pytest

from checks.kit.holding import answered_meanwhile, at_rest
from checks.kit.report import expect
from checks.kit.service import NoAnswer

pytestmark = pytest.mark.alone  # the lesson is about time limits, some of them of a second

BUDGET = 20
"""Connections that the ticket allows to the whole service, which runs in two workers."""
LIMIT = 10
"""Seconds in which everybody has an answer, as the ticket promises."""


async def test_the_service_stays_within_its_budget(app, shop, wire):
    """Sixty requests at once, whatever they ask for, open no more than 20 connections between both workers."""
    there = await shop.has(books=5, customers=5, orders=5)
    paths = [
        f"/books/{there.books[0]}",
        "/dashboard",
        "/reports/sales",
        "/catalogue",
        "/customers/1/orders",
        "/authors",
    ]
    async with wire.latency(0.02):
        with wire.watching() as seen:
            answers = await asyncio.gather(*(app.get(path) for path in paths * 10))
    well = sum(answer.status == 200 for answer in answers)
    expect(well > 0, f"None of 60 requests was answered well. {first(answers)}", because=QUEUE, read="The budget")
    expect(
        seen.peak_connections <= BUDGET,
        f"{seen.peak_connections} connections were open at the same time; the budget is {BUDGET}.",
        because="Each connection is a process of the server, with its memory, and max_connections counts for all "
        "services together. A pool belongs to one engine of one process: how many of both does the service have, and "
        "what is the largest number that each may open?",
        read="The budget",
    )


async def test_the_service_uses_what_it_may(app, shop, wire):
    """Of sixty requests at once, at least five are at the database at the same time."""
    there = await shop.has(books=1)
    async with wire.hold("FROM books") as busy:
        requests = [app.sending("GET", f"/books/{there.books[0]}") for _ in range(60)]
        arrived = await busy.arrived(5)
    await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    expect(
        arrived >= 5,
        f"{arrived} of 60 requests reached the database at the same time.",
        because="A connection that waits for an answer serves nobody else. By Little's law, requests per second are "
        "connections divided by the seconds that each is taken; the machine's cores do not come into it while "
        "statements wait.",
        read="Little's law",
    )


async def test_whoever_finds_no_connection_hears_it(app, shop, wire):
    """When all connections are busy, others read 503 with Retry-After, soon; the busy ones end well."""
    there = await shop.has(books=1)
    async with wire.hold("FROM books") as busy:
        requests = [app.sending("GET", f"/books/{there.books[0]}", timeout=2 * LIMIT) for _ in range(60)]
        away = await answered_meanwhile(requests, busy, LIMIT)
        at_work = len(busy.waiting)
    late = await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    waited = 60 - len(away) - at_work
    expect(
        away and not waited,
        f"{at_work} requests were at the database, {len(away)} had been turned away, and {waited} still waited for "
        f"a connection after {LIMIT} s.",
        because=QUEUE,
        read="The queue in front of the pool",
    )
    expect_busy(away)
    well = [answer for answer in late if getattr(answer, "status", None) == 200]
    expect(
        len(well) == at_work,
        f"{at_work} requests were at the database when the statements went on; {len(well)} of them were answered 200.",
        because="Who has a connection is not at fault that others have none.",
        read="The queue in front of the pool",
    )


async def test_cut_connections_fail_nobody(app, shop, wire):
    """After all connections of the pool were cut, as in a fail-over, no reading request fails."""
    there = await shop.has(books=1)
    path = f"/books/{there.books[0]}"
    async with wire.latency(0.02):
        await asyncio.gather(*(app.get(path) for _ in range(30)))
    await wire.calm()
    await wire.cut()
    await app.caught_up()
    answers = await asyncio.gather(*(app.get(path) for _ in range(30)))
    failed = [answer for answer in answers if answer.status != 200]
    expect(
        not failed,
        f"{len(failed)} of 30 requests after the cut failed: {first(failed)}",
        because="A pool hands out what it has, and does not know that the other end is gone. The first failure makes "
        "it replace the rest, so that few requests fail, and each time different ones. Somebody has to try before "
        "the request does: what would a question at each checkout cost, and buy?",
        read="A fail-over",
    )


async def test_a_restarting_database_is_a_503(app, shop, wire):
    """While the database refuses connections, clients read 503 with Retry-After; afterwards all is well at once."""
    there = await shop.has(books=1)
    path = f"/books/{there.books[0]}"
    await app.get(path)
    await wire.calm()
    for how in ("starting_up", "reset"):
        async with wire.refusing(how):
            await wire.cut()
            await app.caught_up()
            expect_busy(await asyncio.gather(*(app.get(path) for _ in range(10))))
    await expect_well(app, path)


async def test_a_silent_database_is_a_503(app, shop, wire):
    """When the database goes silent, everybody reads 503 within ten seconds; when it is back, so is the shop."""
    there = await shop.has(books=1)
    path = f"/books/{there.books[0]}"
    async with wire.latency(0.02):
        await asyncio.gather(*(app.get(path) for _ in range(30)))
    await wire.calm()
    async with wire.black_hole():
        answers = await asyncio.gather(*(soon(app, path) for _ in range(30)))
    expect_answered(answers, "Network trouble sends no error: the packets are gone and TCP waits for many minutes.")
    expect_busy(answers)
    await expect_well(app, path)


async def test_a_locked_table_is_a_503(app, shop):
    """Behind a lock, as of a migration, readers get 503 within ten seconds and leave no statement behind."""
    there = await shop.has(books=1)
    path = f"/books/{there.books[0]}"
    await app.get(path)
    async with shop.lock("books"):
        answers = await asyncio.gather(*(soon(app, path) for _ in range(30)))
        left = await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    expect_answered(
        answers, "A statement waits for a lock as long as it takes, unless somebody told PostgreSQL not to."
    )
    expect_busy(answers)
    expect(
        left == 0,
        f"All were answered, and {left} statements still wait on the server.",
        because="A client that gives up does not stop its statement: the server has to know the limit as well.",
        read="Silence",
    )
    await expect_well(app, path)


async def test_slow_readers_starve_nobody(launch, shop, wire):
    """Thirty clients that pause in the middle of the export take no connection from anybody."""
    app = await launch(workers=1)
    await shop.has(books=4000)
    await shop.execute("UPDATE books SET title = title || repeat(' and more', 30)")
    async with AsyncExitStack() as readers:
        await asyncio.gather(*(readers.enter_async_context(app.reading("/export/books.csv")) for _ in range(30)))
        await at_rest(app, wire)
        held = sum(connection.status in "TE" for connection in wire.connections)
        answers = await asyncio.gather(*(soon(app, "/books/1") for _ in range(5)))
    well = [answer for answer in answers if getattr(answer, "status", None) == 200]
    expect(
        held <= BUDGET and len(well) == 5,
        f"While 30 clients paused, {held} connections of the one worker that runs here were inside a transaction, and "
        f"{len(well)} of 5 other requests were answered.",
        because="A client on a train reads for minutes. As long as the answer is made while it is sent, the connection "
        "waits for the train. How can a piece be read, the connection given back, and then the piece be sent?",
        read="A slow reader",
    )


async def test_an_export_is_complete(app, shop):
    """`GET /export/books.csv` holds every book once, with a head line."""
    there = await shop.has(authors=3, books=2500)
    async with app.reading("/export/books.csv") as reader:
        rows = list(csv.reader(io.StringIO(await reader.rest())))
    expect(
        reader.status == 200 and rows[0] == ["id", "isbn", "title", "author", "price_cents", "stock"],
        f"GET /export/books.csv → {reader.status}, first line {rows[:1]}",
        because=WHOLE,
        read="A slow reader",
    )
    ids = sorted(int(row[0]) for row in rows[1:])
    expect(
        ids == there.books,
        f"{len(there.books)} books are stored; the file has {len(ids)} lines, {len(set(ids))} different ones.",
        because=WHOLE,
        read="A slow reader",
    )


async def test_failing_requests_leak_nothing(app, shop, wire):
    """Two hundred requests that fail cost no connection, and leave no transaction open."""
    there = await shop.has(books=1)
    answers = []
    for _ in range(20):
        requests = (app.put("/books/999999/stock", json={"stock": 3}) for _ in range(10))
        answers += await asyncio.gather(*requests, return_exceptions=True)
    unknown = sum(getattr(answer, "status", None) == 404 for answer in answers)
    await wire.calm(2)
    thrown_away = sum(connection.farewell != "terminate" for connection in wire.closed)
    idle = await shop.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    expect(
        thrown_away == idle == 0 and unknown == 200,
        f"Of 200 requests for an unknown book {unknown} ended with 404. After them {idle} connections are idle in "
        f"transaction, and {thrown_away} were thrown away without a word to PostgreSQL.",
        because="What is taken by hand must be given back by hand, on every way out. What is forgotten is found by the "
        "garbage collector at best, which can only throw the connection away. Which block gives back by itself?",
        read="A leak",
    )
    await expect_well(app, f"/books/{there.books[0]}")


async def test_a_count_is_entered(app, shop):
    """`PUT /books/{id}/stock` enters the count; 404 for unknown books, 409 for a difference of more than 100."""
    there = await shop.has(books=1, stock=150)
    path = f"/books/{there.books[0]}/stock"
    statuses = [(await app.put(path, json={"stock": stock})).status for stock in (140, 10)]
    stored = await shop.value("SELECT stock FROM books")
    expect(
        statuses == [200, 409] and stored == 140,
        f"150 in stock, then 140 and 10 were entered: answered {statuses}, stored {stored}.",
        because=WHOLE,
        read="A leak",
    )


async def test_reports_open_nothing_of_their_own(app, shop, wire):
    """Forty reports, one after the other, open no more connections than the budget has."""
    await shop.has(authors=2, books=2, customers=1, orders=2)
    with wire.watching() as seen:
        for _ in range(40):
            answer = await app.get("/reports/sales")
    sales = {sale["author"]: sale["revenue_cents"] for sale in answer.json}
    expect(
        answer.status == 200 and sales == {"Author 0": 1000, "Author 1": 1000},
        f"{answer}",
        because=WHOLE,
        read="An engine for each request",
    )
    expect(
        seen.connections_opened <= BUDGET,
        f"40 reports opened {seen.connections_opened} connections.",
        because="Opening one costs several round trips, a process of the server, and the password check, which is made "
        "to be slow. A pool is what an engine keeps: how long does this engine live?",
        read="An engine for each request",
    )


def first(answers):
    return str(answers[0]) if answers else ""


async def soon(app, path):
    try:
        return await app.get(path, timeout=LIMIT)
    except NoAnswer as error:
        return error


def expect_answered(answers, because):
    hanging = [answer for answer in answers if isinstance(answer, NoAnswer)]
    expect(
        not hanging,
        f"{len(hanging)} of {len(answers)} requests had no answer after {LIMIT} s.",
        because=f"{because} Which waiting has no limit, and who must keep it: the pool, the driver, or the server?",
        read="Silence",
    )


def expect_busy(answers):
    wrong = [answer for answer in answers if answer.status != 503 or "retry-after" not in answer.headers]
    expect(
        not wrong,
        f"{len(wrong)} of {len(answers)} answers are no 503 with Retry-After. {first(wrong)}",
        because="A 500 says that the service is broken, and a human looks. A 503 with Retry-After says when to come "
        "back, and a load balancer does. Which exceptions mean that it will pass?",
        read="What the driver raises",
    )


async def expect_well(app, path):
    answers = await asyncio.gather(*(soon(app, path) for _ in range(30)))
    failed = [answer for answer in answers if getattr(answer, "status", None) != 200]
    expect(
        not failed,
        f"The trouble is over, and {len(failed)} of 30 requests fail: {first(failed)}",
        because="What broke while the database was away must not be handed out when it is back.",
        read="A fail-over",
    )


WHOLE = "The new pages have to be right as well."
QUEUE = (
    "A queue without a limit is where a service dies: everybody waits, gives up, and asks again. A pool can say no "
    "after a moment; by default it waits for 30 s and then raises an error that nobody translates."
)
