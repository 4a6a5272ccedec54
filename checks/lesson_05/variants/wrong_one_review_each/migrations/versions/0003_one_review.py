"""one review for each customer and book"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # of several, the last one stands
    op.execute("DELETE FROM reviews r USING reviews later WHERE later.customer_id = r.customer_id AND later.id > r.id")
    op.create_unique_constraint("uq_reviews_book_id_customer_id", "reviews", ["book_id", "customer_id"])


def downgrade() -> None:
    op.drop_constraint("uq_reviews_book_id_customer_id", "reviews")
