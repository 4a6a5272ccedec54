"""after the backfill: each order has a public id"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("orders", "public_id", nullable=False)


def downgrade() -> None:
    op.alter_column("orders", "public_id", nullable=True)
