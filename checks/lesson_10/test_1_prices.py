"""Lesson 10: one price, wherever it is said. Quote, order, invoice and report."""

from checks.kit.report import expect
from checks.kit.testbed.invariants import assert_the_shop_adds_up, read_ledger
from checks.kit.testbed.waiting import served_meanwhile
from checks.kit.wire import committing
from checks.lesson_10.baskets import OTHER, SEED, USUAL, baskets, books_of, shelve, total_of
from checks.lesson_10.contract import shape_of
from checks.lesson_10.shopping import lines_in_order, totals_of_report

BROKEN = "See it break"
COPIES = "One rule in four copies"
STORED = "Prices that are stored, and prices that are computed again"
MONEY = "The customer pays another price than the one that the shop has shown, and has it in writing."
LINES_DIFFER = "The total is right, but lines are merged, in another sequence, or have other prices. "
MIXED_UP = "A customer who compares it with the order line by line finds differences, and asks support about them."
BOOKS = "The accountants count another amount than customers have paid, and nobody can say which one is right."


async def test_a_quote_is_what_the_order_costs(customer, launch, provider, shop, wire):
    """`POST /quotes` says what an order of the same basket would cost at that moment, with any discount settings."""
    ids = [book.id for book in customer.books]
    for rule, change in ((USUAL, 0), (OTHER, 7)):
        app = await launch(env=rule.env)
        for step, count in ((change, 9), (change + 3, 4)):  # then again, when prices and discounts have changed
            books = await shelve(shop, ids, change=step)
            asked = baskets(books, rule, count)
            quotes = await at_once(app, wire, asked)
            orders = await customer.buy_all(app, asked)
            stored = await stored_lines(shop)
            wrong = []
            for basket, quote, order in zip(asked, quotes, orders, strict=True):
                expect(
                    quote.status == 200,
                    f"A quote for {basket}: {quote}. Expected: 200.",
                    because="A customer who does not learn the price does not buy.",
                    section=BROKEN,
                )
                said = (quote["total_cents"], lines_in_order(quote.json))
                paid = (order.total, basket.in_order(stored[order.id], said[1]))
                if said != paid:
                    verdict = f"POST /quotes says {told(*said)}. An order of it costs {told(*paid)}."
                    wrong.append((abs(said[0] - paid[0]), f"With {rule}, a basket of {basket}: {verdict}"))
            worst, verdict = max(wrong, default=(0, ""))
            expect(
                not wrong,
                f"{len(wrong)} of {len(asked)} quotes are wrong. {verdict} "
                f"{'' if worst else LINES_DIFFER}(Random baskets with seed {SEED}.)",
                because=MONEY if worst else MIXED_UP,
                section=COPIES,
            )
    async with wire.hold(committing, limit=1) as commits:
        buying = app.start_request("POST", "/orders", **customer.options("POST /orders", asked[0].body))
        held = await commits.wait_for_or(buying.task)
        quote = await served_meanwhile(app, "POST", "/quotes", json=asked[0].body)
    expect(
        quote is not None and (quote.ok or not held),
        "The COMMIT of an order was held. Meanwhile POST /quotes for the same books "
        f"{f'got this: {quote}' if quote else 'got no response'}. Expected: a quote at once.",
        because="A quote reserves nothing. Customers who only look at prices wait for those who buy.",
        section=COPIES,
    )
    await buying


async def test_an_order_costs_what_the_rule_says(customer, launch, provider, shop):
    """An order, a gift and a checkout cost what the price rule says, and each place that shows an order agrees."""
    before = await read_ledger(shop)
    revenue, taken = 0, []
    for rule in (USUAL, OTHER):
        app = await launch(env={} if rule is USUAL else rule.env)
        orders = await customer.buy_all(app, baskets(customer.books, rule))
        history = await customer.history(app)
        revenue += sum(order.total for order in orders)
        taken += orders
        for order in orders:
            again = await app.get(f"/orders/{order.id}", headers=customer.headers)
            right = order.basket.prices(rule)
            expect(
                (order.total, history[order.id]) == (total_of(right), right) and again["total_cents"] == order.total,
                f"With {rule}, {order.way} of {order.basket}. By the rule: {told(total_of(right), right)}. The "
                f"response says {order.total} cents, GET /orders/{order.id} {again['total_cents']} cents, and the "
                f"lines in GET /customers/{customer.id}/orders are {in_words(history[order.id])}. (Random baskets "
                f"with seed {SEED}.)",
                because="Customers know the rule, and compute the price themselves. They complain about each cent.",
                section=COPIES,
            )
        provider.respond_next(status=402)
        refused = await customer.ask(app, "POST /checkout", orders[0].basket.body)
        sales = sum(line["revenue_cents"] for line in (await app.get("/reports/sales")).json)
        figures = await app.get("/dashboard")
        expect(
            sales == figures["revenue_cents"] == revenue,
            f"The orders cost {revenue} cents; one more was cancelled, for its card was refused with status "
            f"{refused.status}. GET /reports/sales counts {sales}, GET /dashboard {figures['revenue_cents']}. "
            f"Expected: {revenue} in both.",
            because=BOOKS,
            section=STORED,
        )
    await shelve(shop, [book.id for book in customer.books], change=7)
    history = await customer.history(app)
    for order in taken:
        again = await app.get(f"/orders/{order.id}", headers=customer.headers)
        expect(
            again["total_cents"] == total_of(history[order.id]) == order.total,
            f"An order cost {order.total} cents. Then prices and discounts of books changed. Now {again.request} says "
            f"{again['total_cents']}, and GET /customers/{customer.id}/orders {total_of(history[order.id])}. "
            "Expected: no change.",
            because=MONEY,
            section=STORED,
        )
    await assert_the_shop_adds_up(shop, before)


async def test_an_invoice_says_what_the_order_costs(
    another_customer, customer, gateway, launch, provider, shop, workers
):
    """The invoice that a worker writes has the lines and prices of the order, and is there when its mail is sent."""
    app = await launch(env=OTHER.env)
    orders = await customer.buy_all(app, baskets(customer.books, OTHER, 8))
    bought = await stored_lines(shop)
    await shelve(shop, [book.id for book in customer.books], change=11)
    first = {}
    gateway.respond_next(status=503)  # so that the first mail is sent twice
    async with gateway.hold(limit=1) as held:
        worker = await workers.start(MAIL_RETRY_SECONDS="0.1", MAIL_LEASE_SECONDS="3", **USUAL.env)
        if await workers.begun(worker, held):
            number = workers.order_of(held.calls[0])
            early = await customer.invoice(app, number)
            expect(
                early.status == 200,
                f"The mail about order {number} is on its way to the gateway. {early}. Expected: 200.",
                because="The customer follows the link in the mail, and there is no invoice. If the worker is killed "
                "now, there may never be one.",
                section=STORED,
            )
            expect_invoice(early, number, bought[number])
            first[number] = early.json
            await shop.execute(f"UPDATE books SET title = title || '{EDITION}'", step="titles change")
            await shop.execute(FAILS_ONCE, step="the next invoice that is stored will be refused, once")
    sent = await workers.sent(worker, *(order.id for order in orders))
    await shop.execute(f"UPDATE books SET title = title || '{SOLD_OUT}'", step="titles change, after all mail was sent")
    for order in orders:
        invoice = await customer.invoice(app, order.id)
        expect(
            invoice.status == 200,
            f"{invoice}. Expected: 200. The mail about it was {'' if sent else 'not '}sent.",
            because="A customer without an invoice does not pay.",
            section=BROKEN,
        )
        expect_invoice(invoice, order.id, bought[order.id])
        first.setdefault(order.id, invoice.json)
    others = await another_customer.invoice(app, orders[0].id)
    expect(
        others.status == 404,
        f"Another customer asked for the invoice of order {orders[0].id}. {others}. Expected: 404.",
        because="A customer who tries one number after another reads what others have bought, and what they paid.",
        section=STORED,
    )
    await shop.execute("UPDATE books SET title = title || ' again', price_cents = price_cents + 100")
    later = await launch(env=USUAL.env)
    again = {order.id: (await customer.invoice(later, order.id)).json for order in orders}
    changed = [number for number in first if again[number] != first[number]]
    expect(
        not changed,
        f"Titles, prices and settings were changed, and {len(changed)} of {len(first)} invoices with them. "
        f"First: {first[changed[0]] if changed else ''}. Then: {again[changed[0]] if changed else ''}. Expected: the "
        "same.",
        because="An invoice is a document that the customer has. The shop must be able to show the same one.",
        section=STORED,
    )


async def test_the_report_says_what_the_orders_cost(customer, launch, provider, shop, testbed):
    """`python -m app.report` prints for each order that is not cancelled its status and what it cost."""
    for turn, rule in enumerate((USUAL, OTHER)):
        app = await launch(env=rule.env)
        await customer.buy_all(app, baskets(await books_of(shop, [book.id for book in customer.books]), rule))
        for status in (402, 500):
            provider.respond_next(status=status)
            await customer.ask(app, "POST /checkout", baskets(customer.books, rule)[0].body)
        await shelve(shop, [book.id for book in customer.books], change=5 + turn)
        right = {
            row["id"]: (row["status"], row["total"])
            for row in await shop.rows(STORED_TOTALS)
            if row["status"] != "cancelled"
        }
        found = await totals_of_report(testbed, **USUAL.env)
        wrong = {order: found.get(order) for order in right if found.get(order) != right[order]}
        order = min(wrong, default=0)
        expect(
            not wrong,
            f"Orders were taken with {rule}. The report is wrong about {len(wrong)} of {len(right)}. Order {order} has "
            f"{row_of(wrong.get(order))} in the report, and {row_of(right.get(order))} in the database. "
            f"(Random baskets with seed {SEED}.)",
            because=BOOKS,
            section=STORED,
        )
        stray = sorted(set(found) - set(right))
        expect(
            not stray,
            f"Cancelled orders in the report: {len(stray)}. The first one is order {stray[0] if stray else 0}.",
            because=BOOKS,
            section=STORED,
        )


async def at_once(app, wire, asked):
    """The responses to a quote for each basket. All are under way before PostgreSQL responds to one of them."""
    async with wire.hold(lambda statement: statement.data) as held:
        requests = [app.start_request("POST", "/quotes", json=basket.body) for basket in asked]
        await held.count_within(len(asked))
    return [await request for request in requests]


async def stored_lines(shop):
    """Title, quantity and cents for one copy of each line, in the order in which they were stored, by order."""
    lines = {}
    for row in await shop.rows(STORED_LINES):
        lines.setdefault(row["order_id"], []).append((row["title"], row["quantity"], row["price_cents"]))
    return lines


def row_of(found):
    """The status and the total of an order, as a verdict shows them."""
    return "no line" if found is None else f"status {found[0]} and {found[1]} cents"


def expect_invoice(invoice, order, bought):
    """The invoice has these lines, and adds up. Titles may have changed before it was written, but not since."""
    said, paid = (invoice["total_cents"], lines_in_order(invoice.json)), (total_of(bought), bought)
    expect(
        (said[0], without_titles(said[1])) == (paid[0], without_titles(paid[1])),
        f"{invoice.request}: the order took {told(*paid)}. The invoice says {told(*said)}. "
        + (LINES_DIFFER if said[0] == paid[0] else "Prices, discounts and settings have changed since the order. ")
        + f"(Random baskets with seed {SEED}.)",
        because=MIXED_UP if said[0] == paid[0] else MONEY,
        section=STORED,
    )
    strange = [
        (title, line[0])
        for line, (title, *_) in zip(bought, said[1], strict=True)
        if title not in (line[0], line[0] + EDITION)
    ]
    expect(
        not strange,
        f"{invoice.request}: the title of a line is {strange[0][0] if strange else ''!r}. The order was for "
        f"{strange[0][1] if strange else ''!r}. The check added {EDITION!r} to all titles while the first mail was on "
        f"its way, and {SOLD_OUT!r} after the last mail was sent. Expected: the title without {SOLD_OUT!r}.",
        because="An invoice is a document about what was sold. The customer cannot tell what was paid for.",
        section=STORED,
    )
    shape = shape_of(invoice.json)
    expect(
        shape == SHAPE and invoice["order_id"] == order,
        f"{invoice.request} has these fields: {shape}, with order_id {invoice.json.get('order_id')}. "
        f"Expected: {SHAPE}, with order_id {order}.",
        because="The shop's own app and those of partners read these fields.",
        section=STORED,
    )


def without_titles(lines):
    return [line[1:] for line in lines]


def told(total, lines):
    """`1234 cents (3 x 1005, 2 x 995)`."""
    return f"{total} cents ({in_words(lines)})"


def in_words(lines):
    return ", ".join(f"{quantity} x {cents}" for _, quantity, cents in lines) or "no lines"


EDITION = " (2nd edition)"
SOLD_OUT = " (sold out)"

SHAPE = "{lines: [{price_cents: int, quantity: int, title: str}], order_id: int, total_cents: int}"

STORED_LINES = """
    SELECT l.order_id, b.title, l.quantity, l.price_cents
      FROM order_lines l JOIN books b ON b.id = l.book_id ORDER BY l.id
"""

FAILS_ONCE = """
    CREATE SEQUENCE tries;
    GRANT USAGE ON SEQUENCE tries TO PUBLIC;
    CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM invoices WHERE order_id = NEW.order_id) THEN RETURN NEW; END IF;
        IF nextval('tries') = 1 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER fail_once BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION fail_once()
"""
"""A sequence keeps its number when a transaction is rolled back, so the second attempt succeeds."""

STORED_TOTALS = """
    SELECT o.id, o.status::text, coalesce(sum(l.quantity * l.price_cents), 0)::bigint AS total
      FROM orders o LEFT JOIN order_lines l ON l.order_id = o.id GROUP BY o.id
"""
