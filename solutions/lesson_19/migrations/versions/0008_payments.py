"""orders are paid by card, and can be gifts"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


status = sa.Enum("pending", "accepted", "refused", name="payment_status")

# a shipped order is a debt if it is paid by bill, and none if a card was charged for it
DEBTS = """
               AND o.status NOT IN ('paid', 'cancelled')
               AND NOT EXISTS (SELECT FROM payments p WHERE p.order_id = o.id AND p.status = 'accepted')"""


def upgrade() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Uuid, nullable=False),
        sa.Column("card_token", sa.Text, nullable=False),
        sa.Column("amount_cents", sa.BigInteger, nullable=False),
        sa.Column("status", status, server_default="pending", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payments"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_payments_order_id_orders"),
        sa.UniqueConstraint("key", name="uq_payments_key"),
        sa.CheckConstraint("amount_cents > 0", name=op.f("ck_payments_amount_positive")),
    )
    op.create_index("ix_payments_order_id", "payments", ["order_id"])
    op.create_table(
        "gifts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.BigInteger, nullable=False),
        sa.Column("recipient_id", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gifts"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_gifts_order_id_orders"),
        sa.ForeignKeyConstraint(["recipient_id"], ["customers.id"], name="fk_gifts_recipient_id_customers"),
        sa.UniqueConstraint("order_id", name="uq_gifts_order_id"),
    )
    # an order that is paid or cancelled is no debt, and the product of two integers may be too large for an integer
    op.execute(check_credit("numeric", "l.quantity::numeric * l.price_cents", DEBTS))


def downgrade() -> None:
    op.execute(check_credit("bigint", "l.quantity * l.price_cents", ""))
    op.drop_table("gifts")
    op.drop_table("payments")
    status.drop(op.get_bind())


def check_credit(type_of_sum: str, cents: str, which_orders: str) -> str:
    """The function that a trigger calls after a change of order lines.

    `cents` is what a line costs, and `which_orders` limits what counts as a debt.
    """
    return f"""
        CREATE OR REPLACE FUNCTION check_credit() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            owes   {type_of_sum};
            credit bigint;
        BEGIN
            SELECT c.credit_cents, coalesce(sum({cents}), 0)
              INTO credit, owes
              FROM customers c
              JOIN orders o ON o.customer_id = c.id
              JOIN order_lines l ON l.order_id = o.id
             WHERE c.id = (SELECT customer_id FROM orders WHERE id = NEW.order_id) {which_orders}
             GROUP BY c.id;
            IF owes > credit THEN
                RAISE EXCEPTION 'the customer would owe % cents and may owe %', owes, credit
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_within_credit';
            END IF;
            RETURN NULL;
        END $$
    """
