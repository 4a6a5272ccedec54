"""titles as they are sorted"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("books", sa.Column("sort_title", sa.Text, server_default="", nullable=False))
    books = sa.table("books", sa.column("id"), sa.column("title"), sa.column("sort_title"))
    connection = op.get_bind()
    for id_, title in connection.execute(sa.select(books.c.id, books.c.title)).all():
        sort_title = title.removeprefix("The ").lower()
        connection.execute(books.update().where(books.c.id == id_).values(sort_title=sort_title))


def downgrade() -> None:
    op.drop_column("books", "sort_title")
