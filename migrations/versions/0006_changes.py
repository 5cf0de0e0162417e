"""No foreign key from what was noted to spaces: writers with an older snapshot would be refused."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEY = "changes_space_id_fkey"


def upgrade() -> None:
    op.drop_constraint(KEY, "changes", schema="neural")
    op.alter_column("changes", "space_id", comment="No foreign key: see neural.forget_changes", schema="neural")


def downgrade() -> None:
    op.execute("DROP TRIGGER IF EXISTS forget_changes ON neural.spaces")
    op.execute("DELETE FROM neural.changes c WHERE NOT EXISTS (SELECT FROM neural.spaces s WHERE s.id = c.space_id)")
    columns = {"local_cols": ["space_id"], "remote_cols": ["id"]}
    op.create_foreign_key(
        op.f(KEY), "changes", "spaces", **columns, ondelete="CASCADE", source_schema="neural", referent_schema="neural"
    )
    op.alter_column("changes", "space_id", comment=None, existing_comment="", schema="neural")
