"""one head again, and what no diff shows: a status, a CHECK, an index and a default"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = ("0005", "5f1c")  # after both, so that a database at either of the two heads gets the other one, too
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TYPE order_status ADD VALUE 'cancelled'")
    # staging has discounts of 300 %: each becomes the nearest that is allowed, or the CHECK could not be added
    op.execute(
        "UPDATE books SET discount_percent = greatest(0, least(discount_percent, 90)) "
        "WHERE discount_percent NOT BETWEEN 0 AND 90"
    )
    op.create_check_constraint(op.f("ck_books_discount_in_range"), "books", "discount_percent BETWEEN 0 AND 90")
    op.drop_index("ix_books_for_sale", "books")
    op.create_index("ix_books_for_sale", "books", ["title"], postgresql_where=sa.text("stock > 0"))
    op.alter_column("customers", "credit_cents", server_default="500000")


def downgrade() -> None:
    op.alter_column("customers", "credit_cents", server_default="1000000")
    op.drop_index("ix_books_for_sale", "books")
    op.create_index("ix_books_for_sale", "books", ["title"], postgresql_where=sa.text("price_cents > 0"))
    op.drop_constraint(op.f("ck_books_discount_in_range"), "books")
    # PostgreSQL cannot take a value away from an enum: a new type takes the old one's place
    op.execute("ALTER TYPE order_status RENAME TO order_status_old")
    op.execute("CREATE TYPE order_status AS ENUM ('pending', 'paid', 'shipped')")
    op.execute("ALTER TABLE orders ALTER status DROP DEFAULT")
    # revision 0002 has no word for a cancelled order; it keeps its lines and becomes a pending one
    op.execute(
        "ALTER TABLE orders ALTER status TYPE order_status "
        "USING (CASE status::text WHEN 'cancelled' THEN 'pending' ELSE status::text END)::order_status"
    )
    op.execute("ALTER TABLE orders ALTER status SET DEFAULT 'pending'")
    op.execute("DROP TYPE order_status_old")
