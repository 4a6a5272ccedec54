"""orders can be cancelled: mail of another kind, and money that goes back"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("kind", sa.Text))
    op.execute("UPDATE outbox SET kind = 'order_confirmation'")
    op.alter_column("outbox", "kind", nullable=False)
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Uuid, nullable=False),
        sa.Column("charge_key", sa.Uuid, nullable=False),
        sa.Column("amount_cents", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.Column("shop_id", sa.BigInteger, server_default=sa.text("current_shop()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.UniqueConstraint("order_id", name="uq_refunds_order_id"),
        sa.UniqueConstraint("key", name="uq_refunds_key"),
        sa.CheckConstraint("amount_cents > 0", name=op.f("ck_refunds_amount_positive")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_refunds_order_id_orders"),
        sa.ForeignKeyConstraint(["shop_id"], ["shops.id"], name="fk_refunds_shop_id_shops"),
    )
    op.create_index("ix_refunds_shop_id", "refunds", ["shop_id"])


def downgrade() -> None:
    op.drop_table("refunds")
    op.drop_column("outbox", "kind")
