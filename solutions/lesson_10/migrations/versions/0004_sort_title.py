"""titles as they are sorted"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("books", sa.Column("sort_title", sa.Text, server_default="", nullable=False))
    # `revision` counts edits, and this is not one. So the trigger that counts them is off meanwhile
    op.execute("ALTER TABLE books DISABLE TRIGGER tidy_book")
    op.execute("UPDATE books SET sort_title = lower(regexp_replace(title, '^The ', ''))")
    op.execute("ALTER TABLE books ENABLE TRIGGER tidy_book")


def downgrade() -> None:
    op.drop_column("books", "sort_title")
