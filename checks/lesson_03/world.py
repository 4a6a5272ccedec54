"""The rows of lesson 03's checks, what a complete response holds of them, and how a response differs from it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

Entry = dict[str, Any]


async def some_authors_more(shop: Any, count: int) -> None:
    """Adds authors: one in five has no book, one in five has two, the others have one; a few names are equal."""
    await shop.execute(
        "WITH added AS "
        "  (INSERT INTO authors (name) SELECT 'More ' || n % 31 FROM generate_series(1, $1) n RETURNING id),"
        " numbered AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM added)"
        "INSERT INTO books (isbn, title, author_id, price_cents) "
        "SELECT '97811' || id || k, 'More ' || n % 7, id, 900 + n FROM numbered, generate_series(1, 2) k "
        "WHERE n % 5 <> 0 AND (k = 1 OR n % 5 = 1)",
        count,
        step=f"{count} authors were added, with no book, one book or two books each",
    )


async def more_books(shop: Any, count: int) -> None:
    """Adds books with long titles that sort after the others, by all authors and 40 new ones, with two long reviews."""
    await shop.execute(
        "WITH writers AS (INSERT INTO authors (name) SELECT 'zzzz ' || n FROM generate_series(0, 39) n RETURNING id),"
        " reader AS (INSERT INTO customers (email, name) VALUES ('avid@example.com', 'An avid reader') RETURNING id),"
        " numbered AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM "
        "   (SELECT id FROM writers UNION SELECT id FROM authors) AS every),"
        " added AS (INSERT INTO books (isbn, title, author_id, price_cents) "
        "   SELECT '97822' || lpad(b::text, 8, '0'), repeat('zzzz ', 20) || b % 50, numbered.id, 1000 "
        "   FROM generate_series(1, $1) b "
        "   JOIN numbered ON numbered.n = b % (SELECT count(*) FROM numbered) RETURNING id)"
        "INSERT INTO reviews (book_id, customer_id, rating, body) "
        "SELECT added.id, reader.id, 1 + added.id % 5, repeat('Much too long. ', 12) "
        "FROM added, reader, generate_series(1, 2)",
        count,
        step=f"{count} books by these and 40 other authors were added, with 2 reviews each",
    )


async def more_readers(shop: Any) -> None:
    """Adds twelve customers, each with ten orders of two lines and ten long reviews, of any books there are."""
    await shop.execute(
        "CREATE TEMP TABLE readers AS WITH added AS (INSERT INTO customers (email, name) "
        "  SELECT 'more' || n || '@example.com', 'More ' || n % 5 FROM generate_series(1, 12) n RETURNING id)"
        "  SELECT id FROM added;"
        "CREATE TEMP TABLE shelf AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM books;"
        "CREATE TEMP TABLE placed AS WITH added AS (INSERT INTO orders (customer_id) "
        "  SELECT id FROM readers, generate_series(1, 10) RETURNING id) SELECT id FROM added;"
        "INSERT INTO order_lines (order_id, book_id, quantity, price_cents) "
        "  SELECT placed.id, shelf.id, 1, 10 FROM placed CROSS JOIN generate_series(0, 1) k "
        "  JOIN shelf ON shelf.n = (placed.id + k) % (SELECT count(*) FROM shelf);"
        "INSERT INTO reviews (book_id, customer_id, rating, body) "
        "  SELECT shelf.id, readers.id, 3, repeat('Much too long. ', 12) "
        "  FROM readers CROSS JOIN generate_series(0, 9) k "
        "  JOIN shelf ON shelf.n = (readers.id + k) % (SELECT count(*) FROM shelf);"
        "DROP TABLE readers, shelf, placed",
        step="12 customers were added, with 10 orders of 2 lines and 10 reviews each",
    )


async def stored_authors(shop: Any) -> list[Entry]:
    """Every author with every book, in no particular order."""
    books = await shop.rows("SELECT author_id, id, title, price_cents FROM books")
    return [
        author | {"books": [without(book, "author_id") for book in books if book["author_id"] == author["id"]]}
        for author in await shop.rows("SELECT id, name FROM authors")
    ]


async def stored_books(shop: Any) -> list[Entry]:
    """Every book with its author's name and all its reviews, in no particular order."""
    reviews = await shop.rows("SELECT book_id, id, rating, body FROM reviews")
    books = await shop.rows(
        "SELECT b.id, title, price_cents, a.name AS author FROM books b JOIN authors a ON a.id = b.author_id"
    )
    return [
        book | {"reviews": [without(review, "book_id") for review in reviews if review["book_id"] == book["id"]]}
        for book in books
    ]


async def stored_account(shop: Any, customer: int) -> Entry:
    """A customer with all orders and all reviews."""
    [account] = await shop.rows("SELECT id, name FROM customers WHERE id = $1", customer)
    return {
        **account,
        "orders": await shop.rows("SELECT id, created_at FROM orders WHERE customer_id = $1", customer),
        "reviews": await shop.rows("SELECT id, rating, body FROM reviews WHERE customer_id = $1", customer),
    }


async def stored_history(shop: Any, customer: int) -> list[Entry]:
    """A customer's orders, each with what its lines say."""
    lines = await shop.rows(
        "SELECT order_id, title, a.name AS author, l.quantity, l.price_cents FROM order_lines l "
        "JOIN books b ON b.id = l.book_id JOIN authors a ON a.id = b.author_id"
    )
    return [
        order | {"lines": [without(line, "order_id") for line in lines if line["order_id"] == order["id"]]}
        for order in await shop.rows("SELECT id, created_at FROM orders WHERE customer_id = $1", customer)
    ]


async def in_order(shop: Any, texts: list[str]) -> bool:
    """Whether the texts are sorted as PostgreSQL or as Python sorts them, or without regard to case."""
    by_postgres = await shop.rows("SELECT t FROM unnest($1::text[]) AS t ORDER BY t", texts)
    folded = [text.casefold() for text in texts]
    return texts in ([row["t"] for row in by_postgres], sorted(texts)) or folded == sorted(folded)


def without(row: Entry, name: str) -> Entry:
    return {key: value for key, value in row.items() if key != name}


def differences(stored: list[Entry], returned: Any, noun: str) -> str:
    """How a list with ids differs from what is stored, whatever the order of either; empty if it does not."""
    if not isinstance(returned, list) or not all(isinstance(entry, dict) for entry in returned):
        return f"A list of {noun}s was expected, and {str(returned)[:80]} came."
    known = {entry["id"]: entry for entry in stored}
    times = Counter(entry.get("id") for entry in returned)
    missing = [entry for number, entry in known.items() if number not in times]
    if missing:
        return f"{len(missing)} of {len(stored)} {noun}s are missing, such as {_called(missing[0])}."
    foreign = [entry for entry in returned if entry.get("id") not in known]
    if foreign:
        return f"{_called(foreign[0])} was returned, which is not one of the {noun}s that are stored for it."
    if repeated := [number for number, count in times.items() if count > 1]:
        return f"{noun} {repeated[0]} was returned {times[repeated[0]]} times."
    wrong = [(entry, text) for entry in returned if (text := difference_of(known[entry["id"]], entry))]
    return f"{noun} {wrong[0][0]['id']}: {wrong[0][1]}" if wrong else ""


def difference_of(stored: Entry, returned: Any) -> str:
    """How an entry differs from what is stored, field by field; fields that nobody asked for are left out."""
    if not isinstance(returned, dict):
        return f"an object was expected, and {str(returned)[:80]} came."
    told = []
    for name, value in stored.items():
        if name not in returned:
            told.append(f"{name}: stored {_short(value)}, returned nothing.")
        elif isinstance(value, list):
            told.append(_difference_of_lists(name, value, returned[name]))
        elif _plain(value) != _plain(returned[name], like=value):
            told.append(f"{name}: stored {_short(value)}, returned {_short(returned[name])}.")
    return "\n".join(filter(None, told))


def _difference_of_lists(name: str, stored: list[Entry], returned: Any) -> str:
    if not isinstance(returned, list):
        return f"{name}: {len(stored)} are stored, and {_short(returned)} was returned."
    left = list(returned)
    missing = []
    for entry in stored:
        match = next((other for other in left if not difference_of(entry, other)), None)
        if match is None:
            missing.append(entry)
        else:
            left.remove(match)
    if not missing and not left:
        return ""
    examples = [f"missing: {_short(missing[0])}"] if missing else []
    examples += [f"not stored like this: {_short(left[0])}"] if left else []
    return f"{name}: {len(stored)} stored, {len(returned)} returned; {'; '.join(examples)}."


def _plain(value: Any, like: Any = None) -> Any:
    if isinstance(like, datetime) and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


def _called(entry: Entry) -> str:
    name = entry.get("title", entry.get("name"))
    return f"{entry.get('id')}" if name is None else f"{name!r} (id {entry.get('id')})"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_short(part)}" for name, part in value.items()) + "}"
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
