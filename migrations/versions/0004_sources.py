"""Spaces over tables of the user's own: what they read, what they watch, and which rows are pending."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    reads = sa.Column(
        "reads",
        sa.Text,
        comment="The SELECT of what is searchable: source_… keys, title, content, language; NULL for collections",
    )
    watched = sa.Column(
        "watched",
        JSONB,
        server_default="{}",
        nullable=False,
        comment="The tables, and of each the columns, whose changes make a row pending",
    )
    sync = sa.Column(
        "sync",
        sa.Text,
        server_default="manual",
        nullable=False,
        comment="When changed rows are encoded: inline, queue or manual",
    )
    vectors = sa.Column(
        "vector_column",
        sa.Text,
        comment="The column of the source that has its vectors; NULL where they are in the chunk table",
    )
    for column in (reads, watched, vectors, sync):
        op.add_column("spaces", column, schema="neural")
    op.create_table(
        "pending",
        sa.Column(
            "space_id",
            sa.BigInteger,
            sa.ForeignKey("neural.spaces.id", name=op.f("pending_space_id_fkey"), ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("key", JSONB, nullable=False, comment="The primary key of the source row, as an array"),
        sa.Column(
            "version", sa.BigInteger, sa.Identity(always=True), nullable=False, comment="Another one for every change"
        ),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column(
            "changed_by",
            sa.BigInteger,
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
            comment="The transaction",
        ),
        sa.PrimaryKeyConstraint("space_id", "key", name=op.f("pending_pkey")),
        schema="neural",
        comment="Rows of sources that changed and are not encoded yet: a set, kept by triggers",
    )


def downgrade() -> None:
    op.drop_table("pending", schema="neural")
    for column in ("sync", "vector_column", "watched", "reads"):
        op.drop_column("spaces", column, schema="neural")
