"""new rows must have all values; the old ones are looked at by the next revision, without a lock that stops the shop"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # after the backfill: it holds for each row that is changed, too, so the shop could not change a row without a value
    op.create_check_constraint("public_id_there", "orders", "public_id IS NOT NULL", postgresql_not_valid=True)
    op.create_check_constraint("discount_there", "coupons", "discount_percent IS NOT NULL", postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_constraint(op.f("ck_coupons_discount_there"), "coupons")
    op.drop_constraint(op.f("ck_orders_public_id_there"), "orders")
