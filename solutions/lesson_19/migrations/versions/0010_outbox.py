"""mail that is to be sent, and a notification for each"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NOTIFY = """
CREATE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outbox', NEW.id::text);
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.BigInteger, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("total_cents", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("error", sa.Text, server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.CheckConstraint("status IN ('pending', 'processing', 'sent', 'failed')", name="ck_outbox_status_known"),
    )
    open_mail = sa.text("status IN ('pending', 'processing')")
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"], postgresql_where=open_mail)
    op.execute(NOTIFY)
    # the notification is sent by the COMMIT, and by no ROLLBACK
    op.execute("CREATE TRIGGER notify AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION notify_outbox()")


def downgrade() -> None:
    op.drop_table("outbox")
    op.execute("DROP FUNCTION notify_outbox()")
