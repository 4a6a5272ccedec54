-- The database of a shop that has been open for a while: about 6,000 books, orders, order lines and mails.
INSERT INTO authors (name, shop_id) SELECT 'Author ' || n, 1 FROM generate_series(1, 50) AS n;

INSERT INTO customers (email, name, credit_cents, shop_id)
SELECT 'customer' || n || '@example.com', 'Customer ' || n, 100000000, 1 FROM generate_series(1, 50) AS n;

INSERT INTO books (isbn, title, author_id, price_cents, stock, shop_id)
SELECT '978' || lpad(n::text, 10, '0'), 'Book ' || n, (SELECT min(id) FROM authors) + n % 50, 900 + n % 500, 100, 1
  FROM generate_series(1, 6000) AS n;

INSERT INTO orders (customer_id, status, shop_id)
SELECT (SELECT min(id) FROM customers) + n % 50, 'shipped', 1 FROM generate_series(1, 6000) AS n;

INSERT INTO order_lines (order_id, book_id, quantity, price_cents, shop_id)
SELECT o.id, (SELECT min(id) FROM books) + o.id % 6000, 1, 1000, 1 FROM orders o;

-- as the old release says it, which knows no kind of mail
DO $$
DECLARE
    kind text := (SELECT column_name FROM information_schema.columns
                   WHERE table_name = 'outbox' AND column_name = 'kind' AND column_default IS NULL AND is_nullable = 'NO');
BEGIN
    EXECUTE format(
        $sql$INSERT INTO outbox (order_id, recipient, total_cents, status, shop_id %s)
             SELECT id, 'customer' || id %% 50 || '@example.com', 1000, 'sent', 1 %s FROM orders$sql$,
        ', ' || kind, $sql$, 'order_confirmation'$sql$ || left(kind, 0)
    );
END $$;
