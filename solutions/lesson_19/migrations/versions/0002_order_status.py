"""orders have a status"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


status = sa.Enum("pending", "paid", "shipped", name="order_status")


def upgrade() -> None:
    status.create(op.get_bind())
    op.add_column("orders", sa.Column("status", status, server_default="pending", nullable=False))


def downgrade() -> None:
    op.drop_column("orders", "status")
    status.drop(op.get_bind())
