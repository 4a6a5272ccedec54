"""The rows that `shop.seed` inserts: what was asked for, in a world that is not friendly, and the same each time.

And what else a check may do to the shop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import asyncpg
import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.postgres import Server
from checks.kit.testbed.rows import TABLES, shuffled
from checks.kit.testbed.shop import Shop, fill

SCHEMA = (find_lesson(3).folder / "schema.sql").read_text(encoding="utf-8")


@pytest.fixture
async def shop(server: Server) -> AsyncIterator[Shop]:
    async with server.database(SCHEMA, "seed") as database:
        yield Shop(database)


@pytest.mark.parametrize("count", [*range(30), 4001])
def test_rows_are_inserted_neither_sorted_nor_reversed(count: int) -> None:
    numbers = shuffled(count)
    assert sorted(numbers) == list(range(count))
    if count > 2:
        assert numbers not in (sorted(numbers), sorted(numbers, reverse=True))


async def test_the_rows_asked_for_stand_beside_rows_of_others(shop: Shop) -> None:
    ids = await shop.seed(authors=2, books=6, customers=4, orders=5, lines=2, stock=9)
    for table, key in (("authors", "name"), ("books", "title"), ("customers", "name"), ("orders", "id")):
        rows = await shop.rows(f"SELECT * FROM {table}")  # as they were inserted
        [other] = ids.others.of(table)
        assert [row["id"] for row in rows if row["id"] != other] == ids.of(table)
        assert other not in (rows[0]["id"], rows[-1]["id"])
        for column in ("id", key):
            values = [row[column] for row in rows]
            assert values not in (sorted(values), sorted(values, reverse=True))
    assert await shop.count("order_lines") == 5 * 2 + 1
    strange = await shop.rows(
        "SELECT a.id AS author, c.id AS customer FROM order_lines l JOIN orders o ON o.id = order_id "
        "JOIN customers c ON c.id = customer_id JOIN books b ON b.id = book_id JOIN authors a ON a.id = author_id "
        "WHERE o.id = $1",
        *ids.others.orders,
    )
    assert strange == [{"author": ids.others.authors[0], "customer": ids.others.customers[0]}]
    assert {row["stock"] for row in await shop.rows("SELECT stock FROM books")} == {9}


async def test_a_review_of_others_is_of_their_book(shop: Shop) -> None:
    ids = await shop.seed(books=2, customers=2, reviews=4)
    [review] = await shop.rows("SELECT book_id, customer_id FROM reviews WHERE id = $1", *ids.others.reviews)
    assert list(review.values()) == [ids.others.books[0], ids.others.customers[0]]
    assert await shop.count("reviews") == 5


async def test_ids_say_nothing_and_go_on_after_those_that_were_seeded(shop: Shop) -> None:
    ids = await shop.seed(books=3, customers=1, orders=1)
    new = [
        await shop.add("authors", name="x"),
        await shop.add("books", isbn="1", title="x", author_id=ids.authors[0], price_cents=1),
        await shop.add("customers", email="x", name="x"),
        await shop.add("reviews", book_id=ids.books[0], customer_id=ids.customers[0], rating=1),
        await shop.add("orders", customer_id=ids.customers[0]),
        await shop.add("order_lines", order_id=ids.orders[0], book_id=ids.books[0], quantity=1, price_cents=1),
    ]
    assert min(new) > 1000
    assert max(new) < 1_000_000
    assert all(b - a > 50_000 for a, b in pairwise(sorted(new)))


async def test_sort_keys_tie_and_texts_are_what_people_type(shop: Shop) -> None:
    await shop.seed(books=15, customers=8)
    titles = [row["title"] for row in await shop.rows("SELECT title FROM books")]
    names = [row["name"] for row in await shop.rows("SELECT name FROM customers")]
    assert len(set(titles)) < len(titles)
    assert len(set(names)) < len(names)
    texts = "".join([*titles, *names])
    assert all(character in texts for character in "'\"%\\")
    assert max(texts) > "\xff"
    assert "\0" not in texts
    assert any(title.startswith("The ") for title in titles)
    assert any("The " in title[1:] for title in titles)
    assert any(title[0].isdigit() for title in titles)
    emails = [row["email"] for row in await shop.rows("SELECT email FROM customers")]
    assert emails == [email.lower() for email in emails]


async def test_three_books_have_a_tie(shop: Shop) -> None:
    await shop.seed(books=3, others=False)
    assert await shop.value("SELECT count(DISTINCT title) FROM books") == 2


async def test_others_can_be_left_out(shop: Shop) -> None:
    ids = await shop.seed(authors=1, books=2, others=False)
    assert await shop.count("books") == 2
    assert await shop.count("customers") == 0
    assert ids.others.books == []


async def test_a_seed_for_nothing_is_rows_of_others(shop: Shop) -> None:
    ids = await shop.seed()
    assert ids.books == []
    assert [len(ids.others.of(table)) for table in TABLES] == [1, 1, 1, 0, 0]


async def test_the_same_call_makes_the_same_rows(server: Server) -> None:
    made = []
    for _ in range(2):
        async with server.database(SCHEMA, "seed") as database:
            shop = Shop(database)
            ids = await shop.seed(books=20, customers=3, reviews=9)
            made.append((ids, await shop.rows("SELECT id, title, author_id FROM books")))
    assert made[0] == made[1]


async def test_tables_that_a_lesson_does_not_have_are_left_out(server: Server) -> None:
    schema = (find_lesson(0).folder / "schema.sql").read_text(encoding="utf-8")
    async with server.database(schema, "seed") as database:
        ids = await Shop(database).seed(books=1)
        assert [len(ids.others.of(table)) for table in TABLES] == [1, 1, 0, 0, 0]
    async with server.database("CREATE TABLE notes (note text)", "seed") as database:
        assert (await Shop(database).seed()).others.books == []


async def test_people_get_plain_rows_with_ids_from_1(shop: Shop) -> None:
    await fill(shop)
    books = await shop.rows("SELECT id, title FROM books ORDER BY id LIMIT 2")
    assert books == [{"id": 1, "title": "Book 0"}, {"id": 2, "title": "Book 1"}]
    assert await shop.add("authors", name="x") == 4
    assert await shop.count("order_lines") == 18
    # three opinions of each book, so that a join with them has more rows than books, each of another customer
    assert await shop.value("SELECT count(DISTINCT (book_id, customer_id)) FROM reviews") == 36


async def test_thousands_of_books_take_a_statement_for_each_table(shop: Shop) -> None:
    before = await shop.value("SELECT count(*) FROM pg_stat_activity")  # the connection is there
    assert before
    ids = await shop.seed(books=4000)
    assert len(set(ids.books)) == 4000
    assert await shop.value("SELECT count(DISTINCT xmin::text) FROM books") == 1


async def test_sessions_that_come_during_a_lock_are_seen(shop: Shop, server: Server) -> None:
    sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
    async with shop.lock("books"):
        before = await shop.value(sql)
        connection = await asyncpg.connect(
            host=server.address.host, port=server.address.port, user=shop.database.role,
            password=shop.database.password, database=shop.database.name, ssl=server.address.tls or False,
        )  # fmt: skip
        assert await shop.value(sql) == before + 1
        assert await shop.rows(sql) == [{"n": before + 1}]
        await connection.close()
