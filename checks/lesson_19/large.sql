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

INSERT INTO outbox (order_id, recipient, total_cents, status, shop_id)
SELECT o.id, 'customer' || o.id % 50 || '@example.com', 1000, 'sent', 1 FROM orders o;
