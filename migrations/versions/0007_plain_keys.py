"""Keys that were noted are not compressed: they are there for a moment, and compressing them was half of their cost."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE neural.changes ALTER COLUMN keys SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("ALTER TABLE neural.changes ALTER COLUMN keys SET STORAGE DEFAULT")
