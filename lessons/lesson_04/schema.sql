CREATE TABLE authors (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE books (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    isbn         text NOT NULL UNIQUE,
    title        text NOT NULL,
    author_id    bigint NOT NULL REFERENCES authors,
    price_cents  integer NOT NULL CHECK (price_cents > 0),
    stock        integer NOT NULL DEFAULT 0 CHECK (stock >= 0),
    rating_count integer NOT NULL DEFAULT 0,
    rating_sum   integer NOT NULL DEFAULT 0,
    revision     integer NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- An ISBN is stored in capitals, without hyphens and spaces. The revision counts the changes of a row.
CREATE FUNCTION tidy_book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.isbn := translate(upper(NEW.isbn), '- ', '');
    IF TG_OP = 'UPDATE' THEN
        NEW.revision := OLD.revision + 1;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER tidy_book BEFORE INSERT OR UPDATE ON books
    FOR EACH ROW EXECUTE FUNCTION tidy_book();

CREATE TABLE customers (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email        text NOT NULL UNIQUE,
    name         text NOT NULL,
    credit_cents integer NOT NULL DEFAULT 1000000
);

CREATE TABLE reviews (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id     bigint NOT NULL REFERENCES books,
    customer_id bigint NOT NULL REFERENCES customers,
    rating      integer NOT NULL CHECK (rating BETWEEN 1 AND 5),
    body        text NOT NULL DEFAULT ''
);

CREATE FUNCTION count_rating() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE books SET rating_count = rating_count + 1, rating_sum = rating_sum + NEW.rating WHERE id = NEW.book_id;
    RETURN NULL;
END $$;

CREATE TRIGGER count_rating AFTER INSERT ON reviews
    FOR EACH ROW EXECUTE FUNCTION count_rating();

CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE order_lines (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    bigint NOT NULL REFERENCES orders,
    book_id     bigint NOT NULL REFERENCES books,
    quantity    integer NOT NULL CHECK (quantity > 0),
    price_cents integer NOT NULL
);

-- What a customer owes may exceed the credit inside a transaction. PostgreSQL checks it at COMMIT.
-- Two transactions that commit at the same moment do not see each other: together they can still exceed it.
CREATE FUNCTION check_credit() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE CONSTRAINT TRIGGER orders_within_credit
    AFTER INSERT OR UPDATE ON order_lines
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_credit();
