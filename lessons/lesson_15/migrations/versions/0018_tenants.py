"""each shop sees its own rows, and nothing of the others"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLES = (
    *("authors", "books", "customers", "refresh_tokens", "reviews", "orders", "order_lines", "gifts"),
    *("invoices", "transfers", "wishes", "idempotency_keys", "outbox", "coupons"),
)

# A transaction that is in no shop is one of ours: a script, or the worker.
POLICY = "CREATE POLICY own_shop ON {table} USING (current_shop() IS NULL OR shop_id = current_shop())"

SALES_BY_AUTHOR = """
CREATE VIEW sales_by_author AS
    SELECT a.id AS author_id, a.name AS author, sum(l.quantity * l.price_cents) AS revenue_cents
      FROM authors a
      JOIN books b ON b.author_id = a.id
      JOIN order_lines l ON l.book_id = b.id
      JOIN orders o ON o.id = l.order_id
     WHERE o.status <> 'cancelled'
     GROUP BY a.id
"""


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(POLICY.format(table=table))
    op.execute(SALES_BY_AUTHOR)


def downgrade() -> None:
    op.execute("DROP VIEW sales_by_author")
    for table in TABLES:
        op.execute(f"DROP POLICY own_shop ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
