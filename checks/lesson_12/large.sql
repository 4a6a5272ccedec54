-- 50,000 books of which each value of an attribute and each title is rare, and 50,000 receipts in no order.
SET timezone = 'UTC';

INSERT INTO authors (name) VALUES ('Ann');

INSERT INTO books (isbn, title, subtitle, author_id, price_cents, stock, attributes)
SELECT lpad(n::text, 13, '0'), 'Title ' || n, repeat('A subtitle of some length. ', 7), (SELECT max(id) FROM authors),
       900 + n % 700, n % 9,
       jsonb_build_object(
           'language', 'x-' || n % 2500, 'pages', n % 700, 'series', 'Harbor ' || n % 5000,
           'tags', jsonb_build_array('t' || n % 2000, 't' || 2000 + n % 1500, NULL),
           'size', jsonb_build_object('width', n % 200), 'a''b', n % 7000 || ''
       )
  FROM generate_series(1, 50000) AS n;

-- sixteen years; no two neighbors are from the same day, for 37003 has no divisor with 50,000 in common
INSERT INTO receipts (id, till, sold_at, cents)
SELECT md5(n::text)::uuid, 'Till ' || n % 50,
       timestamptz '2005-01-01T00:00:00Z' + n * 37003 % 50000 * interval '168 minutes', 100 + n % 5000
  FROM generate_series(1::bigint, 50000) AS n;

RESET timezone;
