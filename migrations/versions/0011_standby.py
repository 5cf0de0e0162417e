"""A space that served is ``standby``; extra vectors have the name of their space; functions have the field's names."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATE = """
COMMENT ON COLUMN neural.spaces.state IS 'serving: answers searches; building: is to; {}: did, and can be brought back'
"""

RENAMED = (
    "answering(regclass, text, text, text, boolean)",
    "kept_of(bigint[])",
    "kept_tables(bigint)",
    "noted_keys(bigint, integer)",
    "unready(bigint)",
    "watch_again(bigint)",
)


def upgrade() -> None:
    for function in RENAMED:
        op.execute(f"DROP FUNCTION IF EXISTS neural.{function}")
    op.execute("UPDATE neural.spaces SET state = 'standby' WHERE state = 'kept'")
    op.execute(STATE.format("standby"))
    op.execute(
        "UPDATE neural.spaces e SET name = d.name FROM neural.spaces d"
        " WHERE d.source = e.source AND d.attribute = e.attribute AND d.kind = 'dense' AND e.kind <> 'dense'"
        " AND e.chunk_table = d.chunk_table || '_' || e.kind AND e.name <> d.name"
    )


def downgrade() -> None:
    op.execute("UPDATE neural.spaces SET state = 'kept' WHERE state = 'standby'")
    op.execute(STATE.format("kept"))
