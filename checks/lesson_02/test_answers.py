"""Lesson 02: an answer says what the database holds now, and reading it does no surprising work."""

from checks.kit.holding import answered_while_held
from checks.kit.report import expect
from checks.kit.wire import committing

TYPED = "0-8044 2957-x"
STORED = "080442957X"


async def test_a_created_book_is_answered_as_it_is_stored(app, shop, wire):
    """`POST /books` answers 201 with the book as PostgreSQL stores it, its triggers' work included."""
    there = await shop.has(authors=1)
    answer = await app.post("/books", json=book(there, TYPED))
    await wire.calm()  # whether it is stored before it is answered is the next check's
    expect(answer.status == 201, f"{answer}", because=GONE, read="What a commit leaves behind")
    [row] = await shop.rows("SELECT id, isbn, title, price_cents, revision FROM books")
    expect_same(answer.json, row)


async def test_a_book_is_answered_only_after_its_commit(app, shop, wire):
    """As before, nobody is told 201 for a book while its COMMIT is still on the way to PostgreSQL."""
    there = await shop.has(authors=1)
    async with wire.hold(committing) as commits:
        request = app.sending("POST", "/books", json=book(there, TYPED))
        early = await answered_while_held(app, wire, request, commits)
    answer = await request
    expect(
        not (early and answer.ok),
        f"{answer.request} was answered {answer.status} before its COMMIT had come back.",
        because="Before the commit nothing has expired yet, but then nothing is certain either: lesson 01.",
        read="Four ways to read after a commit",
    )


async def test_a_change_is_answered(app, shop):
    """`PATCH /books/{id}` answers 200 with the changed book and a later `updated_at`."""
    there = await shop.has(books=1)
    before = await shop.value("SELECT updated_at FROM books")
    answer = await app.patch(f"/books/{there.books[0]}", json={"price_cents": 1999})
    expect(answer.status == 200, f"{answer}", because=FETCHED, read="onupdate")
    after = await shop.value("SELECT updated_at FROM books")
    [row] = await shop.rows("SELECT id, price_cents FROM books")
    expect(
        after > before and same_moment(answer["updated_at"], after),
        f"updated_at was {before}; it is stored as {after} and answered as {answer['updated_at']}.",
        because=FETCHED,
        read="onupdate",
    )
    expect_same(answer.json, row | {"price_cents": 1999})


async def test_a_change_is_answered_as_it_is_stored(app, shop):
    """A changed book is answered with what the triggers made of it, and the row was changed once."""
    there = await shop.has(books=1)
    answer = await app.patch(f"/books/{there.books[0]}", json={"isbn": TYPED, "title": "New"})
    expect(answer.status == 200, f"{answer}", because=FETCHED, read="onupdate")
    [row] = await shop.rows("SELECT id, isbn, title, revision FROM books")
    expect_same(answer.json, row)
    expect(
        row["revision"] == 2 and row["isbn"] == STORED and row["title"] == "New",
        f"One PATCH of a row of revision 1 left {row}.",
        because="One request is one change: what is written again, only to learn something, counts as well.",
        read="What triggers do",
    )


async def test_a_refused_change_changes_nothing(app, shop):
    """A PATCH to an ISBN that is taken answers 409 and changes nothing."""
    there = await shop.has(books=2)
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", there.books[0])
    answer = await app.patch(f"/books/{there.books[1]}", json={"isbn": taken, "title": "New"})
    changed = await shop.count("books", "title = 'New' OR revision > 1")
    expect(
        answer.status == 409 and changed == 0,
        f"{answer}, and {changed} rows are changed.",
        because="What lesson 01 mended stays mended.",
        read="onupdate",
    )


async def test_a_list_of_books_is_answered_as_it_is_stored(app, shop):
    """`POST /books/bulk` answers 201 with all books as they are stored, in the order in which they were sent."""
    there = await shop.has(authors=1)
    titles = ["Volume 3", "Volume 6", "Volume 1", "Volume 5", "Volume 2", "Volume 4"]
    numbers = (4, 1, 5, 0, 3, 2)
    sent = [book(there, f"978-0-00-0000{n:02}-0") | {"title": title} for n, title in zip(numbers, titles, strict=True)]
    answer = await app.post("/books/bulk", json=sent)
    expect(answer.status == 201, f"{answer}", because=GONE, read="What a commit leaves behind")
    rows = {row["title"]: row for row in await shop.rows("SELECT id, isbn, title, revision FROM books")}
    expect(
        len(rows) == len(answer.json) == 6,
        f"6 books were sent, {len(answer.json)} answered, {len(rows)} stored.",
        because="Every row once.",
    )
    answered = [got["title"] for got in answer.json]
    expect(
        answered == titles,
        f"Sent were {', '.join(titles)}; answered {', '.join(answered)}.",
        because="Whoever sent a list compares line by line. A RETURNING and a SELECT come in an order of their own "
        "unless somebody asks for one.",
        read="refresh in a loop",
    )
    for got in answer.json:
        expect_same(got, rows[got["title"]])


async def test_a_list_is_all_or_nothing(app, shop):
    """A list with one ISBN that is taken answers 409, and none of its books is stored."""
    there = await shop.has(books=1)
    taken = await shop.value("SELECT isbn FROM books")
    sent = [book(there, f"97811111{n:05}") for n in range(60)] + [book(there, taken)]
    answer = await app.post("/books/bulk", json=sent)
    stored = await shop.count("books")
    expect(
        answer.status == 409 and stored == 1,
        f"60 new books and one that is there already were sent: {answer.status}, and {stored - 1} new ones are stored.",
        because="Whoever reads 409 sends the list again, mended: nothing of the first try may be in the way.",
        read="refresh in a loop",
    )


async def test_a_long_list_takes_no_more_round_trips_than_a_short_one(app, shop, wire):
    """Fifty books in one request take about as many round trips as five."""
    there = await shop.has(authors=1)
    trips = {}
    for size in (2, 5, 50):  # the first one is for what happens once per connection
        await wire.calm()
        with wire.watching() as seen:
            answer = await app.post("/books/bulk", json=[book(there, f"97800{size:03}{n:05}") for n in range(size)])
            expect(answer.status == 201, f"{answer}", because=GONE, read="What a commit leaves behind")
            await wire.calm()
        trips[size] = seen.round_trips
    expect(
        trips[50] < 2 * trips[5],
        f"5 books took {trips[5]} round trips, 50 books {trips[50]}.",
        because="A round trip per row: within one machine nobody notices, between two data centres it is a minute. "
        "Which statement is sent once per book, and what does it fetch that the INSERT could have returned?",
        read="refresh in a loop",
    )


async def test_a_retry_does_not_write_twice(app, shop):
    """A client that repeats its review as long as it gets a 5xx finds one review stored."""
    there = await shop.has(books=1, customers=1)
    review = {"customer_id": there.customers[0], "rating": 4, "body": "Good."}
    for _ in range(3):
        answer = await app.post(f"/books/{there.books[0]}/reviews", json=review)
        if answer.status < 500:
            break
    stored = await shop.count("reviews")
    expect(
        answer.status == 201 and stored == 1,
        f"{answer}, and {stored} reviews are stored.",
        because="A 500 means to a client: it did not work, try again. So whatever can fail has to happen before the "
        "commit, or not at all.",
        read="What a commit leaves behind",
    )


async def test_a_review_is_answered_with_the_new_average(app, shop):
    """The answer to a review holds the book's rating as it is stored, the new review counted in."""
    there = await shop.has(books=1, customers=1)
    first = await shop.add("reviews", book_id=there.books[0], customer_id=there.customers[0], rating=5)
    review = {"customer_id": there.customers[0], "rating": 2}
    answer = await app.post(f"/books/{there.books[0]}/reviews", json=review)
    expect(
        answer.status == 201,
        f"There was one review of this book. A second one, by the same customer: {answer}",
        because=GONE if answer.status >= 500 else "The ticket allows a customer several reviews of a book.",
        read="What a commit leaves behind",
    )
    expect(
        (answer["rating_count"], answer["rating_average"]) == (2, 3.5),
        f"Ratings 5 (there before) and 2 are stored. {answer}",
        because=TRIGGER,
        read="What triggers do",
    )
    stored = await shop.value("SELECT id FROM reviews WHERE id <> $1", first)
    expect_same(answer.json, {"id": stored, "book_id": there.books[0], "rating": 2})


async def test_an_order_is_in_the_log(app, shop):
    """Every order is logged with its number, the customer's e-mail and the total in cents; a refused one is not."""
    there = await shop.has(books=2, customers=1)
    lines = [{"book_id": id, "quantity": 1} for id in there.books]
    order = {"customer_id": there.customers[0], "lines": lines}
    answer = await app.post("/orders", json=order)
    expect(answer.status == 201, f"{answer}", because="Orders must go on.", read="Behind the answer")
    await shop.execute("UPDATE customers SET credit_cents = 2000", did="the customer's credit is used up")
    refused = await app.post("/orders", json=order)
    expect(refused.status == 409, f"Beyond the customer's credit: {refused}", because="As in lesson 01.")
    await app.stop()
    words = (f"order {answer['id']} ", "reader0@example.com", "2001")
    logged = [line for line in app.log.splitlines() if all(word in line for word in words)]
    error = [line for line in app.log.splitlines() if "Error" in line or "Greenlet" in line][-1:]
    all_of_them = sum("reader0@example.com" in line for line in app.log.splitlines())
    expect(
        all_of_them <= 1,
        f"One order of this customer was placed, a second one refused at its COMMIT. The log tells of {all_of_them}.",
        because="Until the commit has come back nothing has happened that anybody should be told of.",
        read="Behind the answer",
    )
    expect(
        len(logged) == 1,
        f"The log has {len(logged)} lines for order {answer['id']}. {' '.join(error)}",
        because="The customer has a 201 and nobody sees that the line is missing. What runs behind the answer gets an "
        "object of a unit of work that is over: what of it may still be read there?",
        read="Behind the answer",
    )


def book(there, isbn):
    return {"isbn": isbn, "title": "Stored", "author_id": there.authors[0], "price_cents": 1500}


def expect_same(answered, row):
    different = {name: (answered.get(name), value) for name, value in row.items() if answered.get(name) != value}
    expect(
        not different,
        "; ".join(f"{name}: answered {got!r}, stored {value!r}" for name, (got, value) in different.items()) + ".",
        because=TRIGGER,
        read="What triggers do",
    )


def same_moment(text, moment):
    from datetime import datetime

    return datetime.fromisoformat(text) == moment


GONE = (
    "The row is stored and the client is told that it failed, so it tries again. At the commit the session forgets "
    "what it knew; reading it anew takes a statement that nobody awaits. When is the last moment to read without one?"
)
FETCHED = (
    "The new value is made by PostgreSQL. After the UPDATE the session knows only that it does not know it, and "
    "reading the attribute would take a statement. Who asks for it, and with which await?"
)
TRIGGER = (
    "What was set on the object is what the object says, until somebody asks the database. A trigger, a default or "
    "another writer may have made something else of it. Which call asks?"
)
