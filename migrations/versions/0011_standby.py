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
        "UPDATE neural.spaces e SET name = d.name, state = d.state FROM neural.spaces d"
        " WHERE d.source = e.source AND d.attribute = e.attribute AND d.kind = 'dense' AND e.kind <> 'dense'"
        " AND e.chunk_table = d.chunk_table || '_' || e.kind AND (e.name, e.state) IS DISTINCT FROM (d.name, d.state)"
    )
    op.execute(
        "DO $$ DECLARE made record; BEGIN"
        " FOR made IN SELECT e.chunk_table AS name FROM neural.spaces e WHERE e.kind = 'sparse' LOOP"
        " EXECUTE format('ALTER INDEX IF EXISTS neural.%I RENAME TO %I',"
        " made.name || '_idx', made.name || '_embedding_idx');"
        " END LOOP; END $$"
    )


def downgrade() -> None:
    op.execute(
        "DO $$ DECLARE made record; BEGIN"
        " FOR made IN SELECT e.* FROM neural.spaces e JOIN pg_class r ON r.oid = e.relation JOIN pg_class c"
        " ON c.relowner = r.relowner"
        " AND c.oid = to_regclass(format('%I.%I', (parse_ident(e.source))[1], e.chunk_table))"
        " WHERE e.kind <> 'dense' AND e.source <> 'neural.documents' LOOP"
        " EXECUTE format('DROP TABLE IF EXISTS %I.%I', (parse_ident(made.source))[1], made.chunk_table);"
        " DELETE FROM neural.spaces WHERE id = made.id;"
        " END LOOP;"
        " FOR made IN SELECT e.chunk_table AS name FROM neural.spaces e WHERE e.kind = 'sparse' LOOP"
        " EXECUTE format('ALTER INDEX IF EXISTS neural.%I RENAME TO %I',"
        " made.name || '_embedding_idx', made.name || '_idx');"
        " END LOOP; END $$"
    )
    op.execute("UPDATE neural.spaces SET state = 'kept' WHERE state = 'standby'")
    op.execute(STATE.format("kept"))
