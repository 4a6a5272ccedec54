"""credit moves between customers, customers have a wish list, and orders an Idempotency-Key"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "transfers",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("sender_id", sa.BigInteger, nullable=False),
        sa.Column("recipient_id", sa.BigInteger, nullable=False),
        sa.Column("cents", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_transfers"),
        sa.ForeignKeyConstraint(["sender_id"], ["customers.id"], name="fk_transfers_sender_id_customers"),
        sa.ForeignKeyConstraint(["recipient_id"], ["customers.id"], name="fk_transfers_recipient_id_customers"),
        sa.CheckConstraint("cents > 0", name=op.f("ck_transfers_cents_positive")),
    )
    op.create_table(
        "wishes",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("customer_id", sa.BigInteger, nullable=False),
        sa.Column("book_id", sa.BigInteger, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_wishes"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_wishes_customer_id_customers"),
        sa.ForeignKeyConstraint(["book_id"], ["books.id"], name="fk_wishes_book_id_books"),
        sa.UniqueConstraint("customer_id", "book_id", name="uq_wishes_customer_id_book_id"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("customer_id", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("request_hash", sa.Text, server_default="", nullable=False),
        sa.Column("response", postgresql.JSONB),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency_keys"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_idempotency_keys_customer_id_customers"),
        sa.UniqueConstraint("customer_id", "key", name="uq_idempotency_keys_customer_id_key"),
    )


def downgrade() -> None:
    for table in ("idempotency_keys", "wishes", "transfers"):
        op.drop_table(table)
