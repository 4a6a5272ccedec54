"""validates what was added without a look at the old rows, and makes links unique"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

VALIDATED = (
    ("receipts", "ck_receipts_currency_code"),
    ("outbox", "fk_outbox_order_id_orders"),
    ("orders", "ck_orders_public_id_there"),
    ("coupons", "ck_coupons_discount_there"),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # what an interrupted attempt has left is not a usable index, and IF NOT EXISTS would take it for one
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_orders_public_id")
        op.create_index("uq_orders_public_id", "orders", ["public_id"], unique=True, postgresql_concurrently=True)
    for table, constraint in VALIDATED:  # reads all rows, while others read and write them
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}")
    # last, because of its lock; it reads no row where a valid constraint says that there is no NULL
    for table, column, constraint in (
        ("orders", "public_id", "ck_orders_public_id_there"),
        ("coupons", "discount_percent", "ck_coupons_discount_there"),
    ):
        op.alter_column(table, column, nullable=False)
        op.drop_constraint(op.f(constraint), table)


def downgrade() -> None:
    op.create_check_constraint("discount_there", "coupons", "discount_percent IS NOT NULL")
    op.create_check_constraint("public_id_there", "orders", "public_id IS NOT NULL")
    op.alter_column("coupons", "discount_percent", nullable=True)
    op.alter_column("orders", "public_id", nullable=True)
    op.drop_index("uq_orders_public_id", "orders")
