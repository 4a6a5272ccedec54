"""books have attributes and a key of their title; coupons; receipts of the tills"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    attributes = sa.Column("attributes", postgresql.JSONB, server_default=sa.text("'{}'"), nullable=False)
    op.add_column("books", attributes)
    # PostgreSQL computes it for each row, also for those that other programs write
    op.add_column(
        "books", sa.Column("title_key", sa.Text, sa.Computed("lower(btrim(title))", persisted=True), nullable=False)
    )
    op.create_index("ix_books_title_key", "books", ["title_key"])
    op.create_index("ix_books_attributes", "books", ["attributes"], postgresql_using="gin")
    op.create_table(
        "coupons",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("active", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.Column("times_set", sa.Integer, server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_coupons"),
        sa.CheckConstraint("percent BETWEEN 1 AND 90", name=op.f("ck_coupons_percent_in_range")),
    )
    op.create_index("uq_coupons_code_active", "coupons", ["code"], unique=True, postgresql_where=sa.text("active"))
    op.create_table(
        "receipts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("till", sa.Text, nullable=False),
        sa.Column("sold_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cents", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
        sa.CheckConstraint("cents > 0", name=op.f("ck_receipts_cents_positive")),
    )
    # not BRIN, which keeps the lowest and the highest time of each range of pages: here that is all times
    op.create_index("ix_receipts_sold_at", "receipts", ["sold_at"])


def downgrade() -> None:
    for table in ("receipts", "coupons"):
        op.drop_table(table)
    op.drop_index("ix_books_attributes", "books")
    op.drop_index("ix_books_title_key", "books")
    for column in ("title_key", "attributes"):
        op.drop_column("books", column)
