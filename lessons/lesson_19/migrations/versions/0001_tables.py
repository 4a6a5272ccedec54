"""the tables as they were when Alembic came"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "authors",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_authors"),
    )
    op.create_table(
        "books",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("isbn", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("author_id", sa.BigInteger, nullable=False),
        sa.Column("price_cents", sa.Integer, nullable=False),
        sa.Column("stock", sa.Integer, server_default="0", nullable=False),
        sa.Column("rating_count", sa.Integer, server_default="0", nullable=False),
        sa.Column("rating_sum", sa.Integer, server_default="0", nullable=False),
        sa.Column("revision", sa.Integer, server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_books"),
        sa.ForeignKeyConstraint(["author_id"], ["authors.id"], name="fk_books_author_id_authors"),
        sa.UniqueConstraint("isbn", name="uq_books_isbn"),
        sa.CheckConstraint("price_cents > 0", name=op.f("ck_books_price_positive")),
        sa.CheckConstraint("stock >= 0", name=op.f("ck_books_stock_not_negative")),
    )
    op.create_index("ix_books_for_sale", "books", ["title"], postgresql_where=sa.text("price_cents > 0"))
    op.create_table(
        "customers",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("credit_cents", sa.Integer, server_default="1000000", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_customers"),
        sa.UniqueConstraint("email", name="uq_customers_email"),
    )
    op.create_table(
        "reviews",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("book_id", sa.BigInteger, nullable=False),
        sa.Column("customer_id", sa.BigInteger, nullable=False),
        sa.Column("rating", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.ForeignKeyConstraint(["book_id"], ["books.id"], name="fk_reviews_book_id_books"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_reviews_customer_id_customers"),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name=op.f("ck_reviews_rating_in_range")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("customer_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_orders_customer_id_customers"),
    )
    op.create_table(
        "order_lines",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.BigInteger, nullable=False),
        sa.Column("book_id", sa.BigInteger, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("price_cents", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_order_lines"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_order_lines_order_id_orders"),
        sa.ForeignKeyConstraint(["book_id"], ["books.id"], name="fk_order_lines_book_id_books"),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_order_lines_quantity_positive")),
    )
    op.execute("""
        CREATE FUNCTION tidy_book() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.isbn := translate(upper(NEW.isbn), '- ', '');
            IF TG_OP = 'UPDATE' THEN
                NEW.revision := OLD.revision + 1;
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("CREATE TRIGGER tidy_book BEFORE INSERT OR UPDATE ON books FOR EACH ROW EXECUTE FUNCTION tidy_book()")
    op.execute("""
        CREATE FUNCTION count_rating() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE books SET rating_count = rating_count + 1, rating_sum = rating_sum + NEW.rating
             WHERE id = NEW.book_id;
            RETURN NULL;
        END $$
    """)
    op.execute("CREATE TRIGGER count_rating AFTER INSERT ON reviews FOR EACH ROW EXECUTE FUNCTION count_rating()")
    op.execute("""
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
        END $$
    """)
    op.execute(
        "CREATE CONSTRAINT TRIGGER orders_within_credit AFTER INSERT OR UPDATE ON order_lines "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit()"
    )


def downgrade() -> None:
    for table in ("order_lines", "orders", "reviews", "customers", "books", "authors"):
        op.drop_table(table)
    for function in ("check_credit", "count_rating", "tidy_book"):
        op.execute(f"DROP FUNCTION {function}")
