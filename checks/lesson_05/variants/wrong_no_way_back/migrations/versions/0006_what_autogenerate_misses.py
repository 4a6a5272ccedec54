"""a status, a check, an index and a default that no diff shows"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "5f1c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TYPE order_status ADD VALUE 'cancelled'")
    op.create_check_constraint("discount_in_range", "books", "discount_percent BETWEEN 0 AND 90")
    op.drop_index("ix_books_for_sale", "books")
    op.create_index("ix_books_for_sale", "books", ["title"], postgresql_where=sa.text("stock > 0"))
    op.alter_column("customers", "credit_cents", server_default="500000")


def downgrade() -> None:
    pass
