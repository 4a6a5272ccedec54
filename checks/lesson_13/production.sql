-- Production's database at revision 0013, as pg_dump shows it, with a few rows. A database of lesson 12's solution has the
-- same tables, and a test compares the two.
SET timezone = 'UTC';
SELECT set_config('role', (SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()), false);

CREATE TYPE order_status AS ENUM (
    'pending',
    'paid',
    'shipped',
    'cancelled'
);

CREATE TYPE payment_status AS ENUM (
    'pending',
    'accepted',
    'refused'
);

CREATE FUNCTION check_credit() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        DECLARE
            owes   numeric;
            credit bigint;
        BEGIN
            SELECT c.credit_cents, coalesce(sum(l.quantity::numeric * l.price_cents), 0)
              INTO credit, owes
              FROM customers c
              JOIN orders o ON o.customer_id = c.id
              JOIN order_lines l ON l.order_id = o.id
             WHERE c.id = (SELECT customer_id FROM orders WHERE id = NEW.order_id)
               AND o.status NOT IN ('paid', 'cancelled')
               AND NOT EXISTS (SELECT FROM payments p WHERE p.order_id = o.id AND p.status = 'accepted')
             GROUP BY c.id;
            IF owes > credit THEN
                RAISE EXCEPTION 'the customer would owe % cents and may owe %', owes, credit
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_within_credit';
            END IF;
            RETURN NULL;
        END $$;

CREATE FUNCTION count_rating() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            UPDATE books SET rating_count = rating_count + 1, rating_sum = rating_sum + NEW.rating
             WHERE id = NEW.book_id;
            RETURN NULL;
        END $$;

CREATE FUNCTION notify_outbox() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify('outbox', NEW.id::text);
    RETURN NULL;
END
$$;

CREATE FUNCTION tidy_book() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            NEW.isbn := translate(upper(NEW.isbn), '- ', '');
            IF TG_OP = 'UPDATE' THEN
                NEW.revision := OLD.revision + 1;
            END IF;
            RETURN NEW;
        END $$;

CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE authors (
    id bigint NOT NULL,
    name text NOT NULL
);

ALTER TABLE authors ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE books (
    id bigint NOT NULL,
    isbn text NOT NULL,
    title text NOT NULL,
    author_id bigint NOT NULL,
    price_cents integer NOT NULL,
    stock integer DEFAULT 0 NOT NULL,
    rating_count integer DEFAULT 0 NOT NULL,
    rating_sum integer DEFAULT 0 NOT NULL,
    revision integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    sort_title text DEFAULT ''::text NOT NULL,
    discount_percent integer DEFAULT 0 NOT NULL,
    subtitle text,
    published_on date,
    attributes jsonb DEFAULT '{}'::jsonb NOT NULL,
    title_key text GENERATED ALWAYS AS (lower(btrim(title))) STORED NOT NULL,
    CONSTRAINT ck_books_discount_in_range CHECK (((discount_percent >= 0) AND (discount_percent <= 90))),
    CONSTRAINT ck_books_price_positive CHECK ((price_cents > 0)),
    CONSTRAINT ck_books_stock_not_negative CHECK ((stock >= 0))
);

ALTER TABLE books ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE coupons (
    id bigint NOT NULL,
    code text NOT NULL,
    percent integer NOT NULL,
    active boolean DEFAULT true NOT NULL,
    times_set integer DEFAULT 1 NOT NULL,
    CONSTRAINT ck_coupons_percent_in_range CHECK (((percent >= 1) AND (percent <= 90)))
);

ALTER TABLE coupons ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE customers (
    id bigint NOT NULL,
    email text NOT NULL,
    name text NOT NULL,
    credit_cents integer DEFAULT 500000 NOT NULL,
    password_hash text DEFAULT ''::text NOT NULL,
    active boolean DEFAULT true NOT NULL
);

ALTER TABLE customers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE gifts (
    id bigint NOT NULL,
    order_id bigint NOT NULL,
    recipient_id bigint NOT NULL,
    message text NOT NULL
);

ALTER TABLE gifts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE idempotency_keys (
    id bigint NOT NULL,
    customer_id bigint NOT NULL,
    key text NOT NULL,
    request_hash text DEFAULT ''::text NOT NULL,
    response jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE idempotency_keys ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE invoices (
    id bigint NOT NULL,
    order_id bigint NOT NULL,
    lines jsonb NOT NULL,
    total_cents bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE invoices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE order_lines (
    id bigint NOT NULL,
    order_id bigint NOT NULL,
    book_id bigint NOT NULL,
    quantity integer NOT NULL,
    price_cents integer NOT NULL,
    CONSTRAINT ck_order_lines_quantity_positive CHECK ((quantity > 0))
);

ALTER TABLE order_lines ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE orders (
    id bigint NOT NULL,
    customer_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    status order_status DEFAULT 'pending'::order_status NOT NULL
);

ALTER TABLE orders ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE outbox (
    id bigint NOT NULL,
    order_id bigint NOT NULL,
    recipient text NOT NULL,
    total_cents bigint NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    error text DEFAULT ''::text NOT NULL,
    CONSTRAINT ck_outbox_ck_outbox_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'processing'::text, 'sent'::text, 'failed'::text])))
);

ALTER TABLE outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE payments (
    id bigint NOT NULL,
    order_id bigint NOT NULL,
    key uuid NOT NULL,
    card_token text NOT NULL,
    amount_cents bigint NOT NULL,
    status payment_status DEFAULT 'pending'::payment_status NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_payments_amount_positive CHECK ((amount_cents > 0))
);

ALTER TABLE payments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE receipts (
    id uuid NOT NULL,
    till text NOT NULL,
    sold_at timestamp with time zone NOT NULL,
    cents integer NOT NULL,
    CONSTRAINT ck_receipts_cents_positive CHECK ((cents > 0))
);

CREATE TABLE refresh_tokens (
    id bigint NOT NULL,
    customer_id bigint NOT NULL,
    family uuid NOT NULL,
    token text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    revoked_at timestamp with time zone
);

ALTER TABLE refresh_tokens ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE reviews (
    id bigint NOT NULL,
    book_id bigint NOT NULL,
    customer_id bigint NOT NULL,
    rating integer NOT NULL,
    body text DEFAULT ''::text NOT NULL,
    CONSTRAINT ck_reviews_rating_in_range CHECK (((rating >= 1) AND (rating <= 5)))
);

ALTER TABLE reviews ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE transfers (
    id bigint NOT NULL,
    sender_id bigint NOT NULL,
    recipient_id bigint NOT NULL,
    cents integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_transfers_cents_positive CHECK ((cents > 0))
);

ALTER TABLE transfers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE wishes (
    id bigint NOT NULL,
    customer_id bigint NOT NULL,
    book_id bigint NOT NULL,
    added_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE wishes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

INSERT INTO alembic_version VALUES ('0013');
ALTER TABLE alembic_version ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE authors ADD CONSTRAINT pk_authors PRIMARY KEY (id);
ALTER TABLE books ADD CONSTRAINT pk_books PRIMARY KEY (id);
ALTER TABLE coupons ADD CONSTRAINT pk_coupons PRIMARY KEY (id);
ALTER TABLE customers ADD CONSTRAINT pk_customers PRIMARY KEY (id);
ALTER TABLE gifts ADD CONSTRAINT pk_gifts PRIMARY KEY (id);
ALTER TABLE idempotency_keys ADD CONSTRAINT pk_idempotency_keys PRIMARY KEY (id);
ALTER TABLE invoices ADD CONSTRAINT pk_invoices PRIMARY KEY (id);
ALTER TABLE order_lines ADD CONSTRAINT pk_order_lines PRIMARY KEY (id);
ALTER TABLE orders ADD CONSTRAINT pk_orders PRIMARY KEY (id);
ALTER TABLE outbox ADD CONSTRAINT pk_outbox PRIMARY KEY (id);
ALTER TABLE payments ADD CONSTRAINT pk_payments PRIMARY KEY (id);
ALTER TABLE receipts ADD CONSTRAINT pk_receipts PRIMARY KEY (id);
ALTER TABLE refresh_tokens ADD CONSTRAINT pk_refresh_tokens PRIMARY KEY (id);
ALTER TABLE reviews ADD CONSTRAINT pk_reviews PRIMARY KEY (id);
ALTER TABLE transfers ADD CONSTRAINT pk_transfers PRIMARY KEY (id);
ALTER TABLE wishes ADD CONSTRAINT pk_wishes PRIMARY KEY (id);
ALTER TABLE books ADD CONSTRAINT uq_books_isbn UNIQUE (isbn);
ALTER TABLE customers ADD CONSTRAINT uq_customers_email UNIQUE (email);
ALTER TABLE gifts ADD CONSTRAINT uq_gifts_order_id UNIQUE (order_id);
ALTER TABLE idempotency_keys ADD CONSTRAINT uq_idempotency_keys_customer_id_key UNIQUE (customer_id, key);
ALTER TABLE invoices ADD CONSTRAINT uq_invoices_order_id UNIQUE (order_id);
ALTER TABLE payments ADD CONSTRAINT uq_payments_key UNIQUE (key);
ALTER TABLE refresh_tokens ADD CONSTRAINT uq_refresh_tokens_token UNIQUE (token);
ALTER TABLE reviews ADD CONSTRAINT uq_reviews_book_id_customer_id UNIQUE (book_id, customer_id);
ALTER TABLE wishes ADD CONSTRAINT uq_wishes_customer_id_book_id UNIQUE (customer_id, book_id);
CREATE INDEX ix_books_attributes ON books USING gin (attributes);
CREATE INDEX ix_books_created_at_id ON books USING btree (created_at, id);
CREATE INDEX ix_books_for_sale ON books USING btree (title) WHERE (stock > 0);
CREATE INDEX ix_books_title_key ON books USING btree (title_key);
CREATE INDEX ix_outbox_due_at ON outbox USING btree (due_at) WHERE (status = ANY (ARRAY['pending'::text, 'processing'::text]));
CREATE INDEX ix_payments_order_id ON payments USING btree (order_id);
CREATE INDEX ix_receipts_sold_at ON receipts USING btree (sold_at);
CREATE UNIQUE INDEX uq_coupons_code_active ON coupons USING btree (code) WHERE active;
CREATE TRIGGER count_rating AFTER INSERT ON reviews FOR EACH ROW EXECUTE FUNCTION count_rating();
CREATE TRIGGER notify AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION notify_outbox();
CREATE CONSTRAINT TRIGGER orders_within_credit AFTER INSERT OR UPDATE ON order_lines DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit();
CREATE TRIGGER tidy_book BEFORE INSERT OR UPDATE ON books FOR EACH ROW EXECUTE FUNCTION tidy_book();
ALTER TABLE books ADD CONSTRAINT fk_books_author_id_authors FOREIGN KEY (author_id) REFERENCES authors(id);
ALTER TABLE gifts ADD CONSTRAINT fk_gifts_order_id_orders FOREIGN KEY (order_id) REFERENCES orders(id);
ALTER TABLE gifts ADD CONSTRAINT fk_gifts_recipient_id_customers FOREIGN KEY (recipient_id) REFERENCES customers(id);
ALTER TABLE idempotency_keys ADD CONSTRAINT fk_idempotency_keys_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE invoices ADD CONSTRAINT fk_invoices_order_id_orders FOREIGN KEY (order_id) REFERENCES orders(id);
ALTER TABLE order_lines ADD CONSTRAINT fk_order_lines_book_id_books FOREIGN KEY (book_id) REFERENCES books(id);
ALTER TABLE order_lines ADD CONSTRAINT fk_order_lines_order_id_orders FOREIGN KEY (order_id) REFERENCES orders(id);
ALTER TABLE orders ADD CONSTRAINT fk_orders_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE payments ADD CONSTRAINT fk_payments_order_id_orders FOREIGN KEY (order_id) REFERENCES orders(id);
ALTER TABLE refresh_tokens ADD CONSTRAINT fk_refresh_tokens_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE reviews ADD CONSTRAINT fk_reviews_book_id_books FOREIGN KEY (book_id) REFERENCES books(id) ON DELETE CASCADE;
ALTER TABLE reviews ADD CONSTRAINT fk_reviews_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE transfers ADD CONSTRAINT fk_transfers_recipient_id_customers FOREIGN KEY (recipient_id) REFERENCES customers(id);
ALTER TABLE transfers ADD CONSTRAINT fk_transfers_sender_id_customers FOREIGN KEY (sender_id) REFERENCES customers(id);
ALTER TABLE wishes ADD CONSTRAINT fk_wishes_book_id_books FOREIGN KEY (book_id) REFERENCES books(id) ON DELETE CASCADE;
ALTER TABLE wishes ADD CONSTRAINT fk_wishes_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);

-- Ids have gaps, as after deletions: every eleventh is missing, and 600 in a row are.
INSERT INTO customers (email, name) SELECT 'customer' || n || '@example.com', 'Customer ' || n FROM generate_series(1, 50) AS n;
INSERT INTO authors (name) VALUES ('Ann');
INSERT INTO books (isbn, title, author_id, price_cents, stock)
SELECT lpad(n::text, 13, '0'), 'Title ' || n, (SELECT max(id) FROM authors), 900 + n, 10 FROM generate_series(1, 20) AS n;

INSERT INTO orders (id, customer_id, status) OVERRIDING SYSTEM VALUE
SELECT n, 1 + n % 50, (ARRAY['pending', 'shipped', 'cancelled'])[1 + n % 3]::order_status
  FROM generate_series(11, 2900) AS n WHERE n % 11 <> 0 AND n NOT BETWEEN 1201 AND 1800;

INSERT INTO outbox (order_id, recipient, total_cents, status)
SELECT id, 'customer' || id % 50 || '@example.com', 100 + id % 5000, 'sent' FROM orders;

-- those that are not active were withdrawn; each code was used several times
INSERT INTO coupons (id, code, percent, active, times_set) OVERRIDING SYSTEM VALUE
SELECT n, 'CODE-' || n % 900, 1 + n % 90, n < 900, 1 + n % 4
  FROM generate_series(11, 2900) AS n WHERE n % 11 <> 0 AND n NOT BETWEEN 1201 AND 1800;

INSERT INTO receipts (id, till, sold_at, cents)
SELECT md5(n::text)::uuid, 'Till ' || n % 50, timestamptz '2005-01-01T00:00:00Z' + n * interval '168 minutes', 100 + n
  FROM generate_series(1::bigint, 500) AS n;

SELECT setval('orders_id_seq', 100000), setval('coupons_id_seq', 200000);

RESET role;
RESET timezone;
