"""each shop sees its own rows, and nothing of the others"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLES = (
    *("authors", "books", "customers", "refresh_tokens", "reviews", "orders", "order_lines", "payments", "gifts"),
    *("invoices", "transfers", "wishes", "idempotency_keys", "outbox", "coupons", "receipts"),
)

# Without a shop the comparison is NULL, so there is no row to see, and none can be written. For ALL commands, the
# condition holds for rows that are there and for rows as they are written.
POLICY = "CREATE POLICY own_shop ON {table} USING (shop_id = current_shop())"

# By default a view reads its tables with the rights of its owner, for whom policies do not hold.
SALES_BY_AUTHOR = """
CREATE VIEW sales_by_author WITH (security_invoker = true) AS
    SELECT a.id AS author_id, a.name AS author, sum(l.quantity * l.price_cents) AS revenue_cents
      FROM authors a
      JOIN books b ON b.author_id = a.id
      JOIN order_lines l ON l.book_id = b.id
      JOIN orders o ON o.id = l.order_id
     WHERE o.status <> 'cancelled'
     GROUP BY a.id
"""

# SECURITY DEFINER: runs with the rights of the owner. So it tells as little as the worker needs.
NEXT_MAIL = """
CREATE FUNCTION next_mail(OUT shop_id bigint, OUT seconds double precision) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT shop_id, extract(epoch FROM due_at - now())::double precision
      FROM outbox WHERE status IN ('pending', 'processing') ORDER BY due_at, id LIMIT 1
$$
"""


UNIQUE = (("books", "isbn"), ("customers", "email"))
REFERENCES = (("books", "author_id", "authors"), ("reviews", "customer_id", "customers"))


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(POLICY.format(table=table))
    op.execute(SALES_BY_AUTHOR)
    op.execute(NEXT_MAIL)
    # A constraint looks at the rows of all shops, so its error would tell what others have.
    for table, column in UNIQUE:
        op.drop_constraint(f"uq_{table}_{column}", table)
        op.create_unique_constraint(f"uq_{table}_{column}", table, ["shop_id", column])
    op.drop_index("uq_coupons_code_active", "coupons")
    op.execute("CREATE UNIQUE INDEX uq_coupons_code_active ON coupons (shop_id, code) WHERE active")
    # A foreign key does so, too. With the shop in it, a row refers to rows of its own shop only.
    for table, column, parent in REFERENCES:
        name = f"fk_{table}_{column}_{parent}"
        op.create_unique_constraint(op.f(f"uq_{parent}_shop_id_id"), parent, ["shop_id", "id"])
        op.drop_constraint(name, table)
        op.create_foreign_key(name, table, parent, ["shop_id", column], ["shop_id", "id"])


def downgrade() -> None:
    for table, column, parent in REFERENCES:
        op.drop_constraint(f"fk_{table}_{column}_{parent}", table)
        op.drop_constraint(f"uq_{parent}_shop_id_id", parent)
        op.create_foreign_key(f"fk_{table}_{column}_{parent}", table, parent, [column], ["id"])
    op.drop_index("uq_coupons_code_active", "coupons")
    op.execute("CREATE UNIQUE INDEX uq_coupons_code_active ON coupons (code) WHERE active")
    for table, column in UNIQUE:
        op.drop_constraint(f"uq_{table}_{column}", table)
        op.create_unique_constraint(f"uq_{table}_{column}", table, [column])
    op.execute("DROP FUNCTION next_mail()")
    op.execute("DROP VIEW sales_by_author")
    for table in TABLES:
        op.execute(f"DROP POLICY own_shop ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
