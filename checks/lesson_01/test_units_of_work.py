"""Lesson 01: each request is a unit of work of its own, and 201 is returned only for work that is stored."""

import asyncio
import re

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.testbed.waiting import responded_while_held, served_meanwhile, wait_quiescent
from checks.kit.wire import NotIdle, committing

BOOK, ORDER = "test_a_created_book_can_be_read", "test_a_good_order_is_stored"
"""If these fail, all requests fail, and a check that nothing is left open would pass for the wrong reason."""

A_POOL = 15
"""Connections that a pool of SQLAlchemy opens at most, by default."""

DASHBOARDS_AT_ONCE, ORDERS_AT_ONCE = 8, A_POOL + 1
"""With four connections for each dashboard, or with one for each order, they need more than a pool has."""

MORE_THAN_A_POOL = 20
"""Requests in a row. A pool opens at most 10 to 15 connections; if each request keeps one, the last ones get none."""


async def test_a_created_book_can_be_read(app, shop, wire):
    """`POST /books` returns 201 with the stored book, and `GET /books/{id}` returns it."""
    ids = await shop.seed(authors=2, books=2)
    for number, left_out in ((1, set()), (2, {"stock"})):
        book = new_book(ids.authors[1], number) | dict.fromkeys(left_out, 0)
        created = await app.post("/books", json={name: book[name] for name in book.keys() - left_out})
        expect(created.status == 201, f"A new book: {created}", because=NEW_BOOK, section="See it break")
        await wait_quiescent(app, wire)
        rows = await shop.rows("SELECT * FROM books WHERE isbn = $1", book["isbn"])
        stored = book | {"id": created["id"]}
        expect(
            [fields(row, stored) for row in rows] == [fields(created.json, stored)] == [stored],
            f"Sent: {book}. {created}. Stored: {rows}.",
            because=NEW_BOOK,
            section="See it break",
        )
        await shop.execute("UPDATE books SET price_cents = price_cents + 7 WHERE id = $1", created["id"])
        stored["price_cents"] += 7
        found = await app.get(f"/books/{created['id']}")
        await wait_quiescent(app, wire)
        expect(
            found.status == 200 and fields(found.json, stored) == stored,
            f"{created}. Then its price was changed to {stored['price_cents']} in the database: {found}",
            because="Customers do not find a book that the shop has, or read a price that is not its price.",
            section="See it break",
        )


async def test_after_a_failed_request_the_next_one_works(app, shop, wire):
    """A duplicate ISBN returns 409, and the requests after it work as if nothing had happened."""
    ids = await shop.seed(books=2, customers=1)
    author, before = ids.authors[0], await book_row(shop, ids.books[0])
    duplicate = new_book(author, 1) | {"isbn": before["isbn"]}
    for number in range(1, MORE_THAN_A_POOL + 1):
        twice = await send(app, wire, "POST", "/books", duplicate)
        expect(
            twice.status == 409,
            f"A book with a taken ISBN was sent. {ordinal(number)} such POST returned {twice.status} instead of 409. "
            f"{twice}",
            because=AFTERWARDS if number > 1 else TAKEN,
            section="A failed flush poisons the session",
        )
    after = await book_row(shop, ids.books[0])
    expect(
        after == before,
        f"The duplicate returned 409. The book that has this ISBN was {before} and is {after}.",
        because="A request that is refused has changed a book that the shop sells.",
        section="A failed flush poisons the session",
    )
    unknown = new_book(author + 100_000, 2)
    refused = await send(app, wire, "POST", "/books", unknown)
    expect(
        not refused.ok,
        f"A book of an author who does not exist: {refused}",
        because="The shop says that it has a book which it does not have.",
        section="A failed flush poisons the session",
    )
    for request in (
        ("GET", f"/books/{ids.books[0]}"),
        ("POST", "/books", unknown | {"author_id": author}),
        ("POST", "/orders", order_of(ids.customers[0], {ids.books[1]: 1})),
    ):
        response = await send(app, wire, *request)
        expect(
            response.ok,
            f"After {MORE_THAN_A_POOL} duplicates and a book without an author: {response}",
            because=AFTERWARDS,
            section="A failed flush poisons the session",
        )


async def test_an_order_is_all_or_nothing(app, shop, wire):
    """A refused order (404 for an unknown book) leaves nothing behind, not even for a moment."""
    ids = await shop.seed(books=3, customers=2, stock=10)
    first, second, scarce = ids.books
    poor, rich = ids.customers
    price = await price_of(shop, first)
    await shop.execute("UPDATE books SET stock = 1 WHERE id = $1", scarce)
    # the first line alone is within the credit
    await shop.execute("UPDATE customers SET credit_cents = $2 WHERE id = $1", poor, 2 * price)
    refusals = {
        "an unknown book in its second line": order_of(rich, {first: 2, scarce + 100_000: 1}),
        "too few copies of the book in its second line": order_of(rich, {first: 2, scarce: 2}),
        "a total beyond the customer's credit": order_of(poor, {first: 2, second: 3}),
        "an unknown customer": order_of(rich + 100_000, {first: 2, second: 1}),
    }
    for why, order in refusals.items():
        response, at_commits, left = await place(app, shop, wire, order)
        unknown_book = "unknown book" in why
        expect(
            (response.status == 404 if unknown_book else not response.ok) or "credit" in why,  # that has its own check
            f"An order with {why}: {response}{'. Expected: 404.' if unknown_book else ''}",
            because="The customer waits for books that will never be sent."
            if response.ok
            else "The customer cannot tell a book that does not exist from a broken shop.",
            section="An early commit leaves half an order",
        )
        expect(
            not left,
            f"An order with {why}: {response}. It left behind: {left}.",
            because=LEFTOVER,
            section="An early commit leaves half an order",
        )
        halves = [half for half in at_commits if half]
        expect(
            not halves,
            f"An order with {why}: {response}. Its COMMITs were held one after the other. "
            f"At one of them the database held {''.join(halves[:1])}, which was taken back later.",
            because=BETWEEN,
            section="An early commit leaves half an order",
        )
    response, at_commits, whole = await place(app, shop, wire, order_of(rich, {first: 2, second: 1}))
    halves = [half for half in at_commits if half not in ("", whole)]
    expect(
        response.status == 201 and not halves,
        f"An order of two books: {response}. Its COMMITs were held one after the other. "
        f"At one of them the database held {''.join(halves[:1]) or 'nothing'}, in the end {whole or 'nothing'}.",
        because=BETWEEN if response.ok else "The shop cannot sell its books.",
        section="An early commit leaves half an order",
    )


async def test_a_good_order_is_stored(app, shop, wire):
    """A good order returns 201 with its total, takes the copies from the stock and can be read again."""
    ids = await shop.seed(books=3, customers=2, stock=10, orders=2)
    customer, stock = ids.customers[1], dict.fromkeys(ids.books, 10)
    prices = {book: await price_of(shop, book) for book in ids.books}
    for wanted in (
        [(ids.books[2], 3), (ids.books[0], 1)],
        [(ids.books[0], 1), (ids.books[2], 2)],  # the other way round: a query returns rows in an order of its own
        [(ids.books[1], 4), (ids.books[0], 1), (ids.books[1], 6)],  # a book in two lines, and all of its copies
    ):
        placed = await app.post("/orders", json=order_of(customer, wanted))
        total = sum(quantity * prices[book] for book, quantity in wanted)
        expected = {"customer_id": customer, "total_cents": total}
        expect(
            placed.status == 201 and fields(placed.json, expected) == expected,
            f"An order of {listed(wanted, prices)}: {placed}. Expected: 201 with {expected}.",
            because="The customer pays another sum than the books cost, or cannot buy them at all.",
            section="An early commit leaves half an order",
        )
        await wait_quiescent(app, wire)
        lines = await shop.rows(
            "SELECT book_id, sum(quantity)::bigint AS copies, l.price_cents FROM order_lines l "
            "JOIN orders o ON o.id = order_id WHERE o.id = $1 AND customer_id = $2 GROUP BY book_id, l.price_cents",
            placed["id"],
            customer,
        )
        copies = {book: sum(n for other, n in wanted if other == book) for book, _ in wanted}
        right = [{"book_id": book, "copies": n, "price_cents": prices[book]} for book, n in copies.items()]
        expect(
            sorted(lines, key=str) == sorted(right, key=str),
            f"An order of {listed(wanted, prices)}: {placed}. Stored in its lines, for each book: {lines}.",
            because="The warehouse sends other books than the customer has ordered.",
            section="An early commit leaves half an order",
        )
        stock = {book: left - copies.get(book, 0) for book, left in stock.items()}
        now = {book: (await book_row(shop, book))["stock"] for book in ids.books}
        expect(
            now == stock,
            f"An order of {listed(wanted, prices)}: {placed}. The stock is now {now}, and should be {stock}.",
            because="The shop goes on selling copies that are sold already, or keeps copies that nobody has bought.",
            section="An early commit leaves half an order",
        )
        await shop.execute("UPDATE books SET price_cents = price_cents + 50")
        prices = {book: price + 50 for book, price in prices.items()}
        expected["id"] = placed["id"]
        again = await app.get(f"/orders/{placed['id']}")
        await wait_quiescent(app, wire)
        expect(
            again.status == 200 and fields(again.json, expected) == expected,
            f"{placed}. Then all books became dearer by 50 cents: {again}. Expected: {expected}.",
            because="A customer who looks at an order must find what was ordered, at the prices of that day.",
            section="An early commit leaves half an order",
        )


@pytest.mark.start_early
async def test_a_book_is_announced_only_after_its_commit(app, shop, wire):
    """`POST /books` returns 201 only after its COMMIT has succeeded."""
    ids = await shop.seed(authors=1)

    async def stored(book):
        return await shop.count("books", "isbn = $1", book["isbn"])

    book = new_book(ids.authors[0], 1)
    async with wire.hold(committing) as commits:
        request = app.start_request("POST", "/books", json=book)
        early = await responded_while_held(app, wire, request, commits)
        response, at_response = await request, await stored(book)
    refused = early and not response.ok  # a service may give up on a COMMIT that takes long, if it says so
    expect(
        refused or not early,
        f"{response.request} returned {response.status} while COMMIT was held on its way to PostgreSQL.",
        because=DURABLE,
        section=LINE,
    )
    expect(
        refused or (response.status == 201 and at_response == 1),
        f"{response}. At this moment the database held {plural(at_response, 'such book')}. Expected: 201, and 1 such "
        "book.",
        because=DURABLE if response.ok else "The shop cannot take in a new book.",
        section=LINE,
    )
    book = new_book(ids.authors[0], 2)
    response = await cut_at_commit(app, wire, "/books", book)
    expect(
        not response.ok or await stored(book) == 1,
        f"The connection to PostgreSQL broke at COMMIT, and nothing was stored. {response}",
        because=LOST,
        section=LINE,
    )


@pytest.mark.start_early
async def test_an_order_is_confirmed_only_after_its_commit(app, shop, wire):
    """`POST /orders` returns 201 only after its COMMIT has succeeded."""
    ids = await shop.seed(books=2, customers=1)
    before = await totals(shop)
    order = order_of(ids.customers[0], {ids.books[0]: 1, ids.books[1]: 2})
    async with wire.hold(committing) as commits:
        request = app.start_request("POST", "/orders", json=order)
        early = await responded_while_held(app, wire, request, commits)
        response, at_response = await request, changes(before, await totals(shop))
    refused = early and not response.ok  # a service may give up on a COMMIT that takes long, if it says so
    expect(
        refused or not early,
        f"{response.request} returned {response.status} while COMMIT was held on its way to PostgreSQL.",
        because=DURABLE,
        section=LINE,
    )
    whole = "1 order, 2 order lines, 3 copies taken"
    expect(
        refused or (response.status == 201 and at_response == whole),
        f"{response}. At this moment the database held: {at_response or 'nothing of it'}. Expected: {whole}.",
        because=DURABLE if response.ok else "The customer cannot order.",
        section=LINE,
    )
    before = await totals(shop)
    response = await cut_at_commit(app, wire, "/orders", order)
    stored = changes(before, await totals(shop))
    expect(
        not response.ok or stored == whole,
        f"The connection to PostgreSQL broke at COMMIT. {response}. Stored: {stored or 'nothing'}.",
        because=LOST,
        section=LINE,
    )


async def test_a_refused_commit_is_no_success(app, shop, wire):
    """An order that PostgreSQL refuses at COMMIT (the customer's credit) returns no 2xx and leaves nothing behind."""
    ids = await shop.seed(books=1, customers=2, stock=10)
    customer, price = ids.customers[0], await price_of(shop, ids.books[0])
    order = order_of(customer, {ids.books[0]: 1})
    await shop.execute(
        "UPDATE customers SET credit_cents = $2 WHERE id = $1",
        customer,
        2 * price,
        step=f"the customer's credit is {2 * price} cents",
    )
    for number in (1, 2, 3, 4):
        within = number <= 2
        response, _, stored = await place(app, shop, wire, order)
        story = f"The credit is {2 * price} cents, a book costs {price}. Order number {number} of one copy: {response}"
        expect(
            response.ok == within,
            story,
            because="A customer with enough credit cannot buy a book."
            if within
            else "The constraint is deferred: PostgreSQL checks it at COMMIT and refuses the whole transaction then. "
            "The customer waits for books that nobody will send.",
            section=LINE,
        )
        expect(
            bool(stored) == within,
            f"{story}. It is not stored."
            if within
            else f"An order beyond the customer's credit is stored: {stored}. {story}.",
            because=DURABLE if within else LEFTOVER,
            section=LINE if within else "An early commit leaves half an order",
        )


@pytest.mark.needs(BOOK, ORDER)
async def test_requests_at_once_do_not_meet(app, shop, wire):
    """With 40 concurrent requests, valid and invalid, each gets the response it would get on its own."""
    ids = await shop.seed(books=16 + ORDERS_AT_ONCE, customers=7 + ORDERS_AT_ONCE, stock=10, orders=3)
    buyers = list(zip(ids.customers[7:], ids.books[16:], strict=True))
    author, before = ids.authors[0], await totals(shop)
    taken = (await book_row(shop, ids.books[0]))["isbn"]

    def refused_order(book):
        return "POST", "/orders", order_of(ids.customers[6], {book: 1, ids.books[0] + 100_000: 1})

    # Each entry: the request, its status, and what must be in the response.
    # 16 reads are more than a pool has connections.
    sent = [
        *((("POST", "/books", new_book(author, n)), 201, new_book(author, n)) for n in range(6)),
        *((("POST", "/books", new_book(author, n) | {"isbn": taken}), 409, {}) for n in range(20, 25)),
        *(
            (("POST", "/orders", order_of(customer, {book: 1})), 201, {"customer_id": customer})
            for customer, book in zip(ids.customers[:6], ids.books[:6], strict=True)
        ),
        *((refused_order(book), 404, {}) for book in ids.books[6:10]),
        *((("GET", f"/books/{book}"), 200, {"id": book}) for book in ids.books[:16]),
        *((("GET", f"/orders/{order}"), 200, {"id": order}) for order in ids.orders),
    ]
    responses = await asyncio.gather(*(send(app, wire, *request) for request, _, _ in sent))
    await wait_quiescent(app, wire)
    stored = await totals(shop)
    wrong = [
        (status, f"{response}. Expected: {status} {body or ''}")
        for response, (_, status, body) in zip(responses, sent, strict=True)
        if response.status != status or (body and fields(response.json, body) != body)
    ]
    kinds = {status for status, _ in wrong}
    only_duplicates = kinds == {409}  # these may fail on their own, too
    happened = (
        f"{plural(len(wrong), 'request')} of {len(sent)} at once got another response than expected. "
        f"{''.join(text for _, text in wrong[:1])}"
    )
    expect(
        kinds <= {404},
        happened,
        because=TAKEN if only_duplicates else OWN,
        section=INSERT_ONLY if only_duplicates else SHARED,
    )
    # what one refused order returns and leaves behind on its own is the subject of another check
    alone = await send(app, wire, *refused_order(ids.books[10]))
    await wait_quiescent(app, wire)
    left = difference(stored, await totals(shop))
    expect(
        not wrong or alone.status != 404,
        happened,
        because=OWN,
        section=SHARED,
    )
    sold = {"book": 6, "order": 6, "order line": 6, "copy taken": 6}
    wanted = {what: before[what] + sold[what] + 4 * left[what] for what in before}
    expect(
        stored == wanted,
        f"{len(sent)} requests at once got the responses that were expected. "
        f"Stored: {changes(before, stored)}. Expected: {changes(before, wanted)}.",
        because=MIXED,
        section=SHARED,
    )
    async with wire.hold(changing) as held:  # all of a pool's connections are in use before an order goes on
        orders = [start(app, "POST", "/orders", order_of(buyer, {book: 1})) for buyer, book in buyers]
        await held.count_within(A_POOL, timeout=5)
        held.release()
        responses = await outcomes(orders)
    expect_each_served(responses, 201, f"{len(buyers)} customers ordered at once, each a book of their own")
    same = [("POST", "/orders", order_of(buyer, {ids.books[0]: 1})) for buyer, _ in buyers[:2]]
    expect_each_served(
        await two_at_once(app, wire, *same, taking_copies),
        201,
        "Two customers ordered a copy each of the same book, of which there were enough. The second order arrived "
        "before the COMMIT of the first",
    )
    twice = ("POST", "/books", new_book(author, 30))
    first, second = await two_at_once(app, wire, twice, twice, changing)
    expect(
        sorted((first.status, second.status)) == [201, 409],
        f"Two requests with the same new ISBN. The second arrived before the COMMIT of the first: {first}; {second}",
        because="One of the two must read that the ISBN is taken. An error 500 looks as if the shop were broken.",
        section=INSERT_ONLY,
    )


@pytest.mark.needs(BOOK, ORDER)
async def test_a_request_does_not_wait_for_others(app, shop, wire):
    """While one request waits for PostgreSQL, the shop goes on serving others."""
    ids = await shop.seed(books=3, customers=2, orders=1)
    books, customers = ids.books, ids.customers
    read = ("GET", f"/books/{books[2]}")
    others = [read, ("GET", f"/orders/{ids.orders[0]}"), ("GET", "/dashboard")]
    order = ("POST", "/orders", order_of(customers[1], {books[1]: 1}))
    # not two orders, or two new books, at once: an app may well let those wait for one another
    first, second = (("POST", "/books", new_book(ids.authors[0], n)) for n in (1, 2))
    for held, what, request, meanwhile in (
        (reading, "the SELECT", ("GET", f"/books/{books[0]}"), [*others, order]),
        (reading, "the first SELECT", ("GET", "/dashboard"), others),
        (committing, "the COMMIT", first, [*others, order]),
        (
            committing,
            "the COMMIT",
            ("POST", "/orders", order_of(customers[0], {books[0]: 1})),
            [*others, second],
        ),
    ):
        async with wire.hold(held, limit=1) as statements:
            waiting = start(app, *request)
            if not await statements.wait_for_or(waiting.task):
                continue  # nothing was asked of PostgreSQL, so nobody waits
            unanswered = ""
            for one in meanwhile:
                if not await was_served(app, *one):
                    unanswered = " ".join(one[:2])
                    break
        await asyncio.wait({waiting.task})
        expect(
            not unanswered,
            f"While {what} of {' '.join(request[:2])} was held, {unanswered} got no response.",
            because="One slow statement keeps other customers waiting, for as long as it takes.",
            section=SHARED,
        )


@pytest.mark.needs(BOOK, ORDER)
async def test_no_transaction_outlives_its_request(app, shop, wire):
    """After the responses, whatever their status, no connection is left inside a transaction."""
    ids = await shop.seed(books=2, customers=2, orders=1, stock=5)
    book, customer = ids.books[0], ids.customers[0]
    await shop.execute("UPDATE customers SET credit_cents = 1 WHERE id = $1", ids.customers[1])
    new = new_book(ids.authors[0], 1)
    for request in (
        ("GET", f"/books/{book}"),
        ("GET", f"/books/{book + 100_000}"),
        ("POST", "/books", new),
        ("POST", "/books", new),
        ("POST", "/books", new_book(ids.authors[0] + 100_000, 2)),
        ("POST", "/books", {"isbn": "too short"}),
        ("GET", f"/orders/{ids.orders[0]}"),
        ("GET", f"/orders/{ids.orders[0] + 100_000}"),
        ("POST", "/orders", order_of(customer, {book: 1})),
        ("POST", "/orders", order_of(customer, {book: 1, book + 100_000: 1})),
        ("POST", "/orders", order_of(customer, {book: 1, ids.books[1]: 6})),
        ("POST", "/orders", order_of(ids.customers[1], {book: 1})),
        ("POST", "/orders", order_of(customer + 100_000, {book: 1})),
        ("GET", "/dashboard"),
        ("GET", "/health"),
    ):
        response = await send(app, wire, *request)
        left = await left_open(wire)
        expect(not left, f"After {response}: {left}", because=OPEN, section="An exception leaves the transaction open")


@pytest.mark.start_early
async def test_a_client_that_hangs_up_leaves_nothing_open(app, shop, wire):
    """A client that hangs up in the middle of an order leaves no transaction open and no half order."""
    ids = await shop.seed(books=2, customers=4)
    whole = "1 order, 2 order lines, 3 copies taken"
    copies = {ids.books[0]: 1, ids.books[1]: 2}
    points = {"its first change": changing, "its lines": writing_lines, "its COMMIT": committing}
    for customer, (point, statement) in zip(ids.customers, points.items(), strict=False):
        before = await totals(shop)
        async with wire.hold(statement, limit=1) as held:
            request = app.start_request("POST", "/orders", json=order_of(customer, copies))
            await held.wait_for()
            await request.disconnect()
            await app.flush()  # by now the server knows that the client has gone
            await app.flush()  # and what it has cancelled for that reason has ended
            # some apps look for their client only now and then: with a slow wire they do so before the order is done
            async with wire.latency(0.05):
                held.release()
                await wait_quiescent(app, wire)
        story = f"A client hung up while {point} was on the way to PostgreSQL."
        left = await left_open(wire)
        expect(not left, f"{story} {left}", because=OPEN, section="An exception leaves the transaction open")
        await wait_quiescent(app, wire)
        stored = changes(before, await totals(shop))
        expect(
            stored in ("", whole),
            f"{story} Stored: {stored}. Expected: nothing, or {whole}.",
            because="A part of an order cannot be sent. Copies are missing from the stock, or the customer owes money "
            "for them.",
            section="An early commit leaves half an order",
        )
    response = await app.post("/orders", json=order_of(ids.customers[3], copies))
    expect(
        response.status == 201,
        f"After {len(points)} clients had hung up, another customer ordered: {response}",
        because="Clients that give up break the shop for the next customer.",
        section="An exception leaves the transaction open",
    )


async def test_the_dashboard_is_right(app, shop, wire):
    """`GET /dashboard` counts books, customers and orders and sums the revenue, also right after a start."""
    await expect_dashboard(app, shop, "The first request after a start, with an empty shop")
    async with wire.latency(0.05):  # all begin before the first one ends
        responses = await outcomes([start(app, "GET", "/dashboard") for _ in range(DASHBOARDS_AT_ONCE)])
    expect_each_served(responses, 200, f"{DASHBOARDS_AT_ONCE} requests for the dashboard at once")
    ids = await shop.seed(books=5, customers=3, orders=2, lines=2)
    await expect_dashboard(app, shop, "After books, customers and orders had been added")
    await shop.add("orders", customer_id=ids.customers[0])  # an order without lines counts, too
    await shop.execute("UPDATE books SET stock = 0 WHERE id = $1", ids.books[0])  # and a book that is sold out
    # more than an integer holds, in two orders, since each customer's credit is an integer
    await shop.execute("UPDATE customers SET credit_cents = 2147483647")
    for customer in ids.customers[1:]:
        order = await shop.add("orders", customer_id=customer)
        await shop.add("order_lines", order_id=order, book_id=ids.books[1], quantity=2, price_cents=700_000_001)
    await expect_dashboard(app, shop, "After three more orders")


async def test_the_dashboard_asks_side_by_side(app, shop, wire):
    """The dashboard runs its queries concurrently, or as one statement."""
    await shop.seed(books=1)
    await app.get("/dashboard")
    with wire.watching() as seen:
        response = await app.get("/dashboard")
    expect(
        response.status == 200,
        f"The second request for the dashboard: {response}",
        because="The office needs its figures.",
        section="gather over one session fails or queues",
    )
    asked = len({statement.text for statement in seen.statements if about_figures(statement)})
    async with wire.hold(about_figures) as figures:
        request = app.start_request("GET", "/dashboard")
        arrived = await figures.count_within(asked)
        waited_for = asked - arrived
    await asyncio.wait({request.task})
    expect(
        waited_for <= 0,
        f"The dashboard sends {plural(asked, 'query', 'queries')}. While the first ones were held, "
        f"only {arrived} had been sent; the others wait until these have their results.",
        because="On the production database each of these queries takes a while. One after another, the office waits "
        "for the sum of all. A connection runs one statement at a time.",
        section="gather over one session fails or queues",
    )


# what the checks send


def new_book(author, number):
    """A book that the shop does not have, with a title that is not friendly to quoting."""
    return {
        "isbn": f"97955500{number:05}",
        "title": f'100 % of "it\'s"; -- Über \\{number}',
        "author_id": author,
        "price_cents": 1500 + number,
        "stock": 3 + number,
    }


def order_of(customer, copies):
    """An order: `copies` are quantities by book, or pairs of book and quantity."""
    pairs = copies.items() if isinstance(copies, dict) else copies
    return {"customer_id": customer, "lines": [{"book_id": book, "quantity": n} for book, n in pairs]}


def start(app, method, path, body=None):
    return app.start_request(method, path, **({"json": body} if body else {}))


async def send(app, wire, *request):
    return await answered(start(app, *request), wire)


async def answered(request, wire):
    """The response. Where none comes although a transaction stays open, that is the finding, in every check."""
    try:
        return await request
    except NoResponse as error:
        left = await left_open(wire)
        expect(
            not left,
            f"{error} {left}. The hints about this: workbook hint 1 no_transaction",
            because=OPEN,
            section="An exception leaves the transaction open",
        )
        raise


async def was_served(app, method, path, body=None):
    """Whether a request got a response while the one of the check was held."""
    return await served_meanwhile(app, method, path, **({"json": body} if body else {})) is not None


async def place(app, shop, wire, order):
    """Places an order: the response, what others could see of it at each of its COMMITs, and what it left behind."""
    before, at_commits = await totals(shop), []
    async with wire.hold(committing) as commits:
        request = app.start_request("POST", "/orders", json=order)
        while await another_commit(app, wire, request, commits):
            at_commits.append(changes(before, await totals(shop)))
            commits.release_one()
    return await answered(request, wire), at_commits, changes(before, await totals(shop))


async def another_commit(app, wire, request, commits):
    """Whether one more COMMIT is held, of the request or of what the app does after its response."""
    if await commits.wait_for_or(request.task):
        return True
    rest = asyncio.ensure_future(wait_quiescent(app, wire))
    held = await commits.wait_for_or(rest)
    rest.cancel()
    return held


async def cut_at_commit(app, wire, path, body):
    """The response to a request whose connection to PostgreSQL breaks before its COMMIT arrives there."""
    async with wire.hold(committing) as commits:
        request = app.start_request("POST", path, json=body)
        if await commits.wait_for_or(request.task):
            await wire.cut()
        commits.release()
        response = await request
    await wait_quiescent(app, wire)
    return response


async def two_at_once(app, wire, one, other, change):
    """The responses to two requests, of which the second has come to its `change` before the first has committed."""
    async with wire.hold(committing, limit=1) as commits:
        first = start(app, *one)
        await commits.wait_for_or(first.task)
        async with wire.hold(change, limit=1) as changes_held:
            second = start(app, *other)
            arrived = asyncio.ensure_future(changes_held.count_within(1))  # an app may also let it wait for the first
            await asyncio.wait({arrived, second.task}, return_when=asyncio.FIRST_COMPLETED)
            arrived.cancel()
            commits.release()
            await asyncio.wait({first.task})
    return await first, await second


async def outcomes(requests):
    """The responses to requests, or NoResponse in place of one."""
    return await asyncio.gather(*(request.task for request in requests), return_exceptions=True)


def expect_each_served(responses, status, story):
    """All responses have this status, and none is missing."""
    missing = [response for response in responses if isinstance(response, NoResponse)]
    wrong = missing or [response for response in responses if response.status != status]
    expect(
        not wrong,
        f"{story}. Each should return {status}. {len(wrong)} of {len(responses)} did not: {wrong[0] if wrong else ''}",
        because=WAITS if missing else OWN,
        section=SHARED,
    )


async def expect_dashboard(app, shop, story):
    wanted = {table: await shop.count(table) for table in ("books", "customers", "orders")}
    wanted["revenue_cents"] = await shop.value(
        "SELECT coalesce(sum(quantity * price_cents), 0)::bigint FROM order_lines"
    )
    response = await app.get("/dashboard")
    expect(
        response.status == 200 and response.json == wanted,
        f"{story}: {response}. Expected: {wanted}.",
        because="The office plans with these figures, and does so when the service has just been started, too.",
        section="gather over one session fails or queues",
    )


# what the checks look at


def reading(statement):
    """For `wire.hold`: a statement that reads data."""
    return statement.data and not statement.changes


def changing(statement):
    """For `wire.hold`: a statement that changes data."""
    return statement.changes


def writing_lines(statement):
    """For `wire.hold`: the statement that writes an order's lines, however it does that."""
    return statement.changes and "order_lines" in statement.text.lower()


def taking_copies(statement):
    """For `wire.hold`: the statement that takes copies from the stock, however it does that."""
    return statement.changes and "books" in re.findall(r"\w+", statement.text.lower())


def about_figures(statement):
    """For `wire.hold`: a statement that reads a table of which the dashboard shows a figure."""
    names = re.findall(r"\w+", statement.text.lower())
    return statement.data and not {"books", "customers", "orders", "order_lines"}.isdisjoint(names)


def fields(body, like):
    """Those fields of a body that `like` has."""
    return {name: body.get(name) for name in like} if isinstance(body, dict) else {}


async def book_row(shop, book):
    [row] = await shop.rows("SELECT * FROM books WHERE id = $1", book)
    return row


async def price_of(shop, book):
    return (await book_row(shop, book))["price_cents"]


async def totals(shop):
    stock = "SELECT coalesce(sum(stock), 0)::bigint FROM books WHERE isbn NOT LIKE '979555%'"  # without new books
    return {
        "book": await shop.count("books"),
        "order": await shop.count("orders"),
        "order line": await shop.count("order_lines"),
        "copy taken": -await shop.value(stock),
    }


def difference(before, after):
    return {what: after[what] - before[what] for what in before}


def changes(before, after):
    """What came to the shop: `1 order, 2 order lines, 3 copies taken`; empty if nothing did."""
    many = {"copy taken": "copies taken"}
    return ", ".join(plural(n, what, many.get(what, "")) for what, n in difference(before, after).items() if n)


async def left_open(wire):
    """What `wire.wait_idle` says about connections that stay inside a transaction; empty if none does."""
    try:
        await wire.wait_idle()
    except NotIdle as error:
        return str(error)
    return ""


def listed(wanted, prices):
    return " and ".join(f"{plural(n, 'copy', 'copies')} of book {book} at {prices[book]} cents" for book, n in wanted)


def ordinal(number):
    return {1: "The first", 2: "The second", 3: "The third"}.get(number, f"The {number}th")


LINE = "A 201 can arrive before its COMMIT"
SHARED = "Requests that share a session or a connection"
INSERT_ONLY = "A SELECT does not see an ISBN that is not committed"
NEW_BOOK = "Customers buy the book that is stored. It must be the one that was sent."
TAKEN = "A client cannot tell a taken ISBN from a broken shop."
AFTERWARDS = "One duplicate ISBN breaks the requests after it, also those that have nothing to do with it."
LEFTOVER = (
    "The rest of a refused order does harm: copies are missing from the stock, or the customer seems to owe money for "
    "an order that was not placed."
)
BETWEEN = (
    "If the service or the connection ends between these two transactions, half an order stays in the database, and no "
    "code takes it back."
)
DURABLE = (
    "Until COMMIT has come back, PostgreSQL may still refuse, and the machine may fail. Then the customer holds a "
    "confirmation of something that does not exist."
)
LOST = "The work was rolled back when the connection broke, and the customer holds a confirmation of it."
OWN = (
    "A customer reads an error that another customer has caused, or loses an order to another one's rollback. "
    "It happens only under load, when it hurts most."
)
MIXED = (
    "A customer loses an order to another one's rollback, or something is stored that was refused. It happens only "
    "under load, when it hurts most."
)
WAITS = (
    "Customers wait for a page that does not come. That happens if a request keeps a connection while it waits for "
    "another one: once the pool has none left, all of them wait for each other."
)
OPEN = (
    "An open transaction keeps its pooled connection, and every lock that it has taken. After a few such requests no "
    "connection is left for anybody."
)
