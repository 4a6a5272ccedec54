"""finds the other books of an author"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # what an interrupted attempt has left is not a usable index
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_books_author_id")
        op.create_index("ix_books_author_id", "books", ["author_id"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_index("ix_books_author_id", "books")
