-- Many more rows for production.sql: then orders, outbox and receipts have about 12,500, and coupons have 8,000.
SET timezone = 'UTC';
SELECT set_config('role', (SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()), false);

INSERT INTO orders (id, customer_id, status) OVERRIDING SYSTEM VALUE
SELECT n, 1 + n % 50, (ARRAY['pending', 'shipped', 'cancelled'])[1 + n % 3]::order_status
  FROM generate_series(2901, 20400) AS n WHERE n % 11 <> 0 AND n NOT BETWEEN 8001 AND 14000;

INSERT INTO outbox (order_id, recipient, total_cents, status)
SELECT id, 'customer' || id % 50 || '@example.com', 100 + id % 5000, 'sent' FROM orders WHERE id > 2900;

INSERT INTO coupons (id, code, percent, active) OVERRIDING SYSTEM VALUE
SELECT n, 'CODE-' || n % 3000, 1 + n % 90, false FROM generate_series(2901, 9000) AS n WHERE n % 11 <> 0;

INSERT INTO receipts (id, till, sold_at, cents)
SELECT md5(n::text)::uuid, 'Till ' || n % 50,
       timestamptz '2005-01-01T00:00:00Z' + n * 12007 % 25000 * interval '168 minutes', 100 + n % 5000
  FROM generate_series(501::bigint, 12500) AS n;

RESET role;
RESET timezone;
