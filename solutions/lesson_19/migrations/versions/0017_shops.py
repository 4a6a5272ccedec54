"""several shops, and a role for the app that owns none of the tables"""

import os

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = (
    *("authors", "books", "customers", "refresh_tokens", "reviews", "orders", "order_lines", "payments", "gifts"),
    *("invoices", "transfers", "wishes", "idempotency_keys", "outbox", "coupons", "receipts"),
)

# The setting is NULL on a new connection, and an empty text on one that had it in an earlier transaction.
CURRENT_SHOP = """
CREATE FUNCTION current_shop() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('app.shop_id', true), '')::bigint
$$
"""


def upgrade() -> None:
    op.create_table(
        "shops",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shops"),
        sa.UniqueConstraint("host", name="uq_shops_host"),
    )
    op.execute("INSERT INTO shops (name, host) VALUES ('Bookshop', 'bookshop.example')")  # has all rows so far; id 1
    op.execute(CURRENT_SHOP)
    for table in TABLES:
        op.add_column(table, sa.Column("shop_id", sa.BigInteger, server_default="1", nullable=False))
        op.alter_column(table, "shop_id", server_default=sa.text("current_shop()"))
        op.create_foreign_key(op.f(f"fk_{table}_shop_id_shops"), table, "shops", ["shop_id"], ["id"])
        op.create_index(op.f(f"ix_{table}_shop_id"), table, ["shop_id"])
    app = sa.make_url(os.environ["APP_DATABASE_URL"]).username
    op.execute(f'GRANT SELECT ON shops TO "{app}"')
    op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON {", ".join(TABLES)} TO "{app}"')
    # for tables and views that later migrations make
    op.execute(f'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{app}"')


def downgrade() -> None:
    app = sa.make_url(os.environ["APP_DATABASE_URL"]).username
    op.execute(f'ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM "{app}"')
    op.execute(f'REVOKE ALL ON {", ".join(TABLES)} FROM "{app}"')
    for table in TABLES:
        op.drop_column(table, "shop_id")
    op.execute("DROP FUNCTION current_shop()")
    op.drop_table("shops")
