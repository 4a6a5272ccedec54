"""Lesson 03: an answer costs what it holds, not what the tables hold, and a fixed number of statements."""

import asyncio

import pytest

from checks.kit.report import expect


async def test_authors_are_listed_with_their_books(app, shop):
    """`GET /authors` lists every author by name, with all books by title, and those without books too."""
    there = await shop.has(authors=3, books=4)
    await shop.add("authors", name="A silent one")
    answer = await app.get("/authors")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="See it break")
    found = {author["name"]: [book["title"] for book in author["books"]] for author in answer.json}
    wanted = {"A silent one": [], "Author 0": ["Book 0", "Book 3"], "Author 1": ["Book 1"], "Author 2": ["Book 2"]}
    expect(
        list(found.items()) == list(wanted.items()) and len(answer.json) == len(there.authors) + 1,
        f"Stored are {wanted}, answered {found}.",
        because=WHOLE,
        read="Four ways to load a collection",
    )


async def test_fifty_authors_take_the_statements_of_five(app, shop, wire):
    """`GET /authors` sends as many statements for 50 authors as for 5."""
    await shop.has(authors=5, books=15)
    few = await statements(app, wire, "/authors")
    await shop.execute(f"INSERT INTO authors (name) SELECT 'More ' || n FROM generate_series(1, 45) n; {ONE_BOOK_EACH}")
    many = await statements(app, wire, "/authors")
    expect(
        many <= few,
        f"5 authors took {few} statements, 50 authors {many}.",
        because=LOOP,
        read="One statement for each row",
    )


@pytest.mark.alone
async def test_a_slow_network_does_not_multiply(app, shop, wire):
    """With 20 ms on each round trip, `GET /authors` takes less than twice as long for 50 authors as for 5."""
    await shop.has(authors=5, books=15)
    await app.get("/authors")
    async with wire.latency(0.020):
        few = min([await seconds(app, "/authors") for _ in range(2)])
        await shop.execute(
            f"INSERT INTO authors (name) SELECT 'More ' || n FROM generate_series(1, 45) n; {ONE_BOOK_EACH}"
        )
        many = min([await seconds(app, "/authors") for _ in range(2)])
    expect(
        many < 2 * few,
        f"50 authors took {many / few:.1f} times as long as 5.",
        because=LOOP,
        read="One statement for each row",
    )


async def test_authors_cost_the_rows_they_show(app, shop, wire):
    """`GET /authors` fetches no more rows than it shows authors and books."""
    await shop.has(authors=10, books=30, customers=3, reviews=300)
    with wire.watching() as seen:
        answer = await app.get("/authors")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="See it break")
    expect(
        seen.rows <= 10 + 30,
        f"10 authors with 30 books are shown; {seen.rows} rows crossed the wire.",
        because=ROWS,
        read="Rows against strategy",
    )


async def test_a_page_holds_what_was_asked_for(app, shop):
    """`GET /catalogue?page=1&size=10` holds ten books by title, each with author and reviews, and the total."""
    await shop.has(authors=2, books=12, customers=3, reviews=36)
    await shop.execute("UPDATE books SET title = 'Book ' || 99 - substr(title, 6)::int")
    answer = await app.get("/catalogue?page=1&size=10")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="A page of a join")
    got = [(book["title"], book["author"], len(book["reviews"])) for book in answer["books"]]
    wanted = [(f"Book {88 + n}", f"Author {(n + 1) % 2}", 3) for n in range(10)]
    expect(
        got == wanted and answer["total"] == 12,
        f"Ten books by title with three reviews each were asked for. Answered: {[title for title, _, _ in got]}, with "
        f"{[reviews for _, _, reviews in got]} reviews, total {answer['total']}.",
        because=PAGE,
        read="A page of a join",
    )
    rest = await app.get("/catalogue?page=2&size=10")
    beyond = await app.get("/catalogue?page=3&size=10")
    expect(
        len(rest["books"]) == 2 and beyond["books"] == [],
        f"12 books in pages of ten: the second page holds {len(rest['books'])}, the third {beyond['books']}.",
        because=PAGE,
        read="A page of a join",
    )
    expect(
        beyond["total"] == 12,
        f"The third page, which is empty, says that there are {beyond['total']} books; there are 12.",
        because="A total that is counted beside the rows of a page is counted nowhere when the page has none.",
        read="Counting by loading",
    )


async def test_a_book_nobody_reviewed_is_on_its_page(app, shop):
    """Books without a review are on their page like all others, with an empty list."""
    await shop.has(books=3, customers=1, reviews=1)
    answer = await app.get("/catalogue?size=10")
    got = sorted(len(book["reviews"]) for book in answer["books"])
    expect(
        got == [0, 0, 1],
        f"One of three books has a review; the page holds books with {got} reviews.",
        because="An inner join keeps only what has a partner.",
        read="A page of a join",
    )


async def test_every_book_is_on_one_page(app, shop):
    """Whoever turns the pages sees every book exactly once, also when titles are the same and rows are updated."""
    there = await shop.has(books=40, customers=1, reviews=40)
    await shop.execute("UPDATE books SET title = 'The same'")
    seen = []
    for page in range(1, 5):
        answer = await app.get(f"/catalogue?page={page}&size=10")
        expect(answer.status == 200, f"{answer}", because=WHOLE, read="A page of a join")
        seen += [book["id"] for book in answer["books"]]
        for column in ("books SET stock = stock WHERE id", "reviews SET rating = rating WHERE book_id"):
            await shop.execute(f"UPDATE {column} = ANY($1)", seen, did="rows of the books seen so far were updated")
    missing, twice = len(set(there.books) - set(seen)), len(seen) - len(set(seen))
    expect(
        not missing and not twice,
        f"40 books in pages of ten, all with the same title: {missing} were on no page, {twice} came again.",
        because="ORDER BY says nothing about rows that are equal in it: PostgreSQL returns those as it finds them, and "
        "an UPDATE of any column may change where it finds them. What makes two books of the same title different?",
        read="Pages under ties",
    )


async def test_a_page_costs_its_rows_not_the_tables(app, shop, wire):
    """A page of ten books fetches rows for ten books, however many the shop has."""
    await shop.has(books=400, customers=4, reviews=1200)
    with wire.watching() as seen:
        answer = await app.get("/catalogue?size=10")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="See it break")
    expect(
        seen.rows <= 2 * (10 + 30),
        f"The page holds 10 books and 30 reviews; {seen.rows} rows crossed the wire. The shop has 400 books.",
        because=ROWS,
        read="Counting by loading",
    )


async def test_a_page_of_fifty_takes_the_statements_of_a_page_of_five(app, shop, wire):
    """A page of 50 books takes as many statements as a page of 5."""
    await shop.has(authors=50, books=50, customers=2, reviews=100)
    few = await statements(app, wire, "/catalogue?size=5")
    many = await statements(app, wire, "/catalogue?size=50")
    expect(
        many <= few,
        f"5 books took {few} statements, 50 books {many}.",
        because=LOOP,
        read="One statement for each row",
    )


async def test_an_account_is_complete(app, shop):
    """`GET /customers/{id}` answers with all orders and all reviews of the customer; unknown ones get 404."""
    there = await shop.has(books=3, customers=2, reviews=12, orders=8)
    answer = await app.get(f"/customers/{there.customers[0]}")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="Two collections at once")
    got = [order["id"] for order in answer["orders"]], [review["id"] for review in answer["reviews"]]
    wanted = there.orders[::2], there.reviews[::2]
    expect(
        (sorted(got[0]), sorted(got[1])) == wanted,
        f"Stored are orders {wanted[0]} and reviews {wanted[1]}; answered {got[0]} and {got[1]}.",
        because=WHOLE,
        read="Two collections at once",
    )
    unknown = await app.get("/customers/999999")
    expect(unknown.status == 404, f"{unknown}", because="There is no such customer.")


async def test_an_account_costs_its_rows(app, shop, wire):
    """An account with 30 orders and 30 reviews fetches some 60 rows, not 900, and nobody else's."""
    there = await shop.has(books=3, customers=4, reviews=120, orders=120)
    with wire.watching() as seen:
        answer = await app.get(f"/customers/{there.customers[0]}")
    shown = 1 + len(answer["orders"]) + len(answer["reviews"])
    expect(
        seen.rows <= 2 * shown,
        f"The answer holds {shown} rows' worth; {seen.rows} crossed the wire.",
        because="Two collections joined to one parent give every pair of their rows: 30 orders and 30 reviews are 900, "
        "and most of each is sent again and again. How can each collection come by itself?",
        read="Two collections at once",
    )


async def test_a_history_is_complete(app, shop):
    """`GET /customers/{id}/orders` tells for every line of every order the book's title and its author's name."""
    there = await shop.has(authors=2, books=4, customers=1, orders=2, lines=2)
    answer = await app.get(f"/customers/{there.customers[0]}/orders")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="One level further")
    got = [[(line["title"], line["author"]) for line in order["lines"]] for order in answer.json]
    wanted = [[("Book 0", "Author 0"), ("Book 1", "Author 1")], [("Book 2", "Author 0"), ("Book 3", "Author 1")]]
    expect(got == wanted, f"Stored are {wanted}, answered {got}.", because=WHOLE, read="One level further")


async def test_a_long_history_takes_the_statements_of_a_short_one(app, shop, wire):
    """A history of 20 orders takes as many statements as one of 2, down to the authors."""
    there = await shop.has(authors=60, books=60, customers=1, orders=2, lines=3)
    path = f"/customers/{there.customers[0]}/orders"
    few = await statements(app, wire, path)
    await shop.execute(
        "INSERT INTO orders (customer_id) SELECT id FROM customers, generate_series(1, 18);"
        "INSERT INTO order_lines (order_id, book_id, quantity, price_cents) "
        "SELECT o.id, b.id, 1, 10 FROM orders o JOIN books b ON b.id % 20 = o.id % 20 WHERE o.id > 2"
    )
    many = await statements(app, wire, path)
    expect(
        many <= few,
        f"2 orders took {few} statements, 20 orders {many}.",
        because="Each level that the query does not load is loaded row by row later. Orders have lines, lines have a "
        "book, and a book has an author: how far does the query reach?",
        read="One level further",
    )


async def test_a_history_costs_its_rows(app, shop, wire):
    """A history of 30 orders fetches the rows of these orders, and nobody else's."""
    there = await shop.has(authors=3, books=6, customers=4, orders=120, lines=2)
    with wire.watching() as seen:
        answer = await app.get(f"/customers/{there.customers[0]}/orders")
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="See it break")
    shown = sum(1 + len(order["lines"]) for order in answer.json)
    expect(
        seen.rows <= 2 * shown,
        f"The answer holds {shown} rows' worth; {seen.rows} crossed the wire.",
        because=ROWS,
        read="One level further",
    )


async def statements(app, wire, path):
    with wire.watching() as seen:
        answer = await app.get(path)
        expect(answer.status == 200, f"{answer}", because=WHOLE, read="See it break")
    return len(seen.data_statements)


async def seconds(app, path):
    clock = asyncio.get_running_loop()
    began = clock.time()
    answer = await app.get(path)
    expect(answer.status == 200, f"{answer}", because=WHOLE, read="See it break")
    return clock.time() - began


ONE_BOOK_EACH = (
    "INSERT INTO books (isbn, title, author_id, price_cents) "
    "SELECT '97811111' || lpad(id::text, 5, '0'), 'More', id, 100 FROM authors WHERE name LIKE 'More %'"
)
WHOLE = (
    "However it is loaded, the answer must hold all of it. What the query did not load cannot be loaded by touching an "
    "attribute: that would take a statement, and nobody awaits it."
)
LOOP = (
    "A statement for each row: on one machine each takes a fraction of a millisecond, in production every one of them "
    "crosses the network. Which line asks the database once per row, and which query could have brought all of them?"
)
ROWS = (
    "Rows are packed, sent, unpacked and made into objects before anybody throws them away, and a table grows. What "
    "does the answer need, and what else was fetched?"
)
PAGE = (
    "LIMIT counts the rows of the result. Of which table are these rows, once a book is joined to its reviews? Ten "
    "books should be ten rows there."
)
