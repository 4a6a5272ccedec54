"""one review for each customer and book"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of several reviews the last one stays. A trigger has counted the others for their books, and none takes them back.
    op.execute("""
        WITH superseded AS (
            DELETE FROM reviews r
             WHERE EXISTS (
                SELECT FROM reviews later
                 WHERE later.book_id = r.book_id AND later.customer_id = r.customer_id AND later.id > r.id
             )
            RETURNING r.book_id, r.rating
        ), per_book AS (
            SELECT book_id, count(*) AS ratings, sum(rating) AS total FROM superseded GROUP BY book_id
        )
        UPDATE books SET rating_count = rating_count - ratings, rating_sum = rating_sum - total
          FROM per_book WHERE books.id = per_book.book_id
    """)
    op.create_unique_constraint("uq_reviews_book_id_customer_id", "reviews", ["book_id", "customer_id"])


def downgrade() -> None:
    op.drop_constraint("uq_reviews_book_id_customer_id", "reviews")
