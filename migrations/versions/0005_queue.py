"""The queue of workers, and several spaces of one search."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NOW = sa.func.now()


def _of_space(table: str) -> sa.Column:
    foreign = sa.ForeignKey("neural.spaces.id", name=op.f(f"{table}_space_id_fkey"), ondelete="CASCADE")
    return sa.Column("space_id", sa.BigInteger, foreign, nullable=False)


def _instant(name: str, comment: str | None = None, *, default: bool = True) -> sa.Column:
    server_default = NOW if default else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=server_default, comment=comment)


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS neural.mark_pending(bigint, jsonb[])")
    op.execute("DROP FUNCTION IF EXISTS neural.unwatch(text, text)")
    op.execute("DROP FUNCTION IF EXISTS neural.lexical_query(bigint, text, integer)")
    spaces()
    queue()
    workers()


def spaces() -> None:
    serving = "serving: answers searches; building: is to; kept: did, and can be brought back"
    limit = "How many rows all workers together encode at most, while it does not serve; NULL for no limit"
    resumes = "When the next rows may be encoded, where there is a limit"
    when = sa.DateTime(timezone=True)
    for column in (
        sa.Column(
            "name", sa.Text, server_default="main", nullable=False, comment="Tells the spaces of one search apart"
        ),
        sa.Column("state", sa.Text, server_default="serving", nullable=False, comment=serving),
        sa.Column("rows_per_second", sa.Double, comment=limit),
        sa.Column("resumes_at", when, comment=resumes),
        sa.Column("switched_at", when, comment="When its state last changed"),
    ):
        op.add_column("spaces", column, schema="neural")
    op.drop_constraint("spaces_source_attribute_kind_key", "spaces", schema="neural")
    columns = ["source", "attribute", "kind"]
    op.create_unique_constraint(
        op.f("spaces_source_attribute_kind_name_key"), "spaces", [*columns, "name"], schema="neural"
    )
    where = sa.text("state = 'serving'")
    op.create_index("spaces_serving_idx", "spaces", columns, schema="neural", unique=True, postgresql_where=where)


def queue() -> None:
    op.create_table(
        "changes",
        _of_space("changes"),
        sa.Column(
            "version", sa.BigInteger, sa.Identity(always=True), nullable=False, comment="Another one for every change"
        ),
        sa.Column("keys", JSONB, nullable=False, comment="The primary keys of the rows, each an array"),
        sa.Column("rows", sa.Integer, nullable=False, comment="How many keys there are"),
        _instant("changed_at"),
        sa.Column(
            "changed_by",
            sa.BigInteger,
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
            comment="The transaction",
        ),
        sa.PrimaryKeyConstraint("space_id", "version", name=op.f("changes_pkey")),
        schema="neural",
        comment="What statements changed, as triggers note it; neural.collect makes words and pending rows of it",
    )
    op.execute(
        "INSERT INTO neural.changes (space_id, keys, rows)"
        " SELECT space_id, jsonb_agg(key), count(*) FROM"
        " (SELECT space_id, key, (row_number() OVER () - 1) / 1000 AS slice FROM neural.pending) p"
        " GROUP BY space_id, slice"
    )
    op.drop_table("pending", schema="neural")
    due = "When it may be claimed: later while a worker has it, or after a failure"
    op.create_table(
        "pending",
        _of_space("pending"),
        sa.Column("key", JSONB, nullable=False, comment="The primary key of the source row, as an array"),
        sa.Column("version", sa.BigInteger, nullable=False, comment="That of its last change"),
        _instant("changed_at", "When it changed first", default=False),
        _instant("due", due),
        sa.Column("claimed_by", sa.Text, comment="The worker that has it"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0", comment="How often it failed"),
        sa.Column("error", sa.Text, comment="Why, the last time"),
        sa.PrimaryKeyConstraint("space_id", "key", name=op.f("pending_pkey")),
        schema="neural",
        comment="Rows that changed and are not encoded yet: a set",
    )
    op.create_index(op.f("pending_space_id_due_idx"), "pending", ["space_id", "due"], schema="neural")
    op.create_table(
        "failed",
        _of_space("failed"),
        sa.Column("key", JSONB, nullable=False, comment="The primary key of the source row, as an array"),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        _instant("failed_at"),
        sa.PrimaryKeyConstraint("space_id", "key", name=op.f("failed_pkey")),
        schema="neural",
        comment="Rows that were given up after several attempts; another change, or neural.retry, tries again",
    )
    # a writer would wait for its compression
    op.execute("ALTER TABLE neural.changes ALTER COLUMN keys SET STORAGE EXTERNAL")
    # rows come and go all the time: what is dead must be cleaned before claims have to step over it
    for table in ("changes", "pending"):
        op.execute(
            f"ALTER TABLE neural.{table} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)"
        )


def workers() -> None:
    op.create_table(
        "vectors",
        sa.Column("encoder", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False, comment="Of what the encoder read"),
        sa.Column("embedding", VECTOR, nullable=False),
        sa.Column(
            "used_on", sa.Date, nullable=False, server_default=sa.func.current_date(), comment="Old ones are removed"
        ),
        sa.PrimaryKeyConstraint("encoder", "revision", "hash", name=op.f("vectors_pkey")),
        schema="neural",
        comment="Vectors that were made, so that nothing is encoded twice",
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("process", sa.Integer, nullable=False),
        _instant("started_at"),
        _instant("seen_at"),
        schema="neural",
        comment="The workers that were seen of late",
    )
    op.create_table(
        "work",
        _of_space("work"),
        sa.Column("worker", sa.Text, nullable=False),
        _instant("minute", default=False),
        sa.Column("rows", sa.BigInteger, nullable=False, comment="How many were stored"),
        sa.Column("encoded", sa.BigInteger, nullable=False, comment="How many chunks got a vector"),
        sa.Column("reused", sa.BigInteger, nullable=False, comment="How many had one already"),
        sa.Column("encode_seconds", sa.Double, nullable=False),
        sa.Column("write_seconds", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "worker", "minute", name=op.f("work_pkey")),
        schema="neural",
        comment="What workers did in each minute of the last hour",
    )


def downgrade() -> None:
    for table in ("work", "workers", "vectors", "failed"):
        op.drop_table(table, schema="neural")
    op.execute("DELETE FROM neural.spaces WHERE state <> 'serving'")
    op.drop_index("spaces_serving_idx", "spaces", schema="neural")
    op.drop_constraint("spaces_source_attribute_kind_name_key", "spaces", schema="neural")
    op.create_unique_constraint(
        op.f("spaces_source_attribute_kind_key"), "spaces", ["source", "attribute", "kind"], schema="neural"
    )
    for column in ("switched_at", "resumes_at", "rows_per_second", "state", "name"):
        op.drop_column("spaces", column, schema="neural")
    op.drop_table("pending", schema="neural")
    op.create_table(
        "pending",
        _of_space("pending"),
        sa.Column("key", JSONB, nullable=False, comment="The primary key of the source row, as an array"),
        sa.Column(
            "version", sa.BigInteger, sa.Identity(always=True), nullable=False, comment="Another one for every change"
        ),
        _instant("changed_at"),
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
    op.execute(
        "INSERT INTO neural.pending (space_id, key) SELECT DISTINCT space_id, jsonb_array_elements(keys)"
        " FROM neural.changes"
    )
    op.drop_table("changes", schema="neural")
