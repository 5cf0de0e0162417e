"""``neural.index_definition`` takes another kind of index, and another name."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS neural.index_definition(bigint)")


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS neural.index_definition(bigint, jsonb, text)")
