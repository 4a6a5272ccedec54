"""Lesson 07: what belongs to one transaction. Here: orders and gifts, which are made of several steps."""

import asyncio

from checks.kit.report import expect
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.waiting import wait_quiescent
from checks.kit.wire import committing
from checks.lesson_07.orders import (
    CARD,
    PATIENCE,
    at_each_commit,
    changes,
    checkout_of,
    contents,
    expect_sums,
    gift_of,
    login,
    order_of,
    until_blocked,
)

COMPOSED = "Functions that commit cannot be composed"
LEFTOVER = (
    "The customer reads that the order failed. What it leaves behind is copies that nobody can buy, a bill for "
    "nothing, or the account of somebody who never asked for one."
)
NOT_WHY = "The status tells the client why the shop refuses. With another one, the customer does not learn it."
NOT_STORED = "The customer has a confirmation of an order that the shop cannot deliver, or has not stored."
PARTLY = (
    "If the process ends at that moment, the shop has an order without its gift, or an account without an order. "
    "Somebody has to find it and clean up by hand."
)
SOLD = "Customers must be able to order and to give."

REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{error}'; END$$;
    CREATE TRIGGER refuse BEFORE {change} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse();
"""
ACCEPT = "DROP FUNCTION refuse CASCADE"
STEPS = (
    ("INSERT", "order_lines", "/orders", "check_violation"),
    ("INSERT", "order_lines", "/orders", "raise_exception"),
    ("UPDATE", "books", "/orders", "raise_exception"),
    ("INSERT", "orders", "/gifts", "check_violation"),
    ("INSERT", "order_lines", "/gifts", "raise_exception"),
    ("INSERT", "gifts", "/gifts", "check_violation"),
    ("INSERT", "gifts", "/gifts", "raise_exception"),
    ("UPDATE", "books", "/gifts", "raise_exception"),
    ("INSERT", "order_lines", "/checkout", "raise_exception"),
    ("INSERT", "payments", "/checkout", "check_violation"),
    ("INSERT", "payments", "/checkout", "raise_exception"),
    ("UPDATE", "books", "/checkout", "raise_exception"),
)
"""What a table refuses, the request that fails by it, and the condition's name in PostgreSQL."""


async def test_a_failed_order_leaves_nothing(app, shop, wire, provider):
    """If an order, a gift or a checkout fails, no row and no stock has changed, and no card is charged."""
    ids = await shop.seed(books=6, customers=3, orders=2, lines=2)
    first, second, third, dear, *dearer = ids.books
    customer = ids.customers[0]
    await shop.execute("UPDATE books SET stock = 9 WHERE id = $1", second)  # enough for services that try again
    many = "UPDATE books SET stock = 2000000000, price_cents = 2000000000 WHERE id = ANY($1)"
    await shop.execute(many, [dear, *dearer])
    await shop.execute("UPDATE customers SET credit_cents = 9000 WHERE id = $1", customer)
    before, copies = await contents(shop), await read_ledger(shop)
    refusals = {
        "an unknown book in its second line": ([(first, 1), (first + 5000, 1)], 404),
        "too few copies for its second line": ([(first, 2), (second, 10)], 409),
        "two lines about one book, and copies for one of them": ([(third, 1), (second, 5), (second, 5)], 409),
        "more than the customer's credit": ([(first, 1), (third, 9)], 409),
        "more than the customer's credit, by 4 billion cents": ([(dear, 2)], 409),
        "more than the customer's credit, by 4,000,000,000 billion cents": ([(dear, 2000000000)], 409),
        "more than the customer's credit, by 12,000,000,000 billion cents": (
            [(book, 2000000000) for book in (dear, *dearer)],
            409,
        ),
    }
    for why, (lines, status) in refusals.items():
        for request, body in doors(lines):
            if request == "/checkout" and "credit" in why:
                continue  # an order that is paid by card may count as a debt or not
            response = await app.post(request, json=body, headers=login(customer))
            changed = changes(before, await contents(shop))
            expect(
                response.status == status and not changed,
                f"POST {request} with {why}: {response}. Changed: {changed or 'nothing'}. "
                f"Expected: {status}, and nothing.",
                because=NOT_STORED if response.ok else LEFTOVER if changed else NOT_WHY,
                section=COMPOSED,
            )
    for change, table, request, error in STEPS:
        refuse = REFUSE.format(change=change, table=table, error=error)
        await shop.execute(refuse, step=f"the database refuses each {change} of {table}")
        body = dict(doors([(first, 1), (second, 1)]))[request]
        response = await app.post(request, json=body, headers=login(customer))
        changed = changes(before, await contents(shop))
        await shop.execute(ACCEPT, step="and accepts them again")
        expect(
            response.status >= 400 and not changed,
            f"POST {request}, while the database refuses each {change} of {table} with {error}: {response.status}. "
            f"Changed: {changed or 'nothing'}. Expected: an error, and nothing.",
            because=LEFTOVER if changed else NOT_STORED,
            section=COMPOSED,
        )
    customer = ids.customers[1]  # with credit enough for services that try again
    repeats = False
    for request, body in doors([(first, 1), (second, 1)]):
        before = await contents(shop)
        response = await cut_at_commit(app, wire, request, body, customer)
        changed = changes(before, await contents(shop))
        expect(
            response.ok == bool(changed),  # 2xx: the service has tried again by itself
            f"The connection was cut while the COMMIT of POST {request} was under way: {response.status}. Changed: "
            f"{changed or 'nothing'}. Expected: 503, and nothing.",
            because=LEFTOVER if changed else NOT_STORED,
            section=COMPOSED,
        )
        repeats = repeats or response.ok
    expect(
        repeats or not provider.calls,
        f"The payment provider was asked to charge {len(provider.calls)} times for orders that failed. "
        "Expected: never.",
        because="The customer pays for books that nobody will send.",
        section=COMPOSED,
    )
    for request, body in doors([(first, 1), (second, 1)]):
        orders = await shop.count("orders")
        response = await app.post(request, json=body, headers=login(customer))
        stored = await shop.count("orders") - orders
        expect(
            response.status == 201 and stored == 1,
            f"After the refusals, POST {request} with two books: {response}. Orders stored: {stored}. "
            "Expected: 201, and 1.",
            because=SOLD,
            section=COMPOSED,
        )
    for request, body in doors([(first, 1), (second, 1)]):
        orders = await shop.count("orders")
        async with wire.lost_response(committing, limit=1) as lost:
            response = await app.post(request, json=body, headers=login(customer))
        await wait_quiescent(app, wire)
        stored = await shop.count("orders") - orders
        expect(
            stored == 1,
            f"The response to the COMMIT of POST {request} was lost ({lost.count} of 1): {response.status}. Orders "
            f"stored: {stored}. Expected: 1.",
            because="The COMMIT may have succeeded. A service that repeats it without checking sells twice.",
            section=COMPOSED,
        )
    await expect_no_debt_by_card(app, shop, wire, first)
    await expect_sums(shop, copies, provider)


async def test_a_gift_is_stored_as_a_whole(apps, shop, wire, provider):
    """A gift's recipient, order, stock and message become visible together, and a new recipient gets one account."""
    app = apps[0]
    ids = await shop.seed(books=2, customers=3)
    first, second = ids.books
    giver, friend, other = ids.customers
    copies = await read_ledger(shop)
    await shop.add("customers", email="newxfriend@example.com", name="Somebody else")
    await shop.execute("UPDATE customers SET active = false WHERE id = $1", friend)
    [known] = await shop.rows("SELECT * FROM customers WHERE id = $1", friend)
    recipients = {
        "somebody new": "New_Friend@example.com",
        "a customer": known["email"],
        "the same again": "new_friend@EXAMPLE.com",
    }
    for kind, email in recipients.items():
        before = await contents(shop)
        accounts = int(kind == "somebody new")
        after = before | {
            "customers": before["customers"] + accounts,
            "orders": before["orders"] + 1,
            "order_lines": before["order_lines"] + 2,
            "gifts": before["gifts"] + 1,
            f"stock of book {first}": before[f"stock of book {first}"] - 2,
            f"stock of book {second}": before[f"stock of book {second}"] - 1,
        }
        body = gift_of(email, (first, 2), (second, 1), message=f'For {kind}: "it\'s yours" 🎁')
        response, seen, early = await at_each_commit(
            app,
            wire,
            lambda body=body: app.start_request("POST", "/gifts", json=body, headers=login(giver)),
            lambda: contents(shop),
            PATIENCE if accounts else 0,
        )
        partly = [changes(before, one) for one in seen if one not in (before, after)]
        expect(
            response.status == 201 and not partly and seen[-1] == after,
            f"A gift for {kind}: {response}. Seen by others before a COMMIT or at the end: "
            f"{partly[0] if partly else changes(before, seen[-1]) or 'nothing new'}. Expected: 201, nothing before its "
            f"COMMIT, and at the end {changes(before, after)}.",
            because=PARTLY if partly else SOLD,
            section=COMPOSED,
        )
        expect(
            not early,
            f"A gift for {kind}: the response came while a COMMIT was still on its way.",
            because="If the COMMIT fails now, the giver has a confirmation of a gift that does not exist.",
            section=COMPOSED,
        )
        await expect_gift(shop, response, giver, friend if kind == "a customer" else None, body)
    [still] = await shop.rows("SELECT * FROM customers WHERE id = $1", friend)
    different = {name: (value, still[name]) for name, value in known.items() if still[name] != value}
    expect(
        not different,
        f"A customer got a gift. Of their account, before and after it: {different}. Expected: no change.",
        because="A giver may spell the recipient's name in another way. Nobody else may change a customer's account.",
        section=COMPOSED,
    )
    await expect_one_account(apps, shop, wire, {giver: first, other: second})
    await expect_sums(shop, copies)


async def cut_at_commit(app, wire, path, body, customer):
    """Sends a request, and cuts the connection when its first COMMIT is on the way."""
    async with wire.hold(committing, limit=1) as commits:
        request = app.start_request("POST", path, json=body, headers=login(customer))
        await commits.wait_for_or(request.task)
        await wire.cut()
    response = await request
    await wait_quiescent(app, wire)
    return response


async def expect_one_account(apps, shop, wire, books):
    """Two customers give to one new address at the same moment, in two processes: both gifts go to one account."""
    email = "both.of.us@example.com"
    for app in apps:
        await app.get("/health")  # has a connection now: while a COMMIT is held below, a time limit of the app runs
    async with wire.hold(committing, limit=1) as commits:
        requests = []
        for app, (giver, book) in zip(apps, books.items(), strict=True):
            gift = gift_of(email, (book, 1))
            requests.append(app.start_request("POST", "/gifts", json=gift, headers=login(giver)))
            if len(requests) == 1:
                await commits.wait_for_or(requests[0].task)
        await until_blocked(shop, [request.task for request in requests])
    responses = await asyncio.gather(*requests)
    accounts = [row["id"] for row in await shop.rows("SELECT id FROM customers WHERE email = $1", email)]
    recipients = {response["recipient_id"] for response in responses if response.ok}
    expect(
        all(response.status == 201 for response in responses) and [*recipients] == accounts,
        f"Two customers gave to one new address at the same moment: {'; '.join(map(str, responses))}. Accounts with "
        f"this address: {accounts}. Expected: 201 twice, and one account, the recipient of both.",
        because="On a birthday, friends give at the same time. One of them reads that the gift failed, or it waits in "
        "an account that the recipient cannot open.",
        section=COMPOSED,
    )


async def expect_no_debt_by_card(app, shop, wire, book):
    """A customer's credit is enough for one order. After one that is paid by card and shipped, it still is."""
    price = await shop.value("SELECT price_cents FROM books WHERE id = $1", book)
    customer = await shop.add("customers", email="by.card@example.com", name="By card", credit_cents=price)
    paid = await app.post("/checkout", json=checkout_of((book, 1)), headers=login(customer))
    await wait_quiescent(app, wire)
    await shop.execute("UPDATE orders SET status = 'shipped' WHERE id = $1", paid["id"], step="that order is shipped")
    response = await app.post("/orders", json=order_of((book, 1)), headers=login(customer))
    expect(
        (paid.status, response.status) == (201, 201),
        f"A customer with a credit of {price} cents paid by card, {paid.status}, and the order was shipped. Then an "
        f"order by bill of {price} cents: {response}. Expected: 201 twice.",
        because="What a card has paid is no debt. The shop refuses customers who owe it nothing.",
        section=COMPOSED,
    )


def doors(lines):
    """The three endpoints that take an order, with the body of each."""
    return [
        ("/orders", order_of(*lines)),
        ("/gifts", gift_of("nobody.yet@example.com", *lines)),
        ("/checkout", checkout_of(*lines) | {"card_token": CARD}),
    ]


async def expect_gift(shop, response, giver, friend, body):
    """The gift as it is stored: who gave it, who gets it, what and with which message."""
    [stored] = await shop.rows(
        "SELECT g.id, g.order_id, g.recipient_id, g.message, o.customer_id, c.email, c.name, "
        "(SELECT sum(quantity * price_cents) FROM order_lines WHERE order_id = o.id) AS total_cents "
        "FROM gifts g JOIN orders o ON o.id = g.order_id JOIN customers c ON c.id = g.recipient_id "
        "ORDER BY g.id DESC LIMIT 1"
    )
    returned = {name: response[name] for name in ("id", "order_id", "recipient_id", "total_cents")}
    wrong = {name: value for name, value in returned.items() if value != stored[name]}
    right = (
        stored["customer_id"] == giver
        and stored["email"] == body["recipient"]["email"].lower()
        and stored["message"] == body["message"]
        and (stored["name"] == body["recipient"]["name"] if friend is None else stored["recipient_id"] == friend)
    )
    expect(
        not wrong and right,
        f"Customer {giver} gave to {body['recipient']}. The gift is stored as {stored}; the response says {returned}. "
        "Expected: this giver and this recipient, and the same in both.",
        because="The book goes to somebody else, or the bill does.",
        section=COMPOSED,
    )
