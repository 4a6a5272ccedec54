"""Statements of people and programs that the checks of lesson 05 run on the databases that migrations made."""

MANY_REVIEWS = """
SELECT setval(pg_get_serial_sequence('books', 'id'), 7000), setval(pg_get_serial_sequence('customers', 'id'), 500);
INSERT INTO authors (name) VALUES ('A');
INSERT INTO books (isbn, title, author_id, price_cents)
SELECT 'I' || n, 'Title ' || n, a.id, 100 FROM authors a, generate_series(1, 30) n;
INSERT INTO customers (email, name) SELECT n || '@example.com', 'N' FROM generate_series(1, 40) n;
ALTER TABLE reviews DISABLE TRIGGER count_rating;
INSERT INTO reviews (book_id, customer_id, rating, body)
SELECT 7001 + abs(hashint4(n)) % 30, 501 + abs(hashint4(-n)) % 40, 1 + n % 5, 'Opinion ' || n
  FROM generate_series(1, 2200) n;
ALTER TABLE reviews ENABLE TRIGGER count_rating;
UPDATE books SET rating_count = (SELECT count(*) FROM reviews WHERE book_id = books.id),
                 rating_sum = (SELECT sum(rating) FROM reviews WHERE book_id = books.id);
UPDATE reviews SET body = body || ', on second thoughts' WHERE id % 5 = 0
"""
"""More reviews to delete than a migration in batches of a thousand takes at a time. Counted at once, as it is faster.

The UPDATE at the end moves rows to the end of the table, so that the last row is not always the last review."""

LIFE_AT_HEAD = """
INSERT INTO customers (email, name) VALUES ('late@example.com', 'Late');
INSERT INTO books (isbn, title, author_id, price_cents, stock) SELECT 'NEW', 'The Newest', min(id), 700, 3 FROM authors;
INSERT INTO orders (customer_id, status) SELECT max(id), 'paid' FROM customers;
INSERT INTO order_lines (order_id, book_id, quantity, price_cents)
SELECT (SELECT max(id) FROM orders), (SELECT max(id) FROM books), 2, 700
"""

LIFE_GOES_ON = """
INSERT INTO books (isbn, title, author_id, price_cents) SELECT 'LATER', 'The Later One', min(id), 100 FROM authors;
INSERT INTO orders (customer_id) SELECT max(id) FROM customers
"""

BY_HAND = {
    "ALTER TABLE customers ALTER credit_cents SET DEFAULT 7": (
        "ALTER TABLE customers ALTER credit_cents SET DEFAULT 500000"
    ),
    "ALTER TABLE books ALTER created_at DROP DEFAULT": "ALTER TABLE books ALTER created_at SET DEFAULT now()",
    "ALTER TABLE orders ALTER status SET DEFAULT 'paid'": "ALTER TABLE orders ALTER status SET DEFAULT 'pending'",
    "ALTER TABLE order_lines DROP COLUMN price_cents": (
        "ALTER TABLE order_lines ADD COLUMN price_cents integer NOT NULL"
    ),
    "ALTER TABLE authors ADD COLUMN note text": "ALTER TABLE authors DROP COLUMN note",
    # columns that no trigger depends on, which PostgreSQL would refuse to change
    "ALTER TABLE customers ALTER credit_cents TYPE bigint": "ALTER TABLE customers ALTER credit_cents TYPE integer",
    "ALTER TABLE authors ALTER name TYPE varchar(50)": "ALTER TABLE authors ALTER name TYPE text",
    "ALTER TABLE customers ALTER name SET DEFAULT ''": "ALTER TABLE customers ALTER name DROP DEFAULT",
    "ALTER TABLE reviews ALTER rating DROP NOT NULL": "ALTER TABLE reviews ALTER rating SET NOT NULL",
}
"""What somebody does by hand, and how it is undone."""

GOOD_ROWS = (
    "UPDATE books SET discount_percent = 90",
    "UPDATE books SET discount_percent = 0, price_cents = 1, stock = 0",
    "UPDATE books SET author_id = (SELECT max(id) FROM authors)",
    # several customers of one book, and several books of one customer
    "INSERT INTO reviews (book_id, customer_id, rating) SELECT b.id, c.id, 5 FROM customers c, "
    "(SELECT min(id) AS id FROM books) AS b "
    "WHERE NOT EXISTS (SELECT FROM reviews r WHERE r.book_id = b.id AND r.customer_id = c.id)",
    "INSERT INTO reviews (book_id, customer_id, rating) SELECT b.id, c.id, 1 FROM books b, "
    "(SELECT min(id) AS id FROM customers) AS c "
    "WHERE NOT EXISTS (SELECT FROM reviews r WHERE r.book_id = b.id AND r.customer_id = c.id)",
    "INSERT INTO books (isbn, title, author_id, price_cents) SELECT 'GOOD', 'Good', min(id), 1 FROM authors",
    # unusual, and nothing forbids it
    "INSERT INTO books (isbn, title, author_id, price_cents, stock) "
    "SELECT 'RARE', '', min(id), 2147483647, 2147483647 FROM authors",
    "INSERT INTO customers (email, name, credit_cents) VALUES ('', '', 0)",
    "INSERT INTO authors (name) VALUES ('')",
    "UPDATE order_lines SET quantity = 2000, price_cents = 1 WHERE id = (SELECT max(id) FROM order_lines)",
)

BAD_ROWS = (
    (
        "uq_reviews_book_id_customer_id",
        "INSERT INTO reviews (book_id, customer_id, rating) SELECT book_id, customer_id, 3 FROM reviews LIMIT 1",
    ),
    (
        "uq_reviews_book_id_customer_id",
        "UPDATE reviews SET (book_id, customer_id) = (SELECT book_id, customer_id FROM reviews ORDER BY id LIMIT 1)",
    ),
    ("ck_books_discount_in_range", "UPDATE books SET discount_percent = 91"),
    ("ck_books_discount_in_range", "UPDATE books SET discount_percent = -1"),
    (
        "ck_books_discount_in_range",
        "INSERT INTO books (isbn, title, author_id, price_cents, discount_percent) "
        "SELECT 'BAD', 'Bad', min(id), 1, 300 FROM authors",
    ),
    ("ck_books_price_positive", "UPDATE books SET price_cents = 0"),
    (
        "ck_books_price_positive",
        "INSERT INTO books (isbn, title, author_id, price_cents) SELECT 'BAD', 'Bad', min(id), -1 FROM authors",
    ),
    ("fk_books_author_id_authors", "UPDATE books SET author_id = (SELECT max(id) + 1 FROM authors)"),
    (
        "fk_books_author_id_authors",
        "INSERT INTO books (isbn, title, author_id, price_cents) VALUES ('BAD', 'Bad', 0, 1)",
    ),
    # not named by the ticket, but in the tables of the models, and invisible to `alembic check`
    ("ck_books_stock_not_negative", "UPDATE books SET stock = -1"),
    ("ck_reviews_rating_in_range", "UPDATE reviews SET rating = 6"),
    ("ck_reviews_rating_in_range", "UPDATE reviews SET rating = 0"),
    ("ck_order_lines_quantity_positive", "UPDATE order_lines SET quantity = 0"),
)
