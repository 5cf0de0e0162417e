"""A vector index that is set aside while many rows are loaded, and made when the last of them is encoded."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waits = sa.Column(
        "index_waits",
        sa.Boolean,
        server_default=sa.false(),
        nullable=False,
        comment="Whether its vector index is made when the rows that wait are encoded: see neural.set_index_aside",
    )
    op.add_column("spaces", waits, schema="neural")


def downgrade() -> None:
    op.drop_column("spaces", "index_waits", schema="neural")
