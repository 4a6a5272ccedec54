"""Lesson 03: a response is complete, and takes the statements and rows that belong to what it shows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from checks.kit.report import expect, plural
from checks.kit.testbed.waiting import wait_quiescent
from checks.lesson_03.world import (
    difference_of,
    differences,
    in_order,
    more_books,
    more_readers,
    some_authors_more,
    stored_account,
    stored_authors,
    stored_books,
    stored_history,
)

EACH_ROW = "One statement for each row"
WAYS = "Four ways to load a collection"
ROWS = "How many rows each way of loading takes"
PAGE = "LIMIT over a join"
TIES = "Pages lose books when titles are equal"
COUNT = "Counting rows by loading all of them"
TWO = "Two collections at once"
LEVEL = "Relationships of relationships"


async def test_authors_are_listed_with_their_books(app, shop):
    """`GET /authors` lists every author by name, with all books by title, and those without books too."""
    ids = await shop.seed(authors=4, books=36)
    for title in ("The Same", "A first one", "The Same"):
        await shop.add("books", isbn=f"97900{title[0]}{await shop.count('books')}", title=title,
                       author_id=ids.authors[2], price_cents=await shop.count("books"))  # fmt: skip
    await shop.add("authors", name="Ann O'Hara")  # another one of this name, without books
    await some_authors_more(shop, 120)
    response = await got(app, "/authors", WAYS)
    wrong = differences(await stored_authors(shop), response.json, "author")
    expect(not wrong, f"GET /authors: {wrong}", because=INCOMPLETE, section=WAYS)
    names = [author["name"] for author in response.json]
    expect(
        await in_order(shop, names),
        f"The authors were not returned by name: {first_out_of_order(names)}.",
        because=UNSORTED,
        section=WAYS,
    )
    for author in response.json:
        titles = [book["title"] for book in author["books"]]
        expect(
            await in_order(shop, titles),
            f"The books of {author['name']!r} were not returned by title: {first_out_of_order(titles)}.",
            because=UNSORTED,
            section=WAYS,
        )


@pytest.mark.needs("test_authors_are_listed_with_their_books")
async def test_fifty_authors_take_the_statements_of_five(app, shop, wire):
    """`GET /authors` sends as many statements for 50 authors as for 5."""
    await shop.seed(authors=4, books=12)
    few, _ = await watched(app, wire, "/authors", EACH_ROW)
    await some_authors_more(shop, 45)
    many, response = await watched(app, wire, "/authors", EACH_ROW)
    wrong = differences(await stored_authors(shop), response.json, "author")
    expect(not wrong, f"After 45 authors were added: {wrong}", because=INCOMPLETE, section=EACH_ROW)
    expect(
        asked(many) <= asked(few),
        f"5 authors took {plural(asked(few), 'statement')}, 50 authors took {asked(many)}.",
        because=LOOP,
        section=EACH_ROW,
    )


@pytest.mark.needs("test_authors_are_listed_with_their_books")
async def test_a_slow_network_does_not_multiply(app, shop, wire):
    """With 50 authors the app waits for PostgreSQL less than twice as often as with 5."""
    await shop.seed(authors=4, books=24)
    few, _ = await watched(app, wire, "/authors", EACH_ROW)
    await some_authors_more(shop, 45)
    many, _ = await watched(app, wire, "/authors", EACH_ROW)
    expect(
        many.round_trips < 2 * max(few.round_trips, 1),
        f"For 5 authors the app waited for PostgreSQL {plural(few.round_trips, 'time')}, for 50 authors "
        f"{many.round_trips} times. Each time takes as long as the network needs to PostgreSQL and back.",
        because="On a network with 20 ms there and back, the visitor waits 20 ms for nearly each of them.",
        section=EACH_ROW,
    )


@pytest.mark.needs("test_authors_are_listed_with_their_books")
async def test_authors_cost_the_rows_they_show(app, shop, wire):
    """`GET /authors` fetches no more rows than it shows authors and books."""
    await shop.seed(authors=10, books=30, customers=3, reviews=60, orders=6)
    seen, response = await watched(app, wire, "/authors", WAYS)
    authors, books = len(response.json), sum(len(author["books"]) for author in response.json)
    expect(
        seen.rows <= authors + books + SPARE,
        f"GET /authors shows {authors} authors and {books} books. PostgreSQL sent {seen.rows} rows for it.",
        because=UNUSED,
        section=ROWS,
    )
    await more_readers(shop)
    later, _ = await watched(app, wire, "/authors", WAYS)
    expect_no_more(later, seen, "The list of authors", ROWS)


async def test_a_page_holds_what_was_asked_for(app, shop):
    """`GET /catalogue?page=1&size=10` holds ten books by title, each with author and reviews, and the total."""
    ids = await shop.seed(authors=5, books=22, customers=7, reviews=57)
    await add_reviews(shop, ids.books[4], ids.customers[1], MANY)
    await add_reviews(shop, ids.books[4], ids.customers[2], 3)  # the same ratings and words again
    stored = {book["id"]: book for book in await stored_books(shop)}
    titles: list[str] = []
    shown: list[Any] = []
    for number, size in ((1, 10), (2, 10), (3, 3)):
        page = await got(app, f"/catalogue?page={number}&size=10", PAGE)
        books = page["books"]
        titles += [book["title"] for book in books]
        shown += books
        expect(
            len(books) == size,
            f"The shop has {len(stored)} books, those of others included. Page {number} of ten holds {len(books)} "
            f"instead of {size}: {[book['title'] for book in books]}, with "
            f"{[len(book['reviews']) for book in books]} reviews.",
            because="Visitors who ask for ten books see fewer, and take a short page for the last one.",
            section=PAGE,
        )
        expect_total(page, len(stored), COUNT)
    expect(
        await in_order(shop, titles),
        f"Turning the pages, the titles did not come in order: {first_out_of_order(titles)}.",
        because=UNSORTED,
        section=TIES,
    )
    wrong = differences(list(stored.values()), shown, "book")
    expect(not wrong, f"All pages of the catalogue together: {wrong}", because=INCOMPLETE, section=PAGE)
    beyond = await got(app, "/catalogue?page=4&size=10", PAGE)
    expect(
        beyond["books"] == [],
        f"The pages 1 to 3 hold all {len(stored)} books, and page 4 holds {len(beyond['books'])}.",
        because="Visitors see the same books again and again.",
        section=PAGE,
    )
    last = await got(app, f"/catalogue?page={2**31 - 1}&size=100", PAGE)  # far more books than fit into an integer
    expect(
        last["books"] == [],
        f"The shop has {len(stored)} books. {last.request} returns {len(last['books'])} of them.",
        because="Visitors see the same books again and again.",
        section=PAGE,
    )
    expect(
        beyond["total"] == len(stored),
        f"Page 4, which is empty, says that there are {beyond['total']} books; there are {len(stored)}.",
        because="The website then shows an empty shop instead of the way back to the last page.",
        section=COUNT,
    )


async def test_a_book_nobody_reviewed_is_on_its_page(app, shop):
    """Books without a review are on their page like all others, with an empty list."""
    ids = await shop.seed(authors=2, books=6, customers=1, others=False)
    for reviews in (0, 1):
        if reviews:
            await add_reviews(shop, ids.books[3], ids.customers[0], 1)
        response = await got(app, "/catalogue?size=10", PAGE)
        wrong = differences(await stored_books(shop), response["books"], "book")
        expect(
            not wrong,
            f"{plural(reviews, 'review')} of 6 books: {wrong}",
            because="A new book has no review yet. It cannot get one, or be sold, if nobody sees it.",
            section=PAGE,
        )


async def test_every_book_is_on_one_page(app, shop):
    """Every book is on one page, also when titles are equal, and prices, stocks and reviews change meanwhile."""
    ids = await shop.seed(books=40, customers=1, reviews=40)
    await shop.execute("UPDATE books SET title = CASE WHEN id = ANY($1) THEN 'One' ELSE 'Two' END", ids.books[::2])
    found: list[Any] = []
    for page in range(1, 6):
        response = await got(app, f"/catalogue?page={page}&size=10", PAGE)
        found += response["books"]
        await shop.execute(CHANGE_BOOKS, [book["id"] for book in found], step=CHANGED)
        await shop.execute("UPDATE reviews SET rating = 6 - rating WHERE book_id = ANY($1)", ids.books[page::3])
    times = [book["id"] for book in found]
    missing = set(ids.books + ids.others.books) - set(times)
    expect(
        not missing and len(times) == len(set(times)),
        f"41 books, those of others included, have two different titles. In pages of ten, {len(missing)} were on no "
        f"page, and {len(times) - len(set(times))} came again on a later one.",
        because="Nobody buys a book that is on no page.",
        section=TIES,
    )


async def test_a_page_costs_its_rows_not_the_tables(app, shop, wire):
    """A page of ten books fetches rows for ten books, however many the shop has."""
    await shop.seed(authors=5, books=30, customers=4, reviews=90)
    first = "/catalogue?page=1&size=10"
    seen, before = await watched(app, wire, first, PAGE)
    await more_books(shop, 400)
    later, after = await watched(app, wire, first, PAGE)
    if before["books"] == after["books"]:
        expect_no_more(later, seen, "A page of ten books", COUNT)
    for path in (first, "/catalogue?page=30&size=10"):
        page, response = await watched(app, wire, path, PAGE)
        books, reviews = len(response["books"]), sum(len(book["reviews"]) for book in response["books"])
        expect(
            page.rows <= 2 * (books + reviews) + 10 + SPARE,
            f"GET {path} shows {plural(books, 'book')} and {plural(reviews, 'review')}. The shop has "
            f"{await shop.count('books')} books. PostgreSQL sent {page.rows} rows for it.",
            because=UNUSED,
            section=COUNT,
        )


async def test_a_page_of_fifty_takes_the_statements_of_a_page_of_five(app, shop, wire):
    """A page of 50 books takes as many statements as a page of 5."""
    ids = await shop.seed(authors=50, books=50, customers=2, reviews=50)
    few, short = await watched(app, wire, "/catalogue?size=5", PAGE)
    many, long = await watched(app, wire, "/catalogue?size=50", PAGE)
    expect(
        (len(short["books"]), len(long["books"])) == (5, 50),
        f"The shop has {len(ids.books) + 1} books, those of others included. A page of 5 holds {len(short['books'])}, "
        f"a page of 50 holds {len(long['books'])}.",
        because=INCOMPLETE,
        section=PAGE,
    )
    expect(
        asked(many) <= asked(few),
        f"5 books took {plural(asked(few), 'statement')}, 50 books took {asked(many)}.",
        because=LOOP,
        section=EACH_ROW,
    )


async def test_an_account_is_complete(app, shop):
    """`GET /customers/{id}` returns all orders and all reviews of the customer, and 404 for unknown ones."""
    ids = await shop.seed(books=9, customers=2, reviews=80, orders=80, lines=2)
    reader = await shop.add("customers", email="reader@example.org", name="Ann Lee")
    buyer = await shop.add("customers", email="buyer@example.org", name="Ann Lee")
    quiet = await shop.add("customers", email="quiet@example.org", name="")
    await add_reviews(shop, ids.books[0], reader, MANY)
    await add_reviews(shop, ids.books[1], reader, 3)  # the same ratings and words again
    await add_orders(shop, ids.books[:3], buyer, MANY)
    for customer in (*ids.customers, reader, buyer, quiet, *ids.others.customers):
        response = await got(app, f"/customers/{customer}", TWO)
        wrong = difference_of(await stored_account(shop, customer), response.json)
        expect(not wrong, f"GET /customers/{customer}:\n{wrong}", because=INCOMPLETE, section=TWO)
    for unknown in (ids.orders[0], ids.books[0], 999_999_999, 2**63 - 1):
        response = await app.get(f"/customers/{unknown}")
        expect(
            response.status == 404,
            f"There is no customer {unknown}. {response}",
            because="The website cannot tell a wrong link from a customer, or from a fault of the service.",
            section=TWO,
        )


@pytest.mark.needs("test_an_account_is_complete")
async def test_an_account_costs_its_rows(app, shop, wire):
    """An account with 30 orders and 30 reviews fetches some 60 rows, and nobody else's."""
    ids = await shop.seed(authors=8, books=40, customers=3, reviews=90, orders=90, lines=2)
    path = f"/customers/{ids.customers[0]}"
    seen, response = await watched(app, wire, path, TWO)
    orders, reviews = len(response["orders"]), len(response["reviews"])
    expect(
        seen.rows <= 1 + orders + reviews + 2 * SPARE,
        f"GET {path} shows a customer with {orders} orders and {reviews} reviews. PostgreSQL sent {seen.rows} rows.",
        because=UNUSED,
        section=TWO,
    )
    await more_readers(shop)
    later, _ = await watched(app, wire, path, TWO)
    expect_no_more(later, seen, "The account", TWO)


async def test_a_history_is_complete(app, shop):
    """`GET /customers/{id}/orders` lists, for each line of each order, the book's title and its author's name."""
    ids = await shop.seed(authors=5, books=20, customers=2, orders=60, lines=3)
    one, other = ids.authors[:2]
    await shop.execute("UPDATE authors SET name = 'Ann Lee' WHERE id = ANY($1)", [one, other])
    await shop.execute("UPDATE books SET price_cents = price_cents + 50")  # since they were ordered
    order, twice = ids.orders[0], ids.books[7]
    for quantity, price in ((2, 5), (3, 5), (3, 5)):
        await shop.add("order_lines", order_id=order, book_id=twice, quantity=quantity, price_cents=price)
    quiet = await shop.add("customers", email="quiet@example.org", name="Ann Lee")
    buyer = await shop.add("customers", email="buyer@example.org", name="Ann Lee")
    await add_orders(shop, ids.books[:3], buyer, MANY)
    for customer in (*ids.customers, quiet, buyer, *ids.others.customers):
        path = f"/customers/{customer}/orders"
        response = await got(app, path, LEVEL)
        wrong = differences(await stored_history(shop, customer), response.json, "order")
        expect(not wrong, f"GET {path}: {wrong}", because=INCOMPLETE, section=LEVEL)


@pytest.mark.needs("test_a_history_is_complete")
async def test_a_long_history_takes_the_statements_of_a_short_one(app, shop, wire):
    """A history of 20 orders takes as many statements as one of 2, down to the authors."""
    ids = await shop.seed(authors=60, books=60, customers=2, orders=40, lines=2)
    customer, last = ids.customers[0], sorted(ids.orders[::2])[2:]
    await shop.execute("UPDATE orders SET customer_id = $1 WHERE id = ANY($2)", ids.customers[1], last)
    path = f"/customers/{customer}/orders"
    few, short = await watched(app, wire, path, LEVEL)
    await shop.execute(
        "UPDATE orders SET customer_id = $1 WHERE id = ANY($2)",
        customer,
        last,
        step="18 orders more are this customer's",
    )
    many, long = await watched(app, wire, path, LEVEL)
    wrong = differences(await stored_history(shop, customer), long.json, "order")
    expect(not wrong, f"GET {path}: {wrong}", because=INCOMPLETE, section=LEVEL)
    expect(
        asked(many) <= asked(few),
        f"{len(short.json)} orders took {plural(asked(few), 'statement')}, {len(long.json)} orders took {asked(many)}.",
        because=LOOP,
        section=LEVEL,
    )


@pytest.mark.needs("test_a_history_is_complete")
async def test_a_history_costs_its_rows(app, shop, wire):
    """A history of 30 orders fetches the rows of these orders, and nobody else's."""
    ids = await shop.seed(authors=6, books=12, customers=5, orders=150, lines=2)  # those of others lie in between
    path = f"/customers/{ids.customers[0]}/orders"
    seen, response = await watched(app, wire, path, LEVEL)
    orders, lines = len(response.json), sum(len(order["lines"]) for order in response.json)
    expect(
        seen.rows <= 1 + orders + 3 * lines + SPARE,  # a line, its book and its author
        f"GET {path} shows {orders} orders with {lines} lines. PostgreSQL sent {seen.rows} rows for it.",
        because=UNUSED,
        section=LEVEL,
    )
    await more_readers(shop)
    await more_books(shop, 300)
    later, _ = await watched(app, wire, path, LEVEL)
    expect_no_more(later, seen, "The history", LEVEL)


@pytest.mark.needs(
    "test_authors_are_listed_with_their_books",
    "test_a_book_nobody_reviewed_is_on_its_page",
    "test_an_account_is_complete",
    "test_a_history_is_complete",
)
async def test_every_response_shows_what_is_stored_now(app, shop):
    """`/authors`, `/catalogue`, `/customers/{id}` and `/customers/{id}/orders` show what is stored at this moment."""
    ids = await shop.seed(authors=4, books=9, customers=2, reviews=6, orders=6)
    moment, why = "At first", INCOMPLETE
    for change, sql in (("", ""), *CHANGES.items()):
        if change:
            await shop.execute(sql, step=change)
            moment, why = f"After {change}", STALE
        listed = await got(app, "/authors", WAYS)
        wrong = differences(await stored_authors(shop), listed.json, "author")
        expect(not wrong, f"{moment}, GET /authors: {wrong}", because=why, section=WAYS)
        page = await got(app, "/catalogue?size=100", PAGE)
        stored = await stored_books(shop)
        expect_total(page, len(stored), COUNT)
        wrong = differences(stored, page["books"], "book")
        expect(not wrong, f"{moment}, GET /catalogue: {wrong}", because=why, section=PAGE)
        for customer in ids.customers:
            account = await got(app, f"/customers/{customer}", TWO)
            wrong = difference_of(await stored_account(shop, customer), account.json)
            expect(not wrong, f"{moment}, {account.request}:\n{wrong}", because=why, section=TWO)
            history = await got(app, f"/customers/{customer}/orders", LEVEL)
            wrong = differences(await stored_history(shop, customer), history.json, "order")
            expect(not wrong, f"{moment}, {history.request}: {wrong}", because=why, section=LEVEL)


async def got(app, path, section):
    """The response to GET `path`, which must be 200."""
    response = await app.get(path)
    expect(
        response.status == 200, f"{response}", because="Visitors see an error instead of this page.", section=section
    )
    return response


async def watched(app, wire, path, section):
    """What the second of two requests took, and its response: the first one opens a connection and prepares."""
    await got(app, path, section)
    await wait_quiescent(app, wire)
    with wire.watching() as seen:
        response = await got(app, path, section)
        await wait_quiescent(app, wire)
    return seen, response


def asked(seen):
    """How many statements there were; one that is read through a cursor is one, however often rows are fetched."""
    return sum(not statement.continues for statement in seen.data_statements)


def expect_no_more(later, seen, what, section):
    """The response is the same as before rows were added elsewhere, so PostgreSQL sends no more for it."""
    expect(
        later.rows <= seen.rows,
        f"{what} took {seen.rows} rows. Then rows were added that it does not show, and it took {later.rows} rows.",
        because=UNUSED,
        section=section,
    )
    more = later.bytes_from_server - seen.bytes_from_server
    expect(
        more < OTHERS_BYTES,
        f"After rows were added that {what.lower()} does not show, it takes no more rows. But PostgreSQL sent {more} "
        "bytes more for it.",
        because=UNUSED,
        section=section,
    )


def expect_total(page, stored, section):
    expect(
        page["total"] == stored,
        f"The shop has {stored} books, those of others included. {page.request} says that the total is "
        f"{page['total']}.",
        because="The website computes the number of pages from the total: visitors miss pages, or turn to empty ones.",
        section=section,
    )


def first_out_of_order(texts):
    """The first two neighbors that are not sorted, for a verdict."""
    return next((f"{b!r} came after {a!r}" for a, b in pairwise(texts) if b < a), f"{texts}")


async def add_reviews(shop, book, customer, count):
    await shop.execute(
        "INSERT INTO reviews (book_id, customer_id, rating, body) "
        "SELECT $1, $2, 1 + n % 5, 'Opinion ' || n FROM generate_series(1, $3) n",
        book,
        customer,
        count,
        step=f"{plural(count, 'review')} of book {book} by customer {customer}",
    )


async def add_orders(shop, books, customer, count):
    """Adds orders of the same moment, one line each."""
    await shop.execute(
        "WITH placed AS (INSERT INTO orders (customer_id) SELECT $1 FROM generate_series(1, $2) RETURNING id)"
        "INSERT INTO order_lines (order_id, book_id, quantity, price_cents) "
        "SELECT id, ($3::bigint[])[1 + id % array_length($3::bigint[], 1)], 1, 900 FROM placed",
        customer,
        count,
        books,
        step=f"{plural(count, 'order')} by customer {customer}",
    )


MANY = 120
"""More rows than a page of an API usually has."""

SPARE = 2
"""Rows beyond those that are shown: a count, or whether the customer exists."""

OTHERS_BYTES = 2000
"""Far below the size of the rows of others, and far above what a total with more digits adds."""

CHANGED = "price, stock, ratings and updated_at changed of the books seen so far"
# up for some books and down for others, so that neither direction of any column makes an order that lasts
CHANGE_BOOKS = """
    UPDATE books SET
        price_cents = CASE id % 2 WHEN 0 THEN price_cents + 5000 ELSE greatest(price_cents - 500, 1) END,
        stock = stock + 1 - 2 * (id % 2),
        rating_count = rating_count + 1 - 2 * (id % 2),
        rating_sum = rating_sum + 3 - 6 * (id % 2),
        updated_at = CASE id % 2 WHEN 0 THEN clock_timestamp() ELSE created_at - interval '1 day' END
    WHERE id = ANY($1)
"""
CHANGES = {
    "names, titles, prices, reviews and quantities were changed": """
        UPDATE authors SET name = name || ' jr.';
        UPDATE books SET title = title || ', revised', price_cents = 7;
        UPDATE reviews SET rating = 6 - rating, body = 'I take it back';
        UPDATE customers SET name = name || ' jr.';
        UPDATE order_lines SET quantity = quantity + 1, price_cents = 7;
    """,
    "an author, books, orders and a review were added": """
        INSERT INTO authors (name) VALUES ('Somebody new');
        INSERT INTO books (isbn, title, author_id, price_cents) SELECT '9799' || id, 'New', id, 5 FROM authors;
        INSERT INTO orders (customer_id) SELECT id FROM customers;
        INSERT INTO order_lines (order_id, book_id, quantity, price_cents)
            SELECT o.id, min(b.id), 1, 5 FROM orders o, books b GROUP BY o.id;
        INSERT INTO reviews (book_id, customer_id, rating)
            SELECT max(b.id), min(c.id), 2 FROM books b, customers c;
    """,
    "some reviews, orders, books and authors were deleted": """
        DELETE FROM reviews WHERE id IN (SELECT min(id) FROM reviews GROUP BY customer_id);
        DELETE FROM order_lines WHERE order_id IN (SELECT min(id) FROM orders GROUP BY customer_id);
        DELETE FROM orders o WHERE NOT EXISTS (SELECT FROM order_lines WHERE order_id = o.id);
        DELETE FROM books b WHERE NOT EXISTS (SELECT FROM reviews WHERE book_id = b.id)
            AND NOT EXISTS (SELECT FROM order_lines WHERE book_id = b.id);
        DELETE FROM authors a WHERE NOT EXISTS (SELECT FROM books WHERE author_id = a.id);
    """,
    "all reviews, orders, books and authors were deleted": """
        DELETE FROM reviews;
        DELETE FROM order_lines;
        DELETE FROM orders;
        DELETE FROM books;
        DELETE FROM authors;
    """,
}

INCOMPLETE = "The website shows what the response holds. What is not in it cannot be found, read or bought."
UNSORTED = "Visitors look for a name or a title where the alphabet puts it, and do not find it there."
LOOP = "Each statement crosses the network. The page becomes slower with each row, until visitors give up."
UNUSED = (
    "PostgreSQL sends rows that nobody sees, and the app reads them. The page becomes slower as the shop grows, and so "
    "does everything else on the same database."
)
STALE = "Visitors decide by prices, titles and orders that were true at another time."
