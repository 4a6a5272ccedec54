revision = "6a6a"
down_revision = ("0005", "5f1c")
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
