"""what the new release needs"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("coupons", "percent", new_column_name="discount_percent")
    op.add_column("receipts", sa.Column("currency", sa.Text))
    op.execute("UPDATE receipts SET currency = 'EUR'")
    op.alter_column("receipts", "currency", nullable=False)
    op.create_check_constraint("currency_code", "receipts", "currency ~ '^[A-Z]{3}$'")
    op.add_column(
        "receipts",
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
    )
    op.add_column("orders", sa.Column("public_id", sa.Uuid))


def downgrade() -> None:
    op.drop_column("orders", "public_id")
    op.drop_column("receipts", "stored_at")
    op.drop_column("receipts", "currency")
    op.alter_column("coupons", "discount_percent", new_column_name="percent")
