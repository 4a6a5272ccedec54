"""customers have passwords, and stay logged in"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("customers", sa.Column("password_hash", sa.Text, server_default="", nullable=False))
    op.add_column("customers", sa.Column("active", sa.Boolean, server_default=sa.text("true"), nullable=False))
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("customer_id", sa.BigInteger, nullable=False),
        sa.Column("family", sa.Uuid, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_refresh_tokens"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_refresh_tokens_customer_id_customers"),
        sa.UniqueConstraint("token", name="uq_refresh_tokens_token"),
    )


def downgrade() -> None:
    op.drop_table("refresh_tokens")
    op.drop_column("customers", "active")
    op.drop_column("customers", "password_hash")
