"""titles as they are sorted"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("books", sa.Column("sort_title", sa.Text, server_default="", nullable=False))
    op.execute("UPDATE books SET sort_title = replace(lower(title), 'the ', '')")


def downgrade() -> None:
    op.drop_column("books", "sort_title")
