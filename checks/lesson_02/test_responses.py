"""Lesson 02: a response says what the database holds now, and reading that does no surprising work."""

import re
from datetime import UTC, datetime

import asyncpg
import pytest

from checks.kit.report import difference, expect, plural
from checks.kit.testbed.waiting import wait_quiescent
from checks.kit.wire import committing
from checks.lesson_02.triggers import REVISIONS, change_books, change_reviews, note_committed_books, scatter_books

TYPED = "0-8044 2957-x"

EXPIRY = "What a commit expires"
WAYS = "Four ways to read after a commit"
ONUPDATE = "What onupdate leaves unknown"
TRIGGERS = "What a trigger changes without telling the session"
ROUND_TRIPS = "One refresh per row is one round trip per row"
AFTER = "After the response"


async def test_a_created_book_is_returned_as_it_is_stored(app, shop, wire):
    """`POST /books` returns 201 with the book as PostgreSQL stores it, including what triggers changed."""
    ids = await shop.seed(authors=2)
    await change_books(shop)
    for body in (
        {"isbn": TYPED, "title": 'The "100%" Book', "author_id": ids.authors[1], "price_cents": 1500},
        {"isbn": "978-0-13-468599-1", "title": "Ärger", "author_id": ids.authors[0], "price_cents": 7, "stock": 3},
    ):
        other = new_book(ids, f"97802620{body['price_cents']:05}") | {"title": "Other"}
        response = await while_others_write(app, wire, shop, "/books", body, "books", other)
        await wait_quiescent(app, wire)  # whether it is stored before its response is another check's
        stored = await shop.count("books", "title = $1", body["title"])
        expect(response.status == 201, f"{response}", because=unconfirmed(response, stored, "book"), section=EXPIRY)
        row = await book_with(shop, response["id"])
        expect(
            (row["title"], row["price_cents"], row["stock"])
            == (body["title"], body["price_cents"], body.get("stock", 0)),
            f"{body} was sent. The response has the id of {row['title']!r}, {row['price_cents']} cents.",
            because="The editor goes on to work on somebody else's book.",
            section=WAYS,
        )
        expect_as_stored(response.json, row, TRIGGERS)
        expect(
            row["isbn"] == body["isbn"].upper().replace("-", "").replace(" ", "") + "#",
            f"The ISBN was sent as {body['isbn']} and is stored as {row['isbn']}, which is not the triggers' work.",
            because="The ticket leaves schema.sql as it is. Other services rely on its triggers.",
            section=TRIGGERS,
        )


@pytest.mark.needs(
    "test_a_created_book_is_returned_as_it_is_stored",
    "test_a_change_is_returned",
    "test_a_list_of_books_is_returned_as_it_is_stored",
    "test_a_retry_does_not_write_twice",
)
async def test_a_response_comes_after_its_commit(app, shop, wire):
    """When a 2xx arrives, the book, the list, the change, the review or the order that it confirms is stored."""
    ids = await shop.seed(books=1, customers=1)
    book, customer = ids.books[0], ids.customers[0]
    order = {"customer_id": customer, "lines": [{"book_id": book, "quantity": 1}]}
    review = {"customer_id": customer, "rating": 4}
    two = [new_book(ids, "9780262033848"), new_book(ids, "9780201633610")]
    for method, path, body, is_stored in (
        ("POST", "/books", new_book(ids, TYPED), "SELECT count(*) = 1 FROM books WHERE title = 'New'"),
        ("POST", "/books/bulk", two, "SELECT count(*) = 3 FROM books WHERE title = 'New'"),
        ("PATCH", f"/books/{book}", {"price_cents": 4711}, f"SELECT price_cents = 4711 FROM books WHERE id = {book}"),
        ("POST", f"/books/{book}/reviews", review, f"SELECT count(*) = 1 FROM reviews WHERE customer_id = {customer}"),
        ("POST", "/orders", order, f"SELECT count(*) = 1 FROM orders WHERE customer_id = {customer}"),
    ):
        async with wire.hold(committing) as commits:
            request = app.start_request(method, path, json=body)
            while await commits.wait_for_or(request.task):
                await app.flush()
                if request.responded:
                    break
                commits.release_one()
            response = await request
            stored = await shop.value(is_stored)  # whatever commits later is still held
        await wait_quiescent(app, wire)
        later = await shop.value(is_stored)
        expect(response.ok, f"{response}", because="The client's request fails.", section=WAYS)
        expect(
            stored,
            f"{response.request} returned {response.status}. When the response arrived, the database did not hold what "
            f"it says{', and it never did afterwards' if not later else ': the response did not wait for the COMMIT'}.",
            because="If the COMMIT fails now, the client has a confirmation of something that does not exist."
            if later
            else "The client has a confirmation of something that does not exist.",
            section=AFTER,
        )


async def test_a_change_is_returned(app, shop, wire):
    """`PATCH /books/{id}` returns 200 with the changed book and a later `updated_at`."""
    ids = await shop.seed(books=2)
    for change in ({"price_cents": 1999}, {"title": 'It\'s "new"'}, {"isbn": "9780201633610"}):
        before = await book_with(shop, ids.books[1])
        response = await app.patch(f"/books/{ids.books[1]}", json=change)
        await wait_quiescent(app, wire)
        row = await book_with(shop, ids.books[1])
        why = unconfirmed(response, row != before, "change")
        expect(response.status == 200, f"{change} was sent. {response}", because=why, section=ONUPDATE)
        expect_changed(response, change, before, row)
        expect(
            row["updated_at"] > before["updated_at"],
            f"updated_at was {before['updated_at']}. After a change it is stored as {row['updated_at']}.",
            because="A service that asks for what has changed since yesterday misses this book.",
            section=ONUPDATE,
        )
        expected = change | {"id": ids.books[1], "updated_at": row["updated_at"]}
        expect_as_stored(response.json, expected, ONUPDATE)


async def test_a_change_is_returned_as_it_is_stored(app, shop, wire):
    """The response to a PATCH holds what the triggers made of the book, and the PATCH changes its row once."""
    ids = await shop.seed(books=3)
    book = ids.books[1]
    await change_books(shop)
    neighbors = await shop.rows("SELECT * FROM books WHERE id <> $1 ORDER BY id", book)
    for change in ({"isbn": TYPED, "title": "New"}, {"isbn": "0 80442957-x", "price_cents": 4321}, {"title": "Newer"}):
        before = await book_with(shop, book)
        response = await app.patch(f"/books/{book}", json=change)
        await wait_quiescent(app, wire)
        row = await book_with(shop, book)
        why = unconfirmed(response, row != before, "change")
        expect(response.status == 200, f"{change} was sent. {response}", because=why, section=ONUPDATE)
        expect_changed(response, change, before, row)
        expect_as_stored(response.json, row, TRIGGERS)
        expected = {
            name: (before | change)[name] for name in ("title", "author_id", "price_cents", "stock", "created_at")
        }
        wrong = [
            f"{name} is {row[name]!r} in place of {value!r}" for name, value in expected.items() if row[name] != value
        ]
        expect(
            not wrong,
            f"After a PATCH with {change} {', '.join(wrong)}.",
            because="The stored book is not the one that the editors have saved.",
            section=TRIGGERS,
        )
        expect(
            row["revision"] - before["revision"] == REVISIONS,
            f"One PATCH changed the row {(row['revision'] - before['revision']) / REVISIONS:g} times.",
            because="The editors count revisions, and this number does not rise once for each change of theirs.",
            section=TRIGGERS,
        )
    expect(
        neighbors == await shop.rows("SELECT * FROM books WHERE id <> $1 ORDER BY id", book),
        f"After PATCH /books/{book} other books have changed, too.",
        because="The editors changed one book.",
        section=TRIGGERS,
    )


async def test_a_refused_change_changes_nothing(app, shop, wire):
    """A PATCH to an ISBN that is taken returns 409 and changes nothing."""
    ids = await shop.seed(books=3)
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", ids.books[2])
    before = await shop.rows("SELECT * FROM books ORDER BY id")

    async def expect_refused(response, how):
        await wait_quiescent(app, wire)
        now = await shop.rows("SELECT * FROM books WHERE id = ANY($1) ORDER BY id", [row["id"] for row in before])
        changed = [new["id"] for old, new in zip(before, now, strict=True) if old != new]
        expect(
            response.status == 409 and not changed,
            f"The ISBN {how}. {response}, and {plural(len(changed), 'book')} changed.",
            because="Part of a change that is impossible is in the catalogue."
            if changed
            else "The editor does not learn that another book has this ISBN.",
            section=ONUPDATE,
        )

    for isbn, how in ((taken, "is that of another book"), (f"{taken[:4]} {taken[4:]}", "is taken, with a space in it")):
        change = {"title": "New", "isbn": isbn, "price_cents": 5}
        await expect_refused(await app.patch(f"/books/{ids.books[0]}", json=change), how)
    arrived = False
    async with wire.hold(changing, limit=1) as changes:
        request = app.start_request("PATCH", f"/books/{ids.books[0]}", json={"title": "New", "isbn": "9780201633610"})
        if await changes.wait_for_or(request.task):
            arrived = await arrives_meanwhile(
                shop, "books", isbn="9780201633610", title="Other", author_id=ids.authors[0], price_cents=1
            )
    response = await request
    if arrived:
        await expect_refused(response, "is taken by a book that arrives just before the UPDATE")


@pytest.mark.needs("test_a_change_is_returned")
async def test_a_change_keeps_what_it_leaves_out(app, shop, wire):
    """A field that a PATCH leaves out stays as it is, also if somebody else changes it at the same moment."""
    ids = await shop.seed(books=1)
    [book] = ids.books
    path = f"/books/{book}"
    before = await book_with(shop, book)
    empty = await app.patch(path, json={})
    await wait_quiescent(app, wire)
    kept = ("isbn", "title", "author_id", "price_cents", "stock")
    row = await book_with(shop, book)
    changed = "".join(
        f" {name} was {before[name]!r} and is {row[name]!r}." for name in kept if row[name] != before[name]
    )
    expect(
        empty.ok and not changed,
        f"A PATCH without any field was sent. {empty}.{changed}",
        because="An editor saves a form without a change, and reads an error or changes the book.",
        section=ONUPDATE,
    )
    arrived = False
    async with wire.hold(changing, limit=1) as changes:
        request = app.start_request("PATCH", path, json={"title": "New"})
        if await changes.wait_for_or(request.task):
            arrived = await unless_locked(shop, shop.execute(RAISE, book, step="somebody else sets the price to 4711"))
    response = await request
    await wait_quiescent(app, wire)
    row = await book_with(shop, book)
    expect(
        not arrived or row["price_cents"] == 4711,
        f"PATCH {path} with a new title was sent. Just before its first change arrived in PostgreSQL, somebody else "
        f"set the price from {before['price_cents']} to 4711 cents. Afterwards it is {row['price_cents']}.",
        because="Somebody else's change is undone, and neither of the two editors learns of it.",
        section=ONUPDATE,
    )
    expect(
        response.status in (409, 412) or (response.ok and row["title"] == "New"),
        f"While a PATCH with a new title was under way, somebody else changed the price. {response}. The title is "
        f"stored as {row['title']!r}.",
        because="The editor's change is possible and was not made.",
        section=ONUPDATE,
    )


async def test_a_list_of_books_is_returned_as_it_is_stored(app, shop, wire):
    """`POST /books/bulk` returns 201 with all books as they are stored, in the order in which they were sent."""
    ids = await shop.seed(authors=2, books=1)
    await change_books(shop)
    sent = [
        {"isbn": isbn, "title": title, "author_id": ids.authors[n % 2], "price_cents": price}
        | ({"stock": n % 3} if n % 3 else {})  # a book without a stock has none
        for n, (isbn, title, price) in enumerate(
            (
                ("979-8-00-000004-0", "Volume 3", 30),
                ("0-8044 2957-x", "Volume 6", 10),
                ("979-8-00-000005-0", "Volume 1", 60),
                ("979-8-00-000000-0", "Volume 1", 20),  # as long as another one, and cheaper
                ("979-8-00-000003-0", "The 2nd volume", 50),
                ("979-8-00-000002-0", "Émile", 40),
            )
        )
    ]
    long = [new_book(ids, f"97802620{n * 37 % 120:05}") | {"price_cents": 1 + n * 53 % 120} for n in range(120)]
    for books, other in ((sent, "9780201633610"), (long, "9780131103627")):
        if books is long:
            await scatter_books(shop, ids.authors[0])
        known = [row["id"] for row in await shop.rows("SELECT id FROM books")]
        somebody = new_book(ids, other) | {"title": "Other"}
        response = await while_others_write(app, wire, shop, "/books/bulk", books, "books", somebody)
        await wait_quiescent(app, wire)
        stored = await shop.count("books", "id <> ALL($1) AND title <> 'Other'", known)
        expect(response.status == 201, f"{response}", because=unconfirmed(response, stored, "list"), section=EXPIRY)
        all_stored, found = len(books) == stored, len(response.json)
        expect(
            all_stored and found == stored,
            f"{len(books)} books were sent, {found} returned, {stored} stored.",
            because=f"The publisher gets no ids for {stored - found} of its {stored} books."
            if all_stored and found < stored
            else MISSING,
            section=TRIGGERS if found < stored else ROUND_TRIPS,  # fewer: looked up by what a trigger has changed
        )
        returned = [(got["title"], got["price_cents"], got["stock"]) for got in response.json]
        in_order = [(one["title"], one["price_cents"], one.get("stock", 0)) for one in books]
        first = next((n for n, (got, one) in enumerate(zip(returned, in_order, strict=True)) if got != one), None)
        expect(
            first is None,
            f"No. {(first or 0) + 1} of {len(books)} books was sent as {in_order[first or 0]} and returned as "
            f"{returned[first or 0]} (title, price, stock).",
            because="The publisher compares line by line and notes the wrong ids.",
            section=ROUND_TRIPS,
        )
        for got, row in zip(response.json, await books_with(shop, [got["id"] for got in response.json]), strict=True):
            expect_as_stored(got, row, TRIGGERS)


async def test_a_list_is_all_or_nothing(app, shop, wire):
    """A list with an ISBN that is taken returns 409, and none of its books is stored."""
    ids = await shop.seed(books=2)
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", ids.books[0])
    new = [new_book(ids, f"97811111{n:05}") for n in range(999)]
    at_last = new_book(ids, "9780201633610")
    await note_committed_books(shop)

    async def expect_refused(response, how, statuses=(409,)):
        await wait_quiescent(app, wire)
        stored = await shop.count("books", "title = 'New'")
        committed = await shop.count("committed_books", "title = 'New'")
        expect(
            response.status in statuses and stored == committed == 0,
            f"{how}: {response}. {committed} of the new books were committed, {stored} are stored now.",
            because=MISSING
            if stored and response.ok
            else "The publisher corrects the list and sends it again. Now its own books are in the way."
            if stored
            else "For a moment the catalogue has books that are then taken back. Somebody may have ordered one."
            if committed
            else "The publisher does not learn that an ISBN is taken.",
            section=ROUND_TRIPS,
        )

    twice = [*new[:5], at_last, at_last | {"isbn": "978-0201633610"}]
    await expect_refused(await app.post("/books/bulk", json=twice), "An ISBN is twice in the list", range(400, 500))
    for books, how in (
        ([*new, new_book(ids, taken)], "999 new books, and a last one whose ISBN is taken"),
        ([new_book(ids, taken), *new[:2]], "The first one of three ISBNs is taken"),
        ([*new[:20], new_book(ids, f"{taken[:4]}-{taken[4:]}"), *new[20:30]], "An ISBN is taken, with a hyphen in it"),
    ):
        await expect_refused(await app.post("/books/bulk", json=books), how)
    arrived = False
    async with wire.hold(changing, limit=1) as changes:
        request = app.start_request("POST", "/books/bulk", json=[*new[:30], at_last])
        if await changes.wait_for_or(request.task):
            arrived = await arrives_meanwhile(shop, "books", **at_last | {"title": "Other"})
    response = await request
    if arrived:
        await expect_refused(response, "A book with one of the ISBNs arrives just before the INSERT")


async def test_a_long_list_takes_no_more_round_trips_than_a_short_one(app, shop, wire):
    """Fifty books in one request take about as many round trips as five."""
    ids = await shop.seed(authors=50)
    trips = {}
    for size in (2, 5, 50):  # the first one is for what happens once per connection
        books = [new_book(ids, f"97800{size:03}{n:05}") | {"author_id": ids.authors[n]} for n in range(size)]
        for n, book in enumerate(books[::2]):
            book["stock"] = n
        with wire.watching() as seen:
            response = await app.post("/books/bulk", json=books)
            await wait_quiescent(app, wire)
        stored = await shop.count("books", "isbn LIKE $1", f"97800{size:03}%")
        expect(
            response.status == 201 and stored == size,
            f"{size} books were sent, {stored} are stored. {response}",
            because=unconfirmed(response, stored, "list"),
            section=EXPIRY,
        )
        trips[size] = seen.round_trips
    expect(
        trips[50] < 2 * trips[5],
        f"5 books took {trips[5]} round trips, 50 books {trips[50]}. Every second book was sent with a stock. "
        "A statement that the driver prepares first takes two.",
        because="Each round trip is a wait. Within one machine nobody notices. From an office 20 ms away, these are "
        f"{trips[50] * 20} ms instead of about {trips[5] * 20} ms.",
        section=ROUND_TRIPS,
    )


async def test_a_retry_does_not_write_twice(app, shop, wire):
    """A client that sends a review, and repeats it after each 5xx, gets 201 and finds one review stored."""
    ids = await shop.seed(books=3, customers=2)
    await shop.add("reviews", book_id=ids.books[1], customer_id=ids.customers[1], rating=3)
    for book, body, cut in (
        (ids.books[0], {"rating": 4, "body": 'Good, "very" good: 100%.'}, False),
        (ids.books[1], {"rating": 1}, False),
        (ids.books[2], {"rating": 2, "body": "Sent while the network fails"}, True),
    ):
        review = {"customer_id": ids.customers[0], **body}
        path = f"/books/{book}/reviews"
        responses = [await (cut_before_its_change(app, wire, path, review) if cut else app.post(path, json=review))]
        while responses[-1].status >= 500 and len(responses) < 3:
            responses.append(await app.post(path, json=review))
        response = responses[-1]
        await wait_quiescent(app, wire)
        rows = await shop.rows(
            "SELECT rating, body FROM reviews WHERE book_id = $1 AND customer_id = $2", book, ids.customers[0]
        )
        expect(
            response.status == 201 and len(rows) == 1,
            ("The connection to PostgreSQL broke before the review was stored. " if cut else "")
            + f"{response}, and the book has {plural(len(rows), 'review')} by this customer.",
            because="The book's rating counts one reader several times."
            + (" The client repeated its review after each 5xx, as clients do." if len(responses) > 1 else "")
            if len(rows) > 1
            else GIVES_UP
            if cut and 400 <= response.status < 500
            else unconfirmed(response, len(rows), "review"),
            section=EXPIRY,
        )
        expect_as_stored(response.json, rows[0], EXPIRY)


@pytest.mark.needs("test_a_retry_does_not_write_twice")
async def test_a_review_is_returned_with_the_new_rating(app, shop, wire):
    """The response to a review holds the book's rating as it is stored, with the new review counted in."""
    ids = await shop.seed(books=2, customers=2)
    for rating in (1, 1, 2):
        await shop.add("reviews", book_id=ids.books[0], customer_id=ids.customers[1], rating=rating)
    await shop.add("reviews", book_id=ids.books[1], customer_id=ids.customers[0], rating=5)
    await change_reviews(shop)
    for rating in (3, 1):
        review = {"customer_id": ids.customers[0], "rating": rating, "body": f"I give it a {rating}."}
        other = {"book_id": ids.books[0], "customer_id": ids.customers[1], "rating": 1}
        path = f"/books/{ids.books[1]}/reviews"
        response = await while_others_write(app, wire, shop, path, review, "reviews", other)
        await wait_quiescent(app, wire)
        stored = await shop.count("reviews", "body = $1", review["body"])
        expect(response.status == 201, f"{response}", because=unconfirmed(response, stored, "review"), section=EXPIRY)
        await expect_rating_as_stored(shop, response, ids.books[1], rating)
        row = await shop.rows("SELECT id, book_id, customer_id FROM reviews WHERE body = $1", review["body"])
        expect_as_stored(response.json, row[0], TRIGGERS)


@pytest.mark.needs("test_a_review_is_returned_with_the_new_rating")
async def test_a_review_that_arrives_meanwhile_is_counted(app, shop, wire):
    """The rating in the response also counts a review by somebody else that is stored just before yours."""
    ids = await shop.seed(books=1, customers=2)
    [book] = ids.books
    async with wire.hold(changing, limit=1) as changes:
        review = {"customer_id": ids.customers[0], "rating": 5}
        request = app.start_request("POST", f"/books/{book}/reviews", json=review)
        if await changes.wait_for_or(request.task):
            await arrives_meanwhile(shop, "reviews", book_id=book, customer_id=ids.customers[1], rating=2)
    response = await request
    await wait_quiescent(app, wire)
    stored = await shop.count("reviews", "customer_id = $1", ids.customers[0])
    expect(response.status == 201, f"{response}", because=unconfirmed(response, stored, "review"), section=EXPIRY)
    await expect_rating_as_stored(shop, response, book, 5)


async def test_an_order_is_in_the_log(app, shop, wire):
    """Every order is logged once, as `order 7 for reader@example.com: 3001 cents`."""
    ids = await shop.seed(books=3, customers=2)
    one, two = ids.customers
    first, second, third = ids.books
    emails = {}

    async def note(response, customer):
        expect(response.status == 201, f"{response}", because="A customer cannot order.", section=AFTER)
        emails[response["id"]] = await shop.value("SELECT email FROM customers WHERE id = $1", customer)

    await note(await app.post("/orders", json=order_for(one, {first: 2})), one)
    three_lines = [{"book_id": book, "quantity": n} for book, n in ((third, 1), (second, 1), (third, 2))]
    await note(await app.post("/orders", json={"customer_id": two, "lines": three_lines}), two)
    await wait_quiescent(app, wire)
    await shop.execute(
        "UPDATE customers SET email = '100%.' || email WHERE id = $1", one, step="the first customer's e-mail changes"
    )
    await note(await app.post("/orders", json=order_for(one, {third: 1})), one)
    email = await shop.value("SELECT email FROM customers WHERE id = $1", two)
    async with wire.hold(committing) as commits:
        request = app.start_request("POST", "/orders", json=order_for(one, {second: 1}))
        impatient = app.start_request("POST", "/orders", json=order_for(two, {first: 1}))
        await commits.count_within(2)
        await impatient.disconnect()
        await app.flush()  # the app notices before its COMMIT goes on
    await note(await request, one)
    await wait_quiescent(app, wire)
    await app.stop()
    for order in await shop.rows(PLACED, ids.customers):
        words = (rf"\border {order['id']}\b", re.escape(emails.get(order["id"], email)), rf"\b{order['cents']}\b")
        logged = [line for line in app.log.splitlines() if all(re.search(word, line) for word in words)]
        errors = [line for line in app.log.splitlines() if "Error" in line or "Greenlet" in line][-1:]
        expect(
            len(logged) == 1,
            f"Order {order['id']} of {emails.get(order['id'], email)}, {order['cents']} cents, is in the log "
            f"{len(logged)} times. {' '.join(errors)}",
            because="The accountants charge for one order twice."
            if logged
            else "The customer has the books, and the accountants do not know of the order.",
            section=AFTER,
        )


@pytest.mark.needs("test_an_order_is_in_the_log")
async def test_a_refused_order_is_not_in_the_log(app, shop, wire):
    """An order that is refused is not logged, whatever the reason."""
    ids = await shop.seed(books=2, customers=1)
    [customer] = ids.customers
    cheap, scarce = ids.books
    await shop.execute("UPDATE books SET stock = 1 WHERE id = $1", scarce, step="one copy is left of a book")
    email = await shop.value("SELECT email FROM customers WHERE id = $1", customer)
    for how, order in (
        ("with a book that does not exist", order_for(customer, {cheap: 1, UNKNOWN: 1})),
        ("of more copies than there are", order_for(customer, {cheap: 1, scarce: 2})),
        ("of an unknown customer", order_for(UNKNOWN, {cheap: 1})),
        ("without a line", order_for(customer, {})),
        (BEYOND, order_for(customer, {cheap: 1, scarce: 1})),
    ):
        if how == BEYOND:
            await shop.execute("UPDATE customers SET credit_cents = 1", step="every customer's credit is 1 cent")
        response = await app.post("/orders", json=order)
        expect(
            not response.ok, f"An order {how}: {response}", because="The shop cannot keep this order.", section=AFTER
        )
        await wait_quiescent(app, wire)
    await app.stop()
    pattern = re.compile(rf"\border\b.*{re.escape(email)}|\border \S+ for\b", re.IGNORECASE)
    logged = [line for line in app.log.splitlines() if pattern.search(line)]
    expect(
        not logged,
        f"Five orders were refused. The log says: {' / '.join(logged)}",
        because="The accountants charge a customer for books that nobody sends.",
        section=AFTER,
    )


async def test_what_is_impossible_is_refused(app, shop, wire):
    """A taken ISBN, an unknown book, author or customer, and too large an order return 4xx, and nothing is stored."""
    ids = await shop.seed(books=2, customers=1, stock=5)
    [customer] = ids.customers
    first, second = ids.books
    isbn = await shop.value("SELECT isbn FROM books WHERE id = $1", first)
    stranger = new_book(ids, "9780131103627") | {"author_id": UNKNOWN}
    before = await all_rows(shop)
    for method, path, body, how in (
        ("POST", "/books", new_book(ids, isbn), "A book whose ISBN is taken"),
        ("POST", "/books", new_book(ids, f"{isbn[:4]}-{isbn[4:]}"), "A book whose ISBN is taken, with a hyphen in it"),
        ("POST", "/books", stranger, "A book by an unknown author"),
        ("POST", "/books/bulk", [new_book(ids, "9780262033848"), stranger], "A list with an unknown author"),
        ("PATCH", f"/books/{UNKNOWN}", {"price_cents": 5}, "A change of an unknown book"),
        ("POST", f"/books/{UNKNOWN}/reviews", {"customer_id": customer, "rating": 4}, "A review of an unknown book"),
        ("POST", f"/books/{first}/reviews", {"customer_id": UNKNOWN, "rating": 4}, "A review by an unknown customer"),
        ("POST", "/orders", order_for(customer, {first: 1, UNKNOWN: 1}), "An order of an unknown book"),
        ("POST", "/orders", order_for(UNKNOWN, {first: 1}), "An order by an unknown customer"),
        ("POST", "/orders", order_for(customer, {first: 1, second: 6}), "An order of 6 copies of 5"),
    ):
        response = await app.request(method, path, json=body)
        await wait_quiescent(app, wire)
        now = await all_rows(shop)
        changed = [table for table in now if now[table] != before[table]]
        expect(
            400 <= response.status < 500 and not changed,
            f"{how}: {response}. " + (f"The rows of {', '.join(changed)} changed." if changed else "Nothing changed."),
            because="The client has a confirmation of something that is impossible."
            if response.ok
            else "The client reads that the request failed, and part of it is stored."
            if changed
            else "A client takes a 5xx for a fault of the shop, and sends the request again and again.",
            section=WAYS,
        )


def new_book(ids, isbn):
    return {"isbn": isbn, "title": "New", "author_id": ids.authors[0], "price_cents": 1500}


def order_for(customer, copies):
    return {"customer_id": customer, "lines": [{"book_id": book, "quantity": n} for book, n in copies.items()]}


def changing(statement):
    return statement.changes


async def while_others_write(app, wire, shop, path, body, table, other):
    """Sends a POST; while its COMMIT is on the way, somebody else's row `other` is stored."""
    async with wire.hold(committing, limit=1) as commits:
        request = app.start_request("POST", path, json=body)
        if await commits.wait_for_or(request.task):
            await arrives_meanwhile(shop, table, **other)
    return await request


async def arrives_meanwhile(shop, table, **columns):
    """Inserts a row for somebody else; False if the app holds a lock that makes everybody else wait."""
    return await unless_locked(shop, shop.add(table, **columns))


async def unless_locked(shop, change):
    """Awaits a change by somebody else; False if the app holds a lock that makes everybody else wait."""
    await shop.execute("SET lock_timeout = '1s'")
    try:
        await change
    except asyncpg.LockNotAvailableError:
        return False
    finally:
        await shop.execute("RESET lock_timeout")
    return True


async def cut_before_its_change(app, wire, path, body):
    """The response to a POST whose connection to PostgreSQL breaks before its first change arrives there."""
    async with wire.hold(changing, limit=1) as changes:
        request = app.start_request("POST", path, json=body)
        if await changes.wait_for_or(request.task):
            await wire.cut()
        changes.release()
        return await request


async def all_rows(shop):
    """All rows of the tables that the endpoints write, by table."""
    tables = ("books", "reviews", "orders", "order_lines")
    return {table: await shop.rows(f"SELECT * FROM {table} ORDER BY id") for table in tables}


async def book_with(shop, id_):
    """The book as it is stored: what a BookOut holds."""
    [row] = await books_with(shop, [id_])
    return row


async def books_with(shop, ids):
    """The books of these ids, in the order of the ids."""
    columns = "id, isbn, title, author_id, price_cents, stock, revision, created_at, updated_at"
    rows = await shop.rows(f"SELECT {columns} FROM books WHERE id = ANY($1)", ids)
    unknown = set(ids) - {row["id"] for row in rows}
    expect(not unknown, f"No book with the id {unknown} is stored.", because=STALE, section=WAYS)
    return sorted(rows, key=lambda row: ids.index(row["id"]))


def expect_as_stored(returned, stored, section):
    """Compares the fields of `stored`; moments as moments, whatever their offset from UTC is."""
    shown, naive = {}, False
    for name in stored.keys() & returned.keys():
        shown[name] = returned[name]
        if isinstance(stored[name], datetime) and isinstance(returned[name], str):
            moment = datetime.fromisoformat(returned[name])
            naive |= moment.tzinfo is None
            shown[name] = moment.isoformat() if moment.tzinfo is None else in_utc(moment)
    different = difference({name: in_utc(value) for name, value in stored.items()}, shown)
    expect(not different, different, because=NAIVE if naive else STALE, section=section)


def expect_changed(response, change, before, row):
    """That a PATCH with status 200 has changed something at all."""
    kept = ", ".join(f"{name} is still {before[name]!r}" for name in change)
    expect(
        row != before,
        f"{response.request} with {change} returned {response.status}, but no column of the row has changed: {kept}.",
        because="The editor reads that the book is changed, and the shop goes on with the old one.",
        section=TRIGGERS,
    )


def in_utc(value):
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


async def expect_rating_as_stored(shop, response, book, sent):
    [stored] = await shop.rows(RATING, book)
    kept = await shop.value("SELECT rating FROM reviews WHERE id = $1", response["id"])
    changed = "" if kept in (None, sent) else f"The review was sent with {sent}, and a trigger stores it as {kept}. "
    expect(
        (response["rating_count"], stored["counted"]) == (stored["reviews"], stored["reviews"])
        and abs(response["rating_average"] - stored["average"]) < 0.06,  # it may be rounded
        f"{changed}The ratings that are stored for the book are {stored['ratings']}: {stored['reviews']} reviews with "
        f"an average of {stored['average']:.2f}. The row of the book counts {stored['counted']}. {response}",
        because="The reader sees another rating than everybody else.",
        section=TRIGGERS,
    )


def unconfirmed(response, stored, what):
    """Why another status hurts; it says that something is stored only if it is."""
    if response.ok:
        return "The ticket names the status, and a client takes another one for an error."
    if stored:
        return f"The {what} is stored, and the client reads that it is not."
    return f"The {what} is not stored, although nothing is wrong with the request."


UNKNOWN = 1_000_000_000
RAISE = "UPDATE books SET price_cents = 4711 WHERE id = $1"
BEYOND = "beyond the credit, which PostgreSQL finds at COMMIT"
RATING = """
SELECT rating_count AS counted, count(reviews) AS reviews, coalesce(avg(rating), 0)::float AS average,
    array_agg(rating ORDER BY reviews.id) AS ratings
FROM books LEFT JOIN reviews ON book_id = books.id WHERE books.id = $1 GROUP BY books.id
"""
PLACED = """
SELECT order_id AS id, sum(quantity * price_cents) AS cents FROM order_lines JOIN orders ON orders.id = order_id
WHERE customer_id = ANY($1) GROUP BY 1 ORDER BY 1
"""

GIVES_UP = (
    "A client repeats a review only after a 5xx. It takes a 4xx for a mistake of the reader, and the review is lost."
)
MISSING = "The publisher's list and the catalogue are not the same, and the publisher is not told."
STALE = "The client shows and keeps something else than what the database holds."
NAIVE = (
    "Without an offset from UTC the client takes the time for its own. In New York it is then some hours off, and a "
    "comparison with a time that has an offset is an error."
)
