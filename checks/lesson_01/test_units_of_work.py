"""Lesson 01: every request is a unit of work of its own, and an answer is sent only for work that is durable."""

import asyncio

from checks.kit.holding import answered_while_held
from checks.kit.report import expect
from checks.kit.wire import committing

BOOK = {"isbn": "9780000000001", "title": "The Commit", "price_cents": 1500, "stock": 10}


async def test_a_created_book_can_be_read(app, shop, wire):
    """`POST /books` answers 201 with the stored book, and `GET /books/{id}` returns it."""
    there = await shop.has(authors=1)
    created = await app.post("/books", json=BOOK | {"author_id": there.authors[0]})
    expect(
        created.status == 201,
        f"{created}",
        because="The shop must be able to take in books.",
        read="See it break",
    )
    await wire.calm()
    found = await app.get(f"/books/{created['id']}")
    expect(
        found.status == 200 and found["isbn"] == BOOK["isbn"],
        f"The book was created, then {found}",
        because="Whoever creates something must find it again.",
        read="See it break",
    )


async def test_after_a_failed_request_the_next_one_works(app, shop):
    """A duplicate ISBN answers 409, and the requests after it work as if nothing had happened."""
    there = await shop.has(books=1)
    book = BOOK | {"author_id": there.authors[0]}
    await app.post("/books", json=book)
    twice = await app.post("/books", json=book)
    expect(twice.status == 409, f"The same ISBN a second time: {twice}", because=CLEAN, read="A failed flush")
    for _ in range(3):
        after = await app.get(f"/books/{there.books[0]}")
        expect(after.status == 200, f"After a duplicate ISBN, {after}", because=CLEAN, read="A failed flush")


async def test_an_order_is_all_or_nothing(app, shop):
    """An order whose second line fails leaves nothing behind: no order, no line, no stock taken."""
    there = await shop.has(books=1, customers=1, stock=10)
    book = there.books[0]
    lines = [{"book_id": book, "quantity": 2}, {"book_id": book + 1000, "quantity": 1}]
    answer = await app.post("/orders", json={"customer_id": there.customers[0], "lines": lines})
    expect(answer.status == 404, f"An order with an unknown book: {answer}", because=WHOLE, read="Half an order")
    left = {
        "orders": await shop.count("orders"),
        "order_lines": await shop.count("order_lines"),
        "copies sold": 10 - await shop.value("SELECT stock FROM books WHERE id = $1", book),
    }
    expect(
        not any(left.values()),
        f"The order was refused with 404 and left behind {', '.join(f'{n} {what}' for what, n in left.items() if n)}.",
        because=WHOLE,
        read="Half an order",
    )


async def test_a_good_order_is_stored(app, shop, wire):
    """A good order answers 201 with its total, takes the copies from the stock and can be read again."""
    there = await shop.has(books=2, customers=1, stock=10)
    lines = [{"book_id": book, "quantity": 3} for book in there.books]
    placed = await app.post("/orders", json={"customer_id": there.customers[0], "lines": lines})
    expect(placed.status == 201, f"{placed}", because=WHOLE, read="Half an order")
    await wire.calm()
    again = await app.get(f"/orders/{placed['id']}")
    expect(
        placed["total_cents"] == again["total_cents"] == 3 * 1000 + 3 * 1001,
        f"3 copies at 1000 and 3 at 1001 cents: {placed}, then {again}",
        because=WHOLE,
        read="Half an order",
    )
    stock = sorted(row["stock"] for row in await shop.rows("SELECT stock FROM books"))
    expect(stock == [7, 7], f"Of 10 copies each, 3 were sold; the stock says {stock}.", because=WHOLE)


async def test_a_book_is_announced_only_after_its_commit(app, shop, wire):
    """Nobody is told 201 for a book while its COMMIT is still on the way to PostgreSQL."""
    there = await shop.has(authors=1)
    async with wire.hold(committing) as commits:
        request = app.sending("POST", "/books", json=BOOK | {"author_id": there.authors[0]})
        early = await answered_while_held(app, wire, request, commits)
    answer = await request
    expect(
        not early,
        f"{answer.request} was answered {answer.status} while COMMIT was held.",
        because=DURABLE,
        read=LINE,
    )
    stored = await shop.count("books", "isbn = $1", BOOK["isbn"])
    expect(
        answer.status == 201 and stored == 1,
        f"{answer}, and {stored} such book is stored.",
        because=DURABLE,
        read=LINE,
    )


async def test_an_order_is_confirmed_only_after_its_commit(app, shop, wire):
    """Nobody is told 201 for an order while a COMMIT of its is still on the way to PostgreSQL."""
    there = await shop.has(books=1, customers=1)
    order = {"customer_id": there.customers[0], "lines": [{"book_id": there.books[0], "quantity": 1}]}
    async with wire.hold(committing) as commits:
        request = app.sending("POST", "/orders", json=order)
        early = await answered_while_held(app, wire, request, commits)
    answer = await request
    expect(
        not early,
        f"{answer.request} was answered {answer.status} while COMMIT was held.",
        because=DURABLE,
        read=LINE,
    )
    stored = await shop.count("order_lines")
    expect(
        answer.status == 201 and stored == 1,
        f"{answer}, and {stored} line of it is stored.",
        because=DURABLE,
        read=LINE,
    )


async def test_a_refused_commit_is_no_success(app, shop):
    """An order that PostgreSQL refuses at COMMIT (the customer's credit) is not answered with 2xx."""
    there = await shop.has(books=1, customers=1, stock=10)
    await shop.execute("UPDATE customers SET credit_cents = 500")
    order = {"customer_id": there.customers[0], "lines": [{"book_id": there.books[0], "quantity": 1}]}
    answer = await app.post("/orders", json=order)
    stored = await shop.count("orders")
    expect(
        not answer.ok and stored == 0,
        f"The credit is 500 cents and the order costs 1000. {answer}, and {stored} orders are stored.",
        because="The constraint is deferred: PostgreSQL checks it at COMMIT and refuses the whole transaction then. "
        "An answer that leaves earlier cannot know.",
        read=LINE,
    )


async def test_requests_at_once_do_not_meet(app, shop, wire):
    """Forty requests at once, good and bad ones, each get the answer they would get alone."""
    there = await shop.has(books=10, customers=10)
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", there.books[0])
    new = [BOOK | {"isbn": f"97811111{n:05}", "author_id": there.authors[0]} for n in range(10)]
    orders = [
        {"customer_id": customer, "lines": [{"book_id": book, "quantity": 1}]}
        for customer, book in zip(there.customers, there.books, strict=True)
    ]
    wanted = [201] * 10 + [409] * 10 + [201] * 10 + [200] * 10
    answers = await asyncio.gather(
        *(app.post("/books", json=book) for book in new),
        *(app.post("/books", json=BOOK | {"isbn": taken, "author_id": there.authors[0]}) for _ in range(10)),
        *(app.post("/orders", json=order) for order in orders),
        *(app.get(f"/books/{book}") for book in there.books),
    )
    wrong = [answer for answer, status in zip(answers, wanted, strict=True) if answer.status != status]
    expect(
        not wrong,
        f"{len(wrong)} of 40 requests got an answer that belongs to somebody else's trouble. {(wrong or [''])[0]}",
        because=OWN,
        read="One session for all",
    )
    await wire.calm()
    stored = await shop.count("books") - 10, await shop.count("orders"), await shop.count("order_lines")
    expect(
        stored == (10, 10, 10),
        f"All were answered well, yet of 10 books, 10 orders and 10 lines {stored} are stored.",
        because=OWN,
        read="One session for all",
    )


async def test_no_transaction_outlives_its_request(app, shop, wire):
    """Once the answers are in, no connection is left inside a transaction, whatever they said."""
    there = await shop.has(books=1, customers=1)
    await app.get(f"/books/{there.books[0] + 1000}")
    await wire.settled()
    await app.get(f"/books/{there.books[0]}")
    await wire.settled()
    await app.post("/books", json=BOOK | {"author_id": there.authors[0] + 1000})
    await app.get("/orders/12345")
    await wire.settled()
    idle = await shop.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    expect(
        idle == 0,
        f"pg_stat_activity shows {idle} connections idle in transaction.",
        because=OPEN,
        read="Left open",
    )


async def test_a_client_that_hangs_up_leaves_nothing_open(app, shop, wire):
    """A client that hangs up in the middle of an order leaves no transaction open and no half order."""
    there = await shop.has(books=1, customers=1)
    order = {"customer_id": there.customers[0], "lines": [{"book_id": there.books[0], "quantity": 1}]}
    async with wire.hold("INSERT INTO order_lines") as insert:
        request = app.sending("POST", "/orders", json=order)
        await insert.reached()
        await request.hang_up()
    await wire.settled()
    orders, lines = await shop.count("orders"), await shop.count("order_lines")
    expect(
        orders == lines,
        f"After the client hung up, {orders} order with {lines} lines is stored.",
        because="All of an order or nothing of it: which of the two does not matter to a client that has gone.",
        read="Left open",
    )
    after = await app.get(f"/books/{there.books[0]}")
    expect(after.status == 200, f"After a client hung up, {after}", because=OPEN, read="Left open")


async def test_the_dashboard_is_right(app, shop):
    """`GET /dashboard` counts books, customers and orders and sums the revenue, also right after a start."""
    there = await shop.has(books=3, customers=2)
    answer = await app.get("/dashboard")
    wanted = {"books": 3, "customers": 2, "orders": 0, "revenue_cents": 0}
    expect(
        answer.status == 200 and answer.json == wanted,
        f"The first request after a start: {answer}",
        because="It works on the author's machine, where the service has been warm for hours. What is different about "
        "the very first request, when four statements want a connection at the same moment?",
        read="gather over one session",
    )
    order = await shop.add("orders", customer_id=there.customers[0])
    await shop.add("order_lines", order_id=order, book_id=there.books[1], quantity=2, price_cents=1001)
    answer = await app.get("/dashboard")
    wanted |= {"orders": 1, "revenue_cents": 2002}
    expect(
        answer.status == 200 and answer.json == wanted,
        f"After one order over 2002 cents: {answer}",
        because="The office plans with these figures.",
        read="gather over one session",
    )


async def test_the_dashboard_asks_side_by_side(app, shop, wire):
    """The dashboard's figures are on their way at the same time, or come in a single statement."""
    await shop.has(books=1)
    await app.get("/dashboard")
    with wire.watching() as seen:
        answer = await app.get("/dashboard")
    expect(
        answer.status == 200,
        f"{answer}",
        because="The office needs its figures.",
        read="gather over one session",
    )
    asked = len(seen.data_statements)
    together = min(asked, 2)
    async with wire.hold(lambda statement: statement.verb in ("SELECT", "WITH")) as figures:
        request = app.sending("GET", "/dashboard")
        arrived = await figures.arrived(together)
    await request
    expect(
        arrived >= together,
        f"The dashboard sends {asked} statements; the second one waits until the first is answered.",
        because="A figure can take seconds, and four of them one after another take four times as long. One "
        "connection runs one statement at a time: how many sessions do four statements need?",
        read="gather over one session",
    )


LINE = "The timeline"
CLEAN = (
    "After a failed flush a session refuses everything until somebody rolls it back. Who does that here, "
    "and who else uses this session?"
)
WHOLE = (
    "A customer who reads 404 orders again. Whatever the first attempt wrote is now sold to nobody. "
    "How many commits does one order need?"
)
DURABLE = (
    "Until COMMIT has come back, PostgreSQL may still refuse, or the machine may fail: whoever was told 201 would look "
    "for something that never existed. When does the code after `yield` run, before or after the answer is sent?"
)
OWN = (
    "A session is one conversation with the database: one unit of work, one task. Where two requests share one, "
    "the rollback of the first takes the second one's work along, and both see each other's errors."
)
OPEN = (
    "An open transaction keeps its snapshot, its locks and its pooled connection. Vacuum waits for it, and after a few "
    "such requests so does everybody else. Who ends the transaction of a request that failed, or that only read?"
)
