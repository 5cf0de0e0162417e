"""What several fields are joined by is the server's own function: another role's may have been found before it."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE neural.spaces SET reads = replace(reads, ' concat_ws(E''', ' pg_catalog.concat_ws(E''')"
        " WHERE strpos(reads, ' concat_ws(E''') > 0"
    )


def downgrade() -> None:
    pass  # earlier versions read it as well
