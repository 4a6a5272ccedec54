"""books may have no subtitle, and a day of publication; reviews and wishes go with their book"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("books", "subtitle", nullable=True, server_default=None)
    # `revision` counts edits, and this is not one. So the trigger that counts them is off meanwhile
    op.execute("ALTER TABLE books DISABLE TRIGGER tidy_book")
    op.execute("UPDATE books SET subtitle = NULL WHERE subtitle = ''")
    op.execute("ALTER TABLE books ENABLE TRIGGER tidy_book")
    op.add_column("books", sa.Column("published_on", sa.Date))
    for table in ("reviews", "wishes"):
        refer_to_books(table, ondelete="CASCADE")
    op.create_index("ix_books_created_at_id", "books", ["created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_books_created_at_id", "books")
    for table in ("reviews", "wishes"):
        refer_to_books(table, ondelete=None)
    op.drop_column("books", "published_on")
    op.execute("ALTER TABLE books DISABLE TRIGGER tidy_book")
    op.execute("UPDATE books SET subtitle = '' WHERE subtitle IS NULL")
    op.execute("ALTER TABLE books ENABLE TRIGGER tidy_book")
    op.alter_column("books", "subtitle", nullable=False, server_default="")


def refer_to_books(table: str, ondelete: str | None) -> None:
    name = f"fk_{table}_book_id_books"
    op.drop_constraint(name, table, type_="foreignkey")
    op.create_foreign_key(name, table, "books", ["book_id"], ["id"], ondelete=ondelete)
