-- Production's database as it stands at revision 0002: pg_dump of what the original migrations made.

CREATE TYPE order_status AS ENUM (
    'pending',
    'paid',
    'shipped'
);

CREATE FUNCTION check_credit() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        DECLARE
            owes   bigint;
            credit bigint;
        BEGIN
            SELECT c.credit_cents, coalesce(sum(l.quantity * l.price_cents), 0)
              INTO credit, owes
              FROM customers c
              JOIN orders o ON o.customer_id = c.id
              JOIN order_lines l ON l.order_id = o.id
             WHERE c.id = (SELECT customer_id FROM orders WHERE id = NEW.order_id)
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
    CONSTRAINT ck_books_price_positive CHECK ((price_cents > 0)),
    CONSTRAINT ck_books_stock_not_negative CHECK ((stock >= 0))
);

ALTER TABLE books ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

CREATE TABLE customers (
    id bigint NOT NULL,
    email text NOT NULL,
    name text NOT NULL,
    credit_cents integer DEFAULT 1000000 NOT NULL
);

ALTER TABLE customers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

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

CREATE TABLE reviews (
    id bigint NOT NULL,
    book_id bigint NOT NULL,
    customer_id bigint NOT NULL,
    rating integer NOT NULL,
    body text DEFAULT ''::text NOT NULL,
    CONSTRAINT ck_reviews_rating_in_range CHECK (((rating >= 1) AND (rating <= 5)))
);

ALTER TABLE reviews ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;

ALTER TABLE ONLY alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY authors
    ADD CONSTRAINT pk_authors PRIMARY KEY (id);

ALTER TABLE ONLY books
    ADD CONSTRAINT pk_books PRIMARY KEY (id);

ALTER TABLE ONLY customers
    ADD CONSTRAINT pk_customers PRIMARY KEY (id);

ALTER TABLE ONLY order_lines
    ADD CONSTRAINT pk_order_lines PRIMARY KEY (id);

ALTER TABLE ONLY orders
    ADD CONSTRAINT pk_orders PRIMARY KEY (id);

ALTER TABLE ONLY reviews
    ADD CONSTRAINT pk_reviews PRIMARY KEY (id);

ALTER TABLE ONLY books
    ADD CONSTRAINT uq_books_isbn UNIQUE (isbn);

ALTER TABLE ONLY customers
    ADD CONSTRAINT uq_customers_email UNIQUE (email);

CREATE INDEX ix_books_for_sale ON books USING btree (title) WHERE (price_cents > 0);

CREATE TRIGGER count_rating AFTER INSERT ON reviews FOR EACH ROW EXECUTE FUNCTION count_rating();

CREATE CONSTRAINT TRIGGER orders_within_credit AFTER INSERT OR UPDATE ON order_lines DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit();

CREATE TRIGGER tidy_book BEFORE INSERT OR UPDATE ON books FOR EACH ROW EXECUTE FUNCTION tidy_book();

ALTER TABLE ONLY books
    ADD CONSTRAINT fk_books_author_id_authors FOREIGN KEY (author_id) REFERENCES authors(id);

ALTER TABLE ONLY order_lines
    ADD CONSTRAINT fk_order_lines_book_id_books FOREIGN KEY (book_id) REFERENCES books(id);

ALTER TABLE ONLY order_lines
    ADD CONSTRAINT fk_order_lines_order_id_orders FOREIGN KEY (order_id) REFERENCES orders(id);

ALTER TABLE ONLY orders
    ADD CONSTRAINT fk_orders_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);

ALTER TABLE ONLY reviews
    ADD CONSTRAINT fk_reviews_book_id_books FOREIGN KEY (book_id) REFERENCES books(id);

ALTER TABLE ONLY reviews
    ADD CONSTRAINT fk_reviews_customer_id_customers FOREIGN KEY (customer_id) REFERENCES customers(id);

INSERT INTO alembic_version VALUES ('0002');
