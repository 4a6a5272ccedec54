"""Lesson 11: what the API promises. Here: what the database refuses."""

from checks.kit.report import expect
from checks.lesson_11.members import UNKNOWN, changed, everything, stocked
from checks.lesson_11.shape import expect_status

CARRIES = "What an IntegrityError carries"
MISLED = (
    "The client cannot tell a value that it must correct from something that exists already. It asks its user for the "
    "wrong thing."
)
ACCEPTED = (
    "The client reads that all is stored as it was sent. A value was ignored, or a row that was there has changed."
)
FAILED = "The client reads that the service has failed. It does not learn that it must send another value."

ONLY_TITLE, ONLY_TITLE_B = {"title": "Only One A"}, {"title": "Only One B"}

CONSTRAINTS_OF_TOMORROW = """
    ALTER TABLE books ADD CONSTRAINT each_book_has_a_title CHECK (title NOT LIKE 'Untitled%') NOT VALID;
    CREATE UNIQUE INDEX one_of_each_title ON books (title) WHERE title LIKE 'Only One%';
    ALTER TABLE reviews ADD CONSTRAINT ck_of_reviews CHECK (body NOT LIKE 'spam%'), ALTER body TYPE varchar(500);
    ALTER TABLE customers ADD CONSTRAINT ck_of_customers CHECK (name NOT LIKE 'Nobody%');
    CREATE UNIQUE INDEX uq_of_reviews ON reviews (body) WHERE body LIKE 'Only One%';
    CREATE UNIQUE INDEX uq_of_customers ON customers (name) WHERE name LIKE 'Only One%';
    UPDATE books SET published_on = '2020-02-29', stock = 1000;
    ALTER TABLE books ALTER published_on SET NOT NULL, ALTER stock TYPE smallint
"""
"""Names with and without the usual prefix, because a constraint's name does not say what it holds."""


async def test_a_violation_has_its_status(app, shop, login):
    """A request gets 409 if a unique value is taken, and 422 if the database does not allow one of its values."""
    ids = await stocked(shop)
    await shop.execute(CONSTRAINTS_OF_TOMORROW, step="a new migration adds constraints and makes columns smaller")
    await shop.execute("UPDATE books SET price_cents = 2147483647 WHERE id = $1", ids.books[3])
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", ids.books[1])
    email = await shop.value("SELECT email FROM customers WHERE id = $1", ids.customers[0])
    new = {"isbn": "978-7-00-000", "title": "New", "author_id": ids.authors[0], "price_cents": 900}
    new |= {"published_on": "2020-02-29"}
    review = {"customer_id": ids.customers[1], "rating": 3, "body": "good"}
    account = {"email": "new@example.com", "name": "New", "password": "correct horse battery"}
    last, login = ids.books[-1], login(ids.customers[1])
    reviewed = ("POST", f"/books/{last}/reviews")
    for what, method, path, body, statuses in (
        ("An ISBN that is taken", "POST", "/books", new | {"isbn": taken}, (409,)),
        ("An ISBN that is taken, with a hyphen", "POST", "/books", new | {"isbn": f"{taken[:3]}-{taken[3:]}"}, (409,)),
        ("An author who does not exist", "POST", "/books", new | {"author_id": UNKNOWN}, (422,)),
        ("A discount of 91 %", "POST", "/books", new | {"discount_percent": 91}, (422,)),
        (
            "A stock of 40,000, when a migration has made the column a smallint",
            "POST",
            "/books",
            new | {"stock": 40000},
            (422,),
        ),
        (
            "No day of publication, when a migration has made the column NOT NULL",
            "POST",
            "/books",
            new | {"published_on": None},
            (422,),
        ),
        ("A title that a CHECK of a new migration refuses", "POST", "/books", new | {"title": "Untitled 2"}, (422,)),
        ("Two equal books in one list", "POST", "/books/bulk", [new, new], (409,)),
        (
            "A list with no such author",
            "POST",
            "/books/bulk",
            [new, new | {"isbn": "1234567890", "author_id": UNKNOWN}],
            (422,),
        ),
        (
            "A list with a bad title",
            "POST",
            "/books/bulk",
            [new, new | {"isbn": "1234567890", "title": "Untitled"}],
            (422,),
        ),
        ("An edit to an ISBN that is taken", "PATCH", f"/books/{last}", {"isbn": taken}, (409,)),
        ("An edit to no author", "PATCH", f"/books/{last}", {"author_id": UNKNOWN}, (422,)),
        *(
            (f"An edit of {name} to {value}", "PATCH", f"/books/{last}", {"subtitle": "x", name: value}, (422,))
            for name, value in (
                *((name, None) for name in ("isbn", "title", "author_id", "price_cents", "discount_percent")),
                *(("price_cents", 0), ("discount_percent", -1), ("discount_percent", 91), ("title", "Untitled")),
                ("published_on", "2023-02-29"),
            )
        ),
        ("A second review", *reviewed, review | {"customer_id": ids.customers[2]}, (409,)),
        ("A review of nobody", *reviewed, review | {"customer_id": UNKNOWN}, (422,)),
        ("A review that a CHECK of a new migration refuses", *reviewed, review | {"body": "spam"}, (422,)),
        ("A review of 501 characters, when its column has 500", *reviewed, review | {"body": "x" * 501}, (422,)),
        ("An e-mail that is taken", "POST", "/auth/register", account | {"email": email}, (409,)),
        ("An e-mail that is taken, in capitals", "POST", "/auth/register", account | {"email": email.upper()}, (409,)),
        (
            "A name that a CHECK of a new migration refuses",
            "POST",
            "/auth/register",
            account | {"name": "Nobody"},
            (422,),
        ),
        *(
            (f"{path} of {amount}", "POST", path, bought(path, ids.books[3], count), statuses)
            for path in ("/orders", "/gifts", "/checkout")
            for amount, count, statuses in (
                ("more than the customer's credit", 1, (409,)),
                ("more cents than a column can hold", 3, (409, 422)),
            )
        ),
    ):
        before = await everything(shop)
        response = await app.request(method, path, json=body, headers=login | {"If-Match": "*"})
        expect_status(response, statuses, what, harm(response), CARRIES)
        after = await everything(shop)
        expect(
            after == before,
            f"{what}: {response.request} → {response.status}. It has changed {changed(before, after)}.",
            because="The client was told that its request was refused, and a part of it is stored.",
            section=CARRIES,
        )
    one, another = new | {"isbn": "9788000000001"}, new | {"isbn": "9788000000002"}
    for what, first, (method, path, second) in (
        ("book", ("/books", one | ONLY_TITLE), ("POST", "/books", new | ONLY_TITLE)),
        ("title of a book", ("/books", another | ONLY_TITLE_B), ("PATCH", f"/books/{last}", ONLY_TITLE_B)),
        (
            "text of a review",
            (f"/books/{last}/reviews", review | {"body": "Only One"}),
            ("POST", f"/books/{ids.books[3]}/reviews", review | {"body": "Only One"}),
        ),
        (
            "name of an account",
            ("/auth/register", account | {"name": "Only One"}),
            ("POST", "/auth/register", account | {"name": "Only One", "email": "another@example.com"}),
        ),
    ):
        added = await app.post(first[0], json=first[1])
        expect_status(added, (201,), f"A {what} for the first time", "A good request is refused.", CARRIES)
        again = await app.request(method, path, json=second, headers={"If-Match": "*"})
        unique = f"The same {what} again, when a migration has added a unique index"
        expect_status(again, (409,), unique, harm(again), CARRIES)


async def test_of_equal_requests_at_once_one_succeeds(apps, shop, wire):
    """Of equal requests at the same moment, one succeeds and the others get 409: new books, accounts and reviews."""
    ids = await stocked(shop)
    new = {"isbn": "978-7-00-000", "title": "New", "author_id": ids.authors[0], "price_cents": 900}
    account = {"email": "new@example.com", "name": "New", "password": "correct horse battery"}
    review = {"customer_id": ids.customers[1], "rating": 3, "body": "good"}
    for path, body, table, where in (
        ("/books", new, "books", "isbn LIKE '9787%'"),
        ("/books/bulk", [new | {"isbn": "978-6-00-000"}], "books", "isbn LIKE '9786%'"),
        ("/auth/register", account, "customers", "email = 'new@example.com'"),
        (f"/books/{ids.books[-1]}/reviews", review, "reviews", f"customer_id = {ids.customers[1]} AND body = 'good'"),
    ):
        async with wire.hold(lambda statement: statement.changes) as held:
            requests = apps.start_requests([("POST", path, {"json": body})] * 2)
            await held.count_within(2, 1.5)  # one that waits for the other sends nothing
        pair = [await request for request in requests]
        crowd = await apps.at_once([("POST", path, {"json": body})] * 6)
        found = sorted(one.status for one in (*pair, *crowd))
        expect(
            found == [201] + [409] * 7 and any(one.ok for one in pair),
            f"POST {path} 8 times with one body, the first two at the same moment: {found}. Expected: 201 once, 409 "
            "seven times.",
            because="A user who clicks twice reads that the service has failed, or a unique row is stored twice.",
            section=CARRIES,
        )
        stored = await shop.count(table, where)
        expect(
            stored == 1,
            f"POST {path}, 8 times with one body: {stored} rows are stored. Expected: 1.",
            because="A client was told that its row is stored, and it is not, or it is stored twice.",
            section=CARRIES,
        )


def harm(response):
    """What a wrong status does to the client of a request that must be refused."""
    return ACCEPTED if response.ok else MISLED if response.status < 500 else FAILED


def bought(path, book, quantity):
    """The body of a request that buys copies of one book."""
    body = {"lines": [{"book_id": book, "quantity": quantity}]}
    more = {
        "/gifts": {"recipient": {"email": "friend@example.com", "name": "A Friend"}, "message": "For you"},
        "/checkout": {"card_token": "tok_visa"},
    }
    return body | more.get(path, {})
