"""Lesson 08: many customers at once. Here: orders."""

import itertools

import pytest

from checks.kit.report import expect
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.waiting import served_meanwhile
from checks.kit.wire import committing
from checks.lesson_08.at_once import (
    around_a_move,
    before_it_locks_books,
    blocked,
    committing_together,
    crowd,
    in_step,
    overtaken,
    past_a_gate,
    turn_around,
)
from checks.lesson_08.shopping import (
    KEYED,
    UNFRIENDLY,
    WAYS,
    buying,
    credits_of,
    expect_all_served,
    expect_status,
    expect_sums,
    gift_of,
    order_of,
    path_of,
    row_of,
    sold,
    statuses,
)

LOST, STALE = "A lost update on two timelines", "A lock does not refresh what the session has loaded"
ORDER, SKEW = "Locks in one order cannot deadlock", "Isolation levels against anomalies"
OVERSOLD = "The shop has sold copies that it does not have. Somebody has paid and gets no book."
MISCOUNTED = "The shop sells copies that it does not have, or does not sell copies that it has."
UNSOLD = "A copy lies in the shop, and a customer who wanted it was sent away."
DEADLOCK = (
    "Customers who buy the same two books lose their order, and during a sale many do. PostgreSQL also lets both wait "
    "for a second before it ends one of them."
)
DEBTS = "SELECT sum(quantity * price_cents) FROM order_lines JOIN orders o ON o.id = order_id WHERE customer_id = $1"
CREDIT = "The shop delivers on credit that the customer does not have, and may never see the money."


async def test_each_request_works_on_its_own(app, launch, shop, login, provider):
    """One at a time, orders, gifts, check-outs, edits, transfers and wishes work as the ticket describes them."""
    ids = await shop.seed(books=3, customers=3, stock=10)
    ledger = await read_ledger(shop)
    book, other, third = ids.books
    anna, ben, _ = ids.customers
    prices = [(await row_of(shop, one))["price_cents"] for one in (book, other)]
    total = prices[0] + 2 * prices[1]
    for way in WAYS:
        placed = await app.post(path_of(way), **buying(way, {book: 1, other: 2}, login(anna)))
        expect_status(placed, 201, "Two books, and enough copies of both")
        expect(
            placed["total_cents"] == total,
            f"One copy at {prices[0]} cents and two at {prices[1]}: {placed}. Expected: total_cents {total}.",
            because="The customer reads another total than the invoice will have.",
        )
    stock = [(await row_of(shop, one))["stock"] for one in (book, other)]
    expect(stock == [6, 2], f"After four sales of 1 and 2 copies the stock is {stock}, not [6, 2].", because=MISCOUNTED)
    twice = {"lines": [{"book_id": book, "quantity": 4}, {"book_id": book, "quantity": 4}]}
    for what, body, status in (
        ("Two lines of 4 copies each of a book of which 6 are left", twice, 409),
        ("More copies than there are, in the second line", order_of({other: 1, book: 8}), 409),
        ("A book that does not exist, in the second line", order_of({other: 1, third + 100_000: 1}), 404),
    ):
        expect_status(await app.post("/orders", json=body, headers=login(ben)), status, what)
    left = [(await row_of(shop, one))["stock"] for one in (book, other)]
    await expect_lines_add_up(app, shop, login(ben), provider, third)
    expect(
        left == stock,
        f"Three orders were refused. The stock was {stock} and is {left}. Expected: no change.",
        because=UNSOLD,
    )
    await expect_credit_is_used_up(app, shop, login, ben, third)
    isbn = (await row_of(shop, other))["isbn"]
    for what, change, status in (
        ("An ISBN that is taken", {"isbn": isbn}, 409),
        ("A new title", {"title": "New"}, 200),
        ("An ISBN with dashes, which a trigger removes", {"isbn": "978-1-2345"}, 200),
        ("No change at all", {}, 200),
    ):
        found = await app.get(f"/books/{book}")
        edited = await app.patch(f"/books/{book}", json=change, headers={"If-Match": found.headers.get("etag", "")})
        because = "An editor reads something else than what became of the edit."
        expect_status(edited, status, f"{what}, with the ETag of the book as If-Match", because)
        found = await app.get(f"/books/{book}")
        different = [field for field in found.json if edited.ok and edited.json.get(field) != found[field]]
        expect(
            not different,
            f"{what}: PATCH returned {[edited.json.get(field) for field in different]} as {', '.join(different)}, and "
            f"GET then {[found[field] for field in different]}. Expected: the same book.",
            because=because,
        )
    before = await credits_of(shop, [anna, ben])
    moved = await app.post("/transfers", json={"recipient_id": ben, "cents": 700}, headers=login(anna))
    expect_status(moved, 201, "A transfer of 7.00")
    after = await credits_of(shop, [anna, ben])
    expected = {"sender_id": anna, "recipient_id": ben, "cents": 700}
    expect(
        after == [before[0] - 700, before[1] + 700] and {name: moved[name] for name in expected} == expected,
        f"{moved}. The credits were {before} and are {after}. Expected: 700 cents moved, and a response that says so.",
        because="Credit that was given away has not arrived, or the sender still has it.",
    )
    for what, body, status in (
        ("A transfer of more than the sender has", {"recipient_id": ben, "cents": after[0] + 1}, 409),
        ("A transfer to nobody", {"recipient_id": ben + 100_000, "cents": 1}, 404),
        ("A transfer to the sender", {"recipient_id": anna, "cents": 1}, 422),
    ):
        expect_status(await app.post("/transfers", json=body, headers=login(anna)), status, what)
    expect(
        await credits_of(shop, [anna, ben]) == after,
        f"Three transfers were refused. The credits were {after} and are {await credits_of(shop, [anna, ben])}.",
        because="A transfer that was refused has moved money.",
    )
    wished = [await app.put(f"/wishlist/{one}", headers=login(anna)) for one in (other, book)]
    for one in wished:
        expect_status(one, 200, "A book for the wish list")
    listed = await app.get("/wishlist", headers=login(anna))
    expect(
        listed.status == 200 and listed.json == [one.json for one in wished],
        f"Two books were put on the wish list: {wished[0]}, {wished[1]}. Then: {listed}. Expected: these two.",
        because="Customers do not find on their list what they have put there.",
    )
    expect_status(await app.put(f"/wishlist/{third + 100_000}", headers=login(anna)), 404, "A wish for no book")
    await expect_one_connection_is_enough(launch, shop, login, ids)
    await expect_sums(shop, ledger, provider)


async def test_a_copy_is_sold_once(apps, shop, wire, login, provider):
    """The shop sells a copy once, through any endpoint that sells, whatever the number of buyers at the same moment."""
    ids = await shop.seed(books=7, customers=35, stock=1)
    before = await read_ledger(shop)
    pairs = (("/orders", "/orders"), ("/gifts", "/checkout"), ("/checkout", KEYED), (KEYED, KEYED))
    for book, ways in zip(ids.books, pairs, strict=False):
        responses = await in_step(wire, shop, *sales(apps, login, ids.customers, ways, {book: 1}))
        await expect_sold(shop, book, 1, f"One copy was left. {' and '.join(ways)} at the same moment", responses, 1)
    refunded, counted, popular = ids.books[4:]
    await shop.execute("UPDATE books SET stock = 5 WHERE id = ANY($1)", [refunded, counted])
    provider.respond(status=402)
    check_out, order = sales(apps, login, ids.customers, ("/checkout", "/orders"), {refunded: 2}, {refunded: 1})
    async with provider.hold(limit=1) as charge:
        checking_out = check_out()
        await charge.arrived()
        async with wire.hold(committing, limit=1) as commits:
            ordering = order()
            await commits.wait_for_or(ordering.task)
            charge.release()
            await blocked(shop, [checking_out], 1)
    responses = [await checking_out, await ordering]
    provider.respond(status=201, json={"id": "payment"})
    left = (await row_of(shop, refunded))["stock"]
    expect(
        [one.status for one in responses] == [402, 201] and left == 4,
        f"Of 5 copies, 2 were in a check-out whose payment was refused, and 1 was ordered at the same moment. They "
        f"returned {statuses(responses)}, and {left} copies are left. Expected: 402 and 201, and 4 copies.",
        because=OVERSOLD if left > 4 else UNSOLD,
        section=LOST,
    )
    [sale] = sales(apps[:1], login, ids.customers, ("/orders",), {counted: 1})
    count = {"stock": 9}
    responses = await in_step(
        wire, shop, sale, lambda: apps[1].start_request("PUT", f"/books/{counted}/stock", json=count)
    )
    left = (await row_of(shop, counted))["stock"]
    expect(
        all(one.ok for one in responses) and left in (8, 9),
        f"The stock was 5. One copy was ordered while somebody entered a count of 9. They returned "
        f"{statuses(responses)}, and the stock is {left}. Expected: success, and 9 or, with the order last, 8.",
        because="A count that somebody made in the shop is gone, and nobody knows it.",
        section=LOST,
    )
    await shop.execute("UPDATE books SET stock = 18 WHERE id = $1", popular)
    async with provider.hold(limit=1) as held:
        [paying] = sales(apps[:1], login, ids.customers, ("/checkout",), {popular: 1})
        request = paying()
        await held.arrived()
        body, headers = order_of({popular: 1}), login(ids.customers[1])
        meanwhile = await served_meanwhile(apps[0], "POST", "/orders", json=body, headers=headers)
    expect(
        meanwhile is not None and meanwhile.status == 201 and (await request).status == 201,
        f"While a payment was under way, another customer ordered the same book: {meanwhile or 'no response'}. "
        "Expected: 201.",
        because="When the payment provider is slow, nobody can buy this book.",
        section=LOST,
    )
    six = sales(itertools.cycle(apps), login, ids.customers[2:8], itertools.repeat("/orders"), {popular: 1})
    responses = await overtaken(wire, shop, *six)
    await expect_all_served(six, responses, "6 orders of a book that has enough copies", UNSOLD, LOST)
    sends = [
        lambda app, customer=customer, way=way: app.post(path_of(way), **buying(way, {popular: 1}, login(customer)))
        for customer, way in zip(ids.customers[8:], itertools.cycle(WAYS), strict=False)
    ]
    responses = await crowd(apps, sends)
    await expect_sold(shop, popular, 18, f"{len(sends)} customers wanted one copy each of the last 10", responses, 10)
    await expect_sums(shop, before, provider, delivered={refunded: 4, counted: left, popular: 17})


async def test_orders_of_the_same_books_all_succeed(apps, shop, wire, login, provider):
    """Two orders of the same books at the same moment both succeed, in whatever order they list the books."""
    ids = await shop.seed(books=3, customers=4, stock=28)
    low, middle, high = sorted(ids.books)
    await shop.execute(
        "UPDATE books SET title = 'It''s Equal', price_cents = 900, stock = 28 + array_position($1::bigint[], id) "
        "WHERE id = ANY($1)",
        [low, middle, high],
        step="all books have the same title and price; the stock differs, and sales will change its order",
    )
    await shop.execute(
        "INSERT INTO books (id, isbn, title, author_id, price_cents, stock) OVERRIDING SYSTEM VALUE "
        "SELECT c.id, '9791' || c.id, 'A Book', (SELECT min(id) FROM authors), 500, 20 FROM customers c "
        "WHERE c.id = ANY($1)",
        ids.customers[:2],
        step="two books have the ids of two customers",
    )
    before = await read_ledger(shop)
    there, back = dict.fromkeys(ids.books, 1), dict.fromkeys(reversed(ids.books), 1)
    pairs = (("/orders", "/orders"), ("/gifts", "/checkout"), (KEYED, KEYED))
    for ways, where in (*((pair, apps) for pair in pairs), ((KEYED, "/gifts"), apps[:1] * 2)):
        responses = await in_step(wire, shop, *sales(where, login, ids.customers, ways, there, back))
        expect(
            [one.status for one in responses] == [201, 201],
            f"{' and '.join(ways)} at the same moment, for the same three books in opposite order: "
            f"{statuses(responses)}. Expected: 201 and 201.",
            because=DEADLOCK,
            section=ORDER,
        )
    anna, ben, *_ = ids.customers
    emails = {row["id"]: row["email"] for row in await shop.rows("SELECT id, email FROM customers")}
    to_ben, to_anna = gift(apps[0], login(anna), emails[ben], there), gift(apps[1], login(ben), emails[anna], back)
    [buys] = sales(apps[1:], login, [ben], ("/checkout",), back)
    for what, other in (
        ("the other customer's gift to the first one", to_anna),
        ("a check-out of the other one", buys),
    ):
        responses = await in_step(wire, shop, to_ben, other)
        expect(
            [one.status for one in responses] == [201, 201],
            f"A customer's gift to another customer, and {what}, at the same moment and of the same books: "
            f"{statuses(responses)}. Expected: 201 and 201.",
            because="Friends buy the same books in the same minute, and one of them reads an error.",
            section=ORDER,
        )
    for ways in ((KEYED, "/checkout"), ("/orders", "/gifts"), ("/gifts", "/checkout"), ("/checkout", "/gifts")):
        responses = await before_it_locks_books(wire, shop, *sales(apps, login, [anna, anna], ways, there, back))
        expect(
            [one.status for one in responses] == [201, 201],
            f"One customer sent {' and '.join(ways)} at the same moment, of the same three books: "
            f"{statuses(responses)}. Expected: 201 and 201.",
            because="A customer who buys in two windows loses one of the two orders.",
            section=ORDER,
        )
    crossed = sales(apps, login, [anna, ben], ("/gifts", "/gifts"), {ben: 1}, {anna: 1})
    responses = await in_step(wire, shop, *crossed)
    expect(
        [one.status for one in responses] == [201, 201],
        f"Two gifts at the same moment, of two different books. The id of each book is that of the other "
        f"customer: {statuses(responses)}. Expected: 201 and 201.",
        because="Two sales that share nothing wait for each other, since a customer and a book have the same number.",
        section=ORDER,
    )
    await turn_around(shop, "books")
    ways, copies = ("/orders", "/orders", "/gifts", "/checkout"), ({high: 3}, {middle: 1}, there, {low: 1, high: 1})
    responses = await around_a_move(wire, shop, *sales([*apps, *apps], login, ids.customers, ways, *copies))
    expect(
        [one.status for one in responses] == [201] * 4,
        f"Four sales at the same moment, {', '.join(ways)}, of one, one, three and two of the same books: "
        f"{statuses(responses)}. One sale has changed a row, so that PostgreSQL finds the rows in another order when "
        "the last one comes. Expected: 201 for each.",
        because=DEADLOCK,
        section=ORDER,
    )
    left = [(await row_of(shop, book))["stock"] for book in (low, middle, high)]
    expect(
        left == [7, 8, 6],
        f"Of three books with 29, 30 and 31 copies, 22, 22 and 25 were sold. The stock is {left}.",
        because=MISCOUNTED,
        section=LOST,
    )
    provider.respond(status=402)
    for ways, expected in ((("/checkout", "/gifts"), [402, 201]), (("/checkout", "/checkout"), [402, 402])):
        responses = await in_step(wire, shop, *sales(apps, login, ids.customers, ways, back, there))
        expect_refund(responses, expected, f"{' and '.join(ways)} of the same three books in opposite order")
    async with provider.hold(limit=1) as held:
        check_out, give = sales(apps, login, ids.customers, ("/checkout", "/gifts"), there, back)
        checking_out = check_out()
        await held.arrived()
        await turn_around(shop, "books")  # an UPDATE without a lock before it goes through the rows as they lie

        def refuse():
            held.release()
            return checking_out

        responses = await past_a_gate(wire, shop, "books", low, give, refuse)
    expect_refund(responses, [201, 402], "/gifts and the refund of /checkout, of the same three books")
    await expect_sums(shop, before, provider)


@pytest.mark.start_early
async def test_two_orders_stay_within_the_credit(servers, shop, login, provider):
    """Two orders of one customer at the same moment do not exceed the customer's credit together."""
    ids = await shop.seed(books=3, customers=7, stock=20)
    provider.respond(status=503)  # so that a check-out stays pending, and is owed
    *short, rich = ids.customers
    await shop.execute("UPDATE customers SET credit_cents = 1500 WHERE id = ANY($1)", short)
    ledger = await read_ledger(shop)
    [first, second] = [{book: 1} for book in ids.books[:2]]
    pairs = (("/orders", "/orders"), ("/gifts", "/orders"), ("/checkout", "/orders"))
    pairs += ((KEYED, KEYED), ("/gifts", "/gifts"), ("/checkout", "/gifts"))
    for customer, ways in zip(short, pairs, strict=True):
        sends = sales(servers, login, [customer] * 2, ways, first, second)
        responses = await committing_together(shop, *sends)
        debt = await shop.value(DEBTS, customer) or 0
        expect(
            sorted(one.status for one in responses) in ([201, 409], [202, 409]),
            f"A customer with a credit of 15.00 sent {' and '.join(ways)} at the same moment, each for a book of "
            f"about 10.00: {statuses(responses)}. The customer owes {debt / 100:.2f}. Expected: 201 and 409.",
            because=CREDIT if debt > 1500 else UNFRIENDLY,
            section=SKEW,
        )
    for ways in (("/orders", "/gifts"), (KEYED, KEYED)):
        responses = await committing_together(shop, *sales(servers, login, [rich] * 2, ways, first, second))
        expect(
            [one.status for one in responses] == [201, 201],
            f"A customer with credit for both sent {' and '.join(ways)} at the same moment: {statuses(responses)}. "
            "Expected: 201 and 201.",
            because=UNFRIENDLY,
            section=SKEW,
        )
    await expect_sums(shop, ledger)


async def expect_lines_add_up(app, shop, headers, provider, book):
    """Two lines of one order may name the same book: all copies are taken, and come back if the payment is refused."""
    lines = {"lines": [{"book_id": book, "quantity": quantity} for quantity in (2, 2, 1)]}
    before = (await row_of(shop, book))["stock"]
    provider.respond(status=402)
    paid = await app.post("/checkout", json=lines | {"card_token": "refused"}, headers=headers)
    provider.respond(status=201, json={"id": "payment"})
    expect_status(paid, 402, "A check-out whose payment was refused")
    left = (await row_of(shop, book))["stock"]
    expect(
        left == before,
        f"A check-out with lines of 2, 2 and 1 copies of one book was refused. The stock was {before} and is {left}.",
        because=UNSOLD,
    )
    expect_status(await app.post("/orders", json=lines, headers=headers), 201, "Three lines of the same book")
    left = (await row_of(shop, book))["stock"]
    expect(
        left == before - 5,
        f"An order has lines of 2, 2 and 1 copies of one book. The stock was {before} and is {left}, not {before - 5}.",
        because=MISCOUNTED,
    )


async def expect_credit_is_used_up(app, shop, login, customer, book):
    """Pending orders are debts, paid ones are not; a customer may owe all of the credit, and no cent more."""
    [credit] = await credits_of(shop, [customer])
    paid = await app.post("/checkout", **buying("/checkout", {book: 1}, login(customer)))
    expect_status(paid, 201, "A check-out that is paid")
    owed = await shop.value(f"{DEBTS} AND status = 'pending'", customer) or 0
    limit = owed + (await row_of(shop, book))["price_cents"]
    await shop.execute("UPDATE customers SET credit_cents = $2 WHERE id = $1", customer, limit)
    for what, status, because in (
        (
            f"Pending orders of {owed} cents, a paid one, a credit of {limit} cents, and an order of the rest",
            201,
            "Customers who have paid for their books can buy no more.",
        ),
        (f"A customer who owes {limit} cents, a credit of {limit} cents, and one more order", 409, CREDIT),
    ):
        placed = await app.post("/orders", **buying("/orders", {book: 1}, login(customer)))
        expect_status(placed, status, what, because)
    await shop.execute("UPDATE customers SET credit_cents = $2 WHERE id = $1", customer, credit)


async def expect_one_connection_is_enough(launch, shop, login, ids):
    """No request needs a second connection while it has one."""
    app = await launch(env={"DATABASE_CONNECTIONS": "1"})
    anna, ben, _ = ids.customers
    book = ids.books[0]
    found = await app.get(f"/books/{book}")
    options = {"json": {"title": "Newer"}, "headers": {"If-Match": found.headers.get("etag", "")}}
    responses = [await app.patch(f"/books/{book}", **options)]
    responses += [await app.post(path_of(way), **buying(way, {book: 1}, login(anna))) for way in WAYS]
    transfer = {"recipient_id": ben, "cents": 5}
    responses.append(await app.post("/transfers", json=transfer, headers=login(anna)))
    responses.append(await app.put(f"/wishlist/{book}", headers=login(ben)))
    for response in responses:
        expect(
            response.ok,
            f"A service with one connection to the database (DATABASE_CONNECTIONS=1) got one request at a time. "
            f"{response}. Expected: success.",
            because="A request that waits for a second connection keeps its first one. When as many requests come as "
            "there are connections, each of them waits for the others, and all fail.",
            section="See it break",
        )


def sales(apps, login, customers, ways, *copies):
    """What to send for `in_step`: a sale in each of these ways, each by the next customer, at the next process."""
    return [
        lambda app=app, way=way, customer=customer, what=what: app.start_request(
            "POST", path_of(way), **buying(way, what, login(customer))
        )
        for app, way, customer, what in zip(apps, ways, customers, itertools.cycle(copies), strict=False)
    ]


def gift(app, headers, email, copies):
    """What to send for `in_step`: a gift to the customer who has this e-mail."""
    return lambda: app.start_request("POST", "/gifts", json=gift_of(copies, email), headers=headers)


def expect_refund(responses, expected, what):
    """The payment was refused, and nobody was in the way of anybody."""
    expect(
        [one.status for one in responses] == expected,
        f"The payment provider refused, and at the same moment: {what}. They returned {statuses(responses)}. "
        f"Expected: {' and '.join(map(str, expected))}.",
        because=DEADLOCK,
        section=ORDER,
    )


async def expect_sold(shop, book, copies, what, responses, succeed):
    """So many sales succeeded, all others found no copy left, and the stock tells the same."""
    left, in_orders = (await row_of(shop, book))["stock"], await sold(shop, book)
    ok = sum(one.status == 201 for one in responses)
    refused = sum(one.status == 409 for one in responses)
    expect(
        ok == succeed and in_orders == copies and ok + refused == len(responses) and left == 0,
        f"{what}: {statuses(responses)}. Copies before: {copies}; now in orders: {in_orders}, in "
        f"stock: {left}. Expected: {succeed} × 201, else 409, and stock 0.",
        because=OVERSOLD if in_orders > copies else UNSOLD if ok < succeed else UNFRIENDLY,
        section=STALE if in_orders > copies else LOST,
    )
