"""Lesson 10: what must not change. The API as its clients know it, and orders that are stored whole or not at all."""

import asyncio

from checks.kit.report import expect
from checks.kit.testbed.invariants import assert_the_shop_adds_up, read_ledger
from checks.kit.testbed.waiting import refused_a_lock
from checks.lesson_10.contract import (
    EXPECTED,
    REFUSED,
    TABLES,
    good_requests,
    line_of,
    lines,
    refused_requests,
    requests_without_database,
    tables_of,
)
from checks.lesson_10.shopping import WAYS, Customer

WORKER = "HTTPException outside of HTTP"


async def test_the_api_responds_as_before(app, endpoints, provider, shop, testbed, wire):
    """Each endpoint has the statuses and fields that it had, for requests that work and for those that are refused."""
    if await shop.value("SELECT version_num FROM alembic_version") == "0011":
        changed = sorted(set(await tables_of(shop)) ^ set(TABLES))
        expect(
            not changed,
            f"Your migrations made a database at revision 0011. {len(changed)} lines differ between its tables and "
            f"those of production, which is at 0011, too. The first one: {changed[0] if changed else ''}",
            because="Production has run these migrations, and does not run them again. The app starts there, and fails "
            "at the first request to a column that is not there.",
            section=WORKER,
        )
    ids, customer = await members(shop, testbed)
    found = [line_of(label, response) async for label, response in good_requests(app, endpoints, ids, customer, shop)]
    found += [line_of(label, response) async for label, response in refused_requests(app, ids, customer, provider)]
    broken = requests_without_database(app, ids, customer, shop, wire)
    found += [line_of(label, response) async for label, response in broken]
    known = {line.partition(" → ")[0]: line for line in EXPECTED}
    different = [line for line in found if line != known.get(line.partition(" → ")[0])]
    first = different[0] if different else ""
    expect(
        not different,
        f"{len(different)} of {len(found)} requests have another response than before. The first one is now\n"
        f"{first}\nIt was\n{known.get(first.partition(' → ')[0], 'not there')}",
        because="The shop's own app and those of partners rely on the responses as they were.",
        section=WORKER,
    )


async def test_a_refused_order_leaves_nothing(app, provider, shop, testbed):
    """A refused order, gift or checkout changes nothing: no row, no stock, and no Idempotency-Key is used up."""
    ids, customer = await members(shop, testbed)
    before = await everything(shop)
    for way in WAYS:
        for label, bought in REFUSED.items():
            response = await customer.ask(app, way, bought(ids.books))
            expect(
                not response.ok,
                f"{way} {label}: {response}. Expected: a refusal.",
                because="The shop accepts an order that it cannot deliver, or that the customer cannot pay.",
                section=WORKER,
            )
            after = await everything(shop)
            expect(
                after == before,
                f"{way} {label} was refused with status {response.status}. It has changed "
                f"{', '.join(name for name in after if after[name] != before.get(name))}.",
                because=HALF,
                section=WORKER,
            )
    key = customer.headers | {"Idempotency-Key": "a basket that is repaired"}
    refused = await app.post("/orders", json=REFUSED["with a second line of no book"](ids.books), headers=key)
    repaired = await app.post("/orders", json=lines(ids.books[0], 1), headers=key)
    expect(
        not refused.ok and repaired.status == 201,
        f"One Idempotency-Key, first with a basket that is refused: {refused}. Then with a good one: {repaired}. "
        "Expected: 201.",
        because="The customer removes the book that is sold out, tries again, and is refused again.",
        section=WORKER,
    )
    orders = await shop.count("orders")
    again = await app.post("/orders", json=lines(ids.books[0], 1), headers=key)
    expect(
        again.repeats(repaired) and await shop.count("orders") == orders,
        f"The same order came again with its Idempotency-Key. First: {repaired}. Then: {again}. Expected: the same "
        "response, and no second order.",
        because="A customer whose connection broke sends the order again, and pays twice.",
        section=WORKER,
    )


async def test_orders_at_once_are_taken_as_one_by_one(app, shop, testbed, wire):
    """Orders at the same time sell no copy twice, exceed no credit, and cause no deadlock."""
    ids, customer = await members(shop, testbed)
    both = [customer, Customer(ids.customers[1], [], testbed.lesson.env["JWT_SECRET"])]
    await shop.execute("UPDATE books SET stock = 3", step="three copies of each book are left")
    before = await read_ledger(shop)
    there, back = ({"lines": [*lines(one, 1)["lines"], *lines(other, 1)["lines"]]} for one, other in turns(ids.books))
    with wire.watching() as seen:
        async with wire.latency(0.02):
            crowd = await asyncio.gather(
                *(both[n % 2].ask(app, "POST /orders", (there, back)[n % 2]) for n in range(CROWD))
            )
    accepted = sum(response.ok for response in crowd)
    expect(
        accepted == 3,
        f"There were 3 copies of each of two books. Of {CROWD} orders at the same time for one copy of each, "
        f"{accepted} were accepted. Expected: 3. {next((r for r in crowd if r.status not in (201, 409)), '')}",
        because="The shop sells books that it does not have, or sends customers away from books that it has.",
        section=WORKER,
    )
    await assert_the_shop_adds_up(shop, before)
    deadlocks = sum(
        statement.error is not None and statement.error.sqlstate == "40P01" for statement in seen.statements
    )
    expect(
        not deadlocks,
        f"{CROWD} orders came at the same time for the same two books, some in the one order and some in the other. "
        f"PostgreSQL ended {deadlocks} of them, for they waited for each other (SQLSTATE 40P01). Expected: none.",
        because="Each time, customers wait for a second, and one of them has to begin anew.",
        section=WORKER,
    )
    await shop.execute("UPDATE books SET stock = 100, price_cents = 1000, discount_percent = 0")
    owed = await shop.value(OWED, customer.id)
    await shop.execute("UPDATE customers SET credit_cents = $1", owed + 1500, step="there is credit for one more order")
    responses = await committing_together(
        wire, shop, *(lambda book=book: ask(app, customer, lines(book, 1)) for book in ids.books)
    )
    accepted = sum(response.ok for response in responses)
    expect(
        accepted == 1,
        f"A customer had credit for one order of 1000 cents. Of {len(responses)} orders at the same time, each for "
        f"another book, {accepted} were accepted. Expected: 1.",
        because="The customer owes more than the shop lends, and may never pay it.",
        section=WORKER,
    )


def turns(books):
    return (books[0], books[1]), (books[1], books[0])


def ask(app, customer, body):
    return app.start_request("POST", "/orders", **customer.options("POST /orders", body))


async def committing_together(wire, shop, *sends):
    """The responses to orders whose COMMITs wait, after PostgreSQL's checks, until all are as far as they can be."""
    await shop.execute(
        WAIT_IN_COMMIT, step="each COMMIT of an order waits until the others have come as far as they can"
    )
    await shop.execute("SELECT pg_advisory_lock(10)")
    try:
        with wire.watching() as seen:
            requests = [send() for send in sends]
            while under_way := [request.task for request in requests if not request.task.done()]:
                blocked = await shop.value(BLOCKED)
                if blocked >= len(under_way) or (blocked and refused_a_lock(seen)):
                    break
                await asyncio.wait(under_way, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await shop.execute("SELECT pg_advisory_unlock(10)")
    return [await request for request in requests]


async def members(shop, testbed):
    """A shop with rows of all kinds, and a customer with the credit that there is by default."""
    ids = await shop.seed(books=3, customers=2, reviews=2, orders=2, stock=1000)
    await shop.execute("DELETE FROM reviews WHERE customer_id = $1", ids.customers[0])
    return ids, Customer(ids.customers[0], [], testbed.lesson.env["JWT_SECRET"])


async def everything(shop):
    """What each table holds, as one text."""
    names = [row["tablename"] for row in await shop.rows(NAMES)]
    return {name: await shop.value(CONTENT.format(name)) for name in names}


HALF = "The customer was told that there is no order. Books that nobody gets are out of stock, or an invoice follows."

CROWD = 8

OWED = """
    SELECT coalesce(sum(l.quantity * l.price_cents), 0)::int
      FROM orders o JOIN order_lines l ON l.order_id = o.id
     WHERE o.customer_id = $1 AND o.status NOT IN ('paid', 'cancelled')
"""

BLOCKED = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""

WAIT_IN_COMMIT = """
    CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(10);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER zz_wait AFTER INSERT ON order_lines DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_in_commit()
"""
"""Triggers fire in the order of their names, so the check of the credit comes first."""

CONTENT = 'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM "{}" t'
NAMES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
