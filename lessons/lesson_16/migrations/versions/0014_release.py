"""what the new release needs: additions that the old one does not notice, and that read no row"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COPY_PERCENT = """
CREATE FUNCTION copy_percent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.discount_percent := NEW.percent;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    # The old release writes only `percent`. So both columns must be there until the old release has ended.
    op.add_column("coupons", sa.Column("discount_percent", sa.Integer))
    op.execute(COPY_PERCENT)
    op.execute(
        "CREATE TRIGGER copy_percent BEFORE INSERT OR UPDATE ON coupons FOR EACH ROW EXECUTE FUNCTION copy_percent()"
    )
    # now() is the same for all rows of a statement, so PostgreSQL notes it once; clock_timestamp() rewrites the table
    op.add_column("receipts", sa.Column("currency", sa.Text, server_default="EUR", nullable=False))
    op.add_column(
        "receipts", sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
    )
    op.create_check_constraint("currency_code", "receipts", "currency ~ '^[A-Z]{3}$'", postgresql_not_valid=True)
    # first without the default, or each row that is there would get a value of its own now
    op.add_column("orders", sa.Column("public_id", sa.Uuid))
    op.alter_column("orders", "public_id", server_default=sa.func.gen_random_uuid())
    op.create_foreign_key(
        op.f("fk_outbox_order_id_orders"), "outbox", "orders", ["order_id"], ["id"], postgresql_not_valid=True
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_outbox_order_id_orders"), "outbox")
    op.drop_column("orders", "public_id")
    op.drop_column("receipts", "stored_at")
    op.drop_column("receipts", "currency")
    op.execute("DROP TRIGGER copy_percent ON coupons")
    op.execute("DROP FUNCTION copy_percent()")
    op.drop_column("coupons", "discount_percent")
