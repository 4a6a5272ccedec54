"""mail belongs to an order that is there, and links are unique"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_foreign_key(op.f("fk_outbox_order_id_orders"), "outbox", "orders", ["order_id"], ["id"])
    with op.get_context().autocommit_block():
        op.create_index(
            "uq_orders_public_id",
            "orders",
            ["public_id"],
            unique=True,
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index("uq_orders_public_id", "orders")
    op.drop_constraint(op.f("fk_outbox_order_id_orders"), "outbox")
