"""titles as they are sorted"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.orm import Session

from app.models import Book

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("books", sa.Column("sort_title", sa.Text, server_default="", nullable=False))
    with Session(op.get_bind()) as session:
        for book in session.scalars(sa.select(Book)):
            book.sort_title = book.title.removeprefix("The ").lower()
        session.commit()


def downgrade() -> None:
    op.drop_column("books", "sort_title")
