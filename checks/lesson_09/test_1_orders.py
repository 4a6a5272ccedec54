"""Lesson 09: mail that is sent in the background. Here: which orders are confirmed."""

import asyncio
from collections import Counter

import pytest

from checks.kit.report import expect
from checks.kit.testbed.waiting import wait_quiescent
from checks.lesson_09.buyer import NO_MAIL, TWICE, WAYS, key_of, order_of
from checks.lesson_09.kills import nth_commit
from checks.lesson_09.workers import sent_by

WHERE = "Before, after or in the transaction"
NO_ORDER = "The customer has a confirmation of an order that does not exist, and waits for books that nobody will send."
OUTCOME = "The client must learn what became of the payment."
FROM_THE_GATEWAY = "A wrong address, order or total reaches a customer. Without a key, a repeated mail arrives twice."


async def test_each_order_is_confirmed_by_one_mail(app, buyer, gateway, provider, shop, wire, workers):
    """Each order, gift and paid checkout gets one mail, which says what was ordered; an unpaid one gets none."""
    worker = await workers.start()
    async with wire.hold(sent_by(worker.name)):
        bought = [await buyer.buy(app, way, quantity) for quantity, way in enumerate(WAYS, 2)]
        await shop.execute("UPDATE books SET price_cents = price_cents + 1", step="all prices rise")
    provider.respond_next(status=402, json={"reason": "refused"})
    refused = await buyer.ask(app, "POST /checkout")
    expect(refused.status == 402, f"The card was refused: {refused}. Expected: 402.", because=OUTCOME, section=WHERE)
    provider.respond_next(status=500)
    unknown = await buyer.ask(app, "POST /checkout")
    expect(
        unknown.status == 202,
        f"The outcome of the payment is not known: {unknown}. Expected: 202.",
        because=OUTCOME,
        section=WHERE,
    )
    await workers.settled()
    early = [call for call in gateway.calls if order_of(call) == unknown["id"]]
    expect(
        not early,
        f"The payment of order {unknown['id']} has no outcome yet, and its mail was sent. Expected: no mail.",
        because=NO_ORDER,
        section=WHERE,
    )
    for _ in range(2):
        await app.post(f"/checkout/{unknown['id']}", headers=buyer.headers)
    provider.respond_next(status=500)
    doubtful = await buyer.ask(app, "POST /checkout")
    provider.respond_next(status=402, json={"reason": "refused"})
    await app.post(f"/checkout/{doubtful['id']}", headers=buyer.headers)
    await shop.load(
        refusing("payments", event="UPDATE", deferred=True), "from now on, the COMMIT of a payment's outcome fails"
    )
    await buyer.ask(app, "POST /checkout")
    unrecorded = await shop.value("SELECT max(id) FROM orders WHERE customer_id = $1", buyer.id)
    await shop.load(ALLOWED, "outcomes are stored again")
    await app.post(f"/checkout/{unrecorded}", headers=buyer.headers)
    bought += [await buyer.buy(app, key="a double click") for _ in range(2)]
    for key in ("", "a key"):
        await shop.load(refusing("orders", **ONCE), "PostgreSQL rolls back the next order at its COMMIT, once (40001)")
        bought.append(await buyer.buy(app, key=key))
        await shop.load(ALLOWED, "orders are stored again")
    expected = {one.order_id: one.total_cents for one in bought}
    expected |= {unknown["id"]: unknown["total_cents"]} | await confirmed_orders(shop, buyer)
    await workers.send(gateway, *expected)
    expect_one_mail_each(gateway, expected, WHERE)
    for call in gateway.calls:
        order = order_of(call)
        right = {
            "to": buyer.email,
            "template": "order_confirmation",
            "data": {"order_id": order, "total_cents": expected[order]},
        }
        expect(
            (call.method, call.path) == ("POST", "/messages") and call.json == right and bool(key_of(call)),
            f"The mail about order {order} was sent as {call}. Expected: POST /messages with {right}, and with the "
            "header Idempotency-Key.",
            because=FROM_THE_GATEWAY,
            section="See it break",
        )


async def test_an_order_that_is_not_stored_sends_no_mail(app, buyer, gateway, shop, workers):
    """No mail is sent for an order that was refused, whether before its COMMIT or by it."""
    await workers.start()
    unknown, too_many = {"book_id": 2**40, "quantity": 1}, {"book_id": buyer.books[1], "quantity": 100_000}
    first = {"book_id": buyer.books[0], "quantity": 1}
    for way in WAYS:
        for second in (unknown, too_many):
            await expect_refused(app, buyer, way, "with a second line that cannot be served", lines=[first, second])
    await shop.load(refusing("gifts"), "from now on, PostgreSQL refuses to insert a gift")
    await expect_refused(app, buyer, "POST /gifts", "when its last INSERT fails")
    await shop.load(ALLOWED, "gifts are stored again")
    await shop.load(refusing("orders", deferred=True), "from now on, the COMMIT of a new order fails")
    for way in WAYS:
        await expect_refused(app, buyer, way, "when the COMMIT fails")
    await expect_refused(app, buyer, "POST /orders", "with a key, when the COMMIT fails", key="a key")
    await shop.load(ALLOWED, "orders are stored again")
    await shop.load(
        refusing("payments", event="UPDATE", deferred=True), "from now on, the COMMIT of a payment's outcome fails"
    )
    await buyer.ask(app, "POST /checkout")
    await shop.load(ALLOWED, "outcomes are stored again")
    await workers.settled()
    good = {(await buyer.buy(app, key=key)).order_id for key in ("", "a key")}
    await workers.send(gateway, *good)
    stray = sorted({order_of(call) for call in gateway.calls} - good)
    expect(
        not stray,
        f"{len(stray)} of {len({order_of(call) for call in gateway.calls})} mails confirmed something that is not "
        f"stored, or not paid: orders {', '.join(map(str, stray))}.",
        because=NO_ORDER,
        section=WHERE,
    )


@pytest.mark.start_early
async def test_a_stored_order_is_confirmed_even_if_the_app_dies(
    another_buyer, buyer, gateway, launch, provider, shop, wire, workers
):
    """An order whose COMMIT has taken effect gets its mail, even if the app ends before it learns of that."""
    worker = await workers.start()
    app = await launch()

    async def expect_mail(when):
        stored = await confirmed_orders(shop, buyer) | await confirmed_orders(shop, another_buyer)
        await workers.send(gateway, *stored)
        expect_one_mail_each(gateway, stored, WHERE, when)

    async with wire.hold(nth_commit(app.process.name, 1)) as commits:
        request = buyer.start(app, "POST /orders")
        await commits.wait_for()
        await another_buyer.buy(app)  # its rows have higher numbers, and are stored earlier
        await workers.send(gateway, *await confirmed_orders(shop, another_buyer))
        await request.disconnect()  # a client that hangs up while its order is stored
    await wait_quiescent(app, wire)
    await expect_mail("An order was stored after one that was begun later, and its client had hung up")
    # the first COMMIT of a checkout reserves the books; no handler goes on after a COMMIT without a response
    requests, numbers = (
        (("POST /orders", ""), ("POST /orders", "another key"), ("POST /gifts", ""), ("POST /checkout", "")),
        (1, 2, 3, 5),
    )
    started = []
    async with wire.lost_response(commits_of(app.process.name, numbers)) as lost:
        for number, (way, key) in enumerate(requests, 1):
            started.append(buyer.start(app, way, key=key))
            while lost.count < number and not started[-1].task.done():
                await asyncio.wait({started[-1].task}, timeout=0.01)
        await app.process.kill()
    for request in started:
        await request.disconnect()
    app = await launch()
    await expect_mail("The app was killed when the COMMIT of an order had taken effect")
    provider.respond_next(status=500)
    unknown = await buyer.ask(app, "POST /checkout")
    async with provider.hold() as held:
        tries = [app.start_request("POST", f"/checkout/{unknown['id']}", headers=buyer.headers) for _ in range(2)]
        await held.arrived(2)
    for request in tries:
        await request
    await expect_mail("Two requests tried one payment at the same time")
    if tables := await tables_of_mail(app, buyer, gateway, shop, wire, worker, workers):
        await shop.load(refusing(*tables), f"from now on, PostgreSQL refuses rows for {', '.join(tables)}")
        for way, key in (*((way, "") for way in WAYS), ("POST /orders", "a key")):
            await buyer.ask(app, way, key=key)
        await shop.load(ALLOWED, "they are stored again")
        await expect_mail(
            f"PostgreSQL refused rows for {', '.join(tables)} while orders were placed. Expected: an order whose "
            "mail is not stored is not stored either"
        )


async def test_a_sale_does_not_wait_for_the_gateway(app, buyer, gateway, workers):
    """The app itself sends no mail: orders are taken while the gateway does not respond and no worker runs."""
    async with gateway.hold() as held:
        for way in WAYS:
            response = await buyer.ask(app, way)
            expect(
                response.status == 201,
                f"The gateway did not respond. {way}: {response}. Expected: 201.",
                because="While the mail gateway is slow or down, the shop sells nothing.",
                section="See it break",
            )
        await app.flush()
        await workers.until(lambda: bool(held.calls), 1)
    expect(
        not gateway.calls,
        f"No worker ran, and the app itself called the gateway {len(gateway.calls)} times. Expected: never.",
        because="What the app sends by itself ends with the app: each deploy loses mail. And a gateway that is slow "
        "makes each sale slow.",
        section=WHERE,
    )


def expect_one_mail_each(gateway, expected, section, when=""):
    """The gateway has got one mail for each of these orders, and no other mail."""
    found = Counter(order_of(call) for call in gateway.calls)
    before = f"{when}. " if when else ""
    missing = sorted(set(expected) - set(found))
    expect(
        not missing,
        f"{before}{len(missing)} of {len(expected)} orders got no mail: {', '.join(map(str, missing))}.",
        because=NO_MAIL,
        section=section,
    )
    stray = sorted(set(found) - set(expected))
    expect(
        not stray,
        f"{before}A mail was sent for {', '.join(map(str, stray))}, which is no order that is stored and confirmed.",
        because=NO_ORDER,
        section=section,
    )
    twice = {order: count for order, count in found.items() if count > 1}
    expect(
        not twice,
        f"{before}The gateway got more than one mail for {len(twice)} of {len(expected)} orders: "
        + ", ".join(f"{count} for {order}" for order, count in sorted(twice.items()))
        + ".",
        because=TWICE,
        section=section,
    )


async def expect_refused(app, buyer, way, when, **more):
    """The request gets no 2xx; otherwise what follows would prove nothing."""
    response = await buyer.ask(app, way, **more)
    expect(not response.ok, f"A request {when}: {response}. Expected: a refusal.", because=NO_ORDER, section=WHERE)


async def confirmed_orders(shop, buyer):
    """The customer's orders that must be confirmed, with their totals."""
    return {row["id"]: int(row["total"]) for row in await shop.rows(CONFIRMED, buyer.id)}


async def tables_of_mail(app, buyer, gateway, shop, wire, worker, workers):
    """The tables that get rows with an order, beside those of the shop: there mail is stored until it is sent."""
    async with wire.hold(sent_by(worker.name)):
        before = await rows_by_table(shop)
        order = (await buyer.buy(app)).order_id
        after = await rows_by_table(shop)
    await workers.send(gateway, order)
    return [table for table, count in after.items() if count > before[table] and table not in OF_THE_SHOP]


async def rows_by_table(shop):
    tables = [row["name"] for row in await shop.rows(TABLES)]
    return {table: await shop.value(f"SELECT count(*) FROM {table}") for table in tables}


def commits_of(process, numbers):
    """For `wire.lost_response`: the COMMITs with these numbers of this process, counted from now on."""
    seen = []

    def matches(statement):
        if statement.process != process or not statement.commits:
            return False
        seen.append(statement)
        return len(seen) in numbers

    return matches


def refusing(*tables, event="INSERT", deferred=False, when="TRUE", error="check_violation"):
    """Triggers that refuse a change of these tables: at once, or at COMMIT."""
    kind, time = ("CONSTRAINT ", "DEFERRABLE INITIALLY DEFERRED ") if deferred else ("", "")
    triggers = "".join(
        f"CREATE {kind}TRIGGER refused AFTER {event} ON {table} {time} FOR EACH ROW EXECUTE FUNCTION refusals.refuse();"
        for table in tables
    )
    return f"""
        CREATE SCHEMA refusals;
        CREATE SEQUENCE refusals.tries;
        CREATE FUNCTION refusals.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF {when} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '{error}'; END IF;
                RETURN NULL;
            END $$;
        {triggers}
    """


ALLOWED = "DROP SCHEMA refusals CASCADE"

ONCE = {"deferred": True, "when": "nextval('refusals.tries') = 1", "error": "serialization_failure"}
"""For `refusing`: the first COMMIT is rolled back; a sequence counts those, too."""

OF_THE_SHOP = {"books", "customers", "orders", "order_lines", "gifts", "payments", "idempotency_keys"}
"""Tables that an order may change, besides those of its mail."""

TABLES = """
    SELECT c.oid::regclass::text AS name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""

CONFIRMED = """
    SELECT o.id, sum(l.quantity * l.price_cents) AS total
      FROM orders o
      JOIN order_lines l ON l.order_id = o.id
      LEFT JOIN payments p ON p.order_id = o.id
     WHERE o.customer_id = $1 AND (p.id IS NULL OR p.status = 'accepted')
     GROUP BY o.id
"""
"""The orders of a customer that must be confirmed: those that are not paid by card, and those that are paid."""
