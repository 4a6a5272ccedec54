"""books have a discount"""

import sqlalchemy as sa
from alembic import op

revision = "5f1c"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("books", sa.Column("discount_percent", sa.Integer, server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("books", "discount_percent")
