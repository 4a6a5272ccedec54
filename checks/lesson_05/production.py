"""Production: its database at revision 0002, and rows as a shop has them after some years."""

from __future__ import annotations

import json
from pathlib import Path

DUMP = Path(__file__).with_name("production.sql").read_text(encoding="utf-8")
REVISION = "0002"

FEW, MANY = 30, 2500
"""Books beyond those below. Many: more than a migration in batches usually takes at a time, which is a thousand."""

TITLES = [
    "The Art of SQL",
    "Into The Wild",
    "Bathe The Dog",
    "Bathe the Dog",
    "The The The",
    "The Clothes of The King",
    "Theory",
    "Große Straße",
    "Ethics",
    "The",
    "Théâtre",
    "ÜBER École, 東京 🐍",
    "100% \"Pure\": it's :here \\ {so} $1 'quoted'",
    "The 5% Solution: O'Reilly's",
    "The Art of SQL",
    "a small letter first",
    "The " + "Very " * 150 + "Long One",
    "",
]
"""Titles in no order, two of them equal. None begins with "the " or "THE ", of which the ticket says nothing."""

ROWS = """
SELECT setval(pg_get_serial_sequence('authors', 'id'), 40), setval(pg_get_serial_sequence('books', 'id'), 7000),
       setval(pg_get_serial_sequence('customers', 'id'), 500), setval(pg_get_serial_sequence('reviews', 'id'), 90000),
       setval(pg_get_serial_sequence('orders', 'id'), 3000), setval(pg_get_serial_sequence('order_lines', 'id'), 60000);
INSERT INTO authors (name) VALUES ('Zoë O''Brien, 100% "Pure"'), ('The Author'), ('A'), ('A');
INSERT INTO customers (email, name, credit_cents) VALUES
    ('zoe@example.com', 'Zoë', 1000000), ('ann@example.com', 'Ann', 700001), ('bob@example.com', 'Bob', 500000),
    ('new@example.com', 'Old and new', 1000000), ('rich@example.com', 'Rich', 2147483647), ('no@example.com', 'No', 0);
INSERT INTO books (isbn, title, author_id, price_cents, stock, revision, created_at, updated_at)
SELECT 'P' || n, title, 41 + n % 4, 1 + n * 7 % 5000, n % 3, 1 + n % 9,
       timestamptz '2021-03-04 05:06:07.891011+02' + n * interval '1 hour',
       timestamptz '2022-05-06 07:08:09.101112+02' + n * interval '1 minute'
  FROM (
    SELECT title, n FROM unnest($1::text[]) WITH ORDINALITY AS given (title, n)
    UNION ALL
    SELECT (ARRAY['The ', '', 'On The '])[1 + n % 3] || 'Number ' || n, 100 + n FROM generate_series(1, $2::int) n
  ) AS book ORDER BY md5(n::text);
INSERT INTO orders (customer_id, created_at, status)
SELECT 501 + n % 5, timestamptz '2023-01-02 03:04:05.060708+00' + n * interval '1 day',
       (ARRAY['shipped', 'pending', 'paid'])[1 + n % 3]::order_status
  FROM generate_series(1, 30) n ORDER BY md5(n::text);
INSERT INTO order_lines (order_id, book_id, quantity, price_cents)
SELECT 3000 + n, 7000 + 1 + n * 3 % 40, 1 + n % 2, 100 + n FROM generate_series(1, 29) n ORDER BY md5(n::text);
INSERT INTO reviews (book_id, customer_id, rating, body)
SELECT 7000 + book, 500 + customer, 1 + (book + customer) % 5, (ARRAY['It''s 100%: "good"', ''])[1 + book % 2]
  FROM generate_series(1, 40) book, generate_series(1, 6) customer WHERE (book + customer) % 4 <> 0 AND book <> 7
 ORDER BY md5(book || '-' || customer)
"""


async def load_production(shop, *, rows=True, books=FEW):
    """Production's database, whatever has become of the migrations that made it once."""
    await shop.load(DUMP, f"the database is production's, at {REVISION}")
    if rows:
        await load_rows(shop, books)


async def load_rows(shop, books=FEW):
    """Rows as production has them, into empty tables."""
    for statement in ROWS.split(";\n"):
        await shop.execute(statement, *((TITLES, books) if "$1" in statement else ()))
    counts = [f"{await shop.count(table)} {table}" for table in ("books", "orders", "reviews")]
    await shop.execute("SELECT", step=f"the shop holds {', '.join(counts)}; orders in every status")


TABLES = ("authors", "books", "customers", "orders", "order_lines", "reviews")


async def last_ids(shop):
    """{table: the id that was given last}, as the next one follows it."""
    return {
        table: int(await shop.value(f"SELECT last_value FROM {await shop.value(SEQUENCE, table)}")) for table in TABLES
    }


SEQUENCE = "SELECT pg_get_serial_sequence($1, 'id')"


async def contents(shop):
    """{table: {id: row}} of the tables that production has at 0002."""
    return {
        table: {
            row["id"]: json.loads(row["row"])
            for row in await shop.rows(f"SELECT id, to_jsonb(t) AS row FROM {table} t")
        }
        for table in TABLES
    }


def changes(before, after):
    """Rows that are gone, new, or differ in a column of `before`, a sentence for each.

    A `revision` may have grown: a trigger of production's raises it at each UPDATE.
    """
    lines = []
    for table, rows in before.items():
        for key in sorted(rows.keys() | after[table].keys()):
            old, new = rows.get(key), after[table].get(key)
            if old is None:
                lines.append(f"{table} {key} is new")
            elif new is None:
                lines.append(f"{table} {key} is gone")
            else:
                lines += [
                    f"{table} {key}: {column} was {value!r}, is {new.get(column)!r}"
                    for column, value in old.items()
                    if new.get(column) != value and not (column == "revision" and (new.get(column) or 0) > value)
                ]
    return lines


def first(lines, count=3):
    """The first few as text, and how many there are more."""
    more = f"; and {len(lines) - count} more" if len(lines) > count else ""
    return "; ".join(lines[:count]) + more
