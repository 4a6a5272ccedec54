"""how often a password was tried, for each account of a shop"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "login_tries",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shop_id", sa.BigInteger, server_default=sa.text("current_shop()"), nullable=False),
        sa.PrimaryKeyConstraint("shop_id", "account", name="pk_login_tries"),
        sa.ForeignKeyConstraint(["shop_id"], ["shops.id"], name="fk_login_tries_shop_id_shops"),
    )
    op.create_index("ix_login_tries_shop_id", "login_tries", ["shop_id"])
    op.execute("ALTER TABLE login_tries ENABLE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY own_shop ON login_tries USING (shop_id = current_shop())")


def downgrade() -> None:
    op.drop_table("login_tries")
