"""``neural.index_definition`` takes another kind of index, and another name; arguments have the field's names.

Extra vectors have the state of their space, and their index is named as every vector index is.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

RENAMED = (
    "all_in_parts(tsvector, tsvector[], tsquery[])",
    "deletable(text)",
    "follow_row_security(regclass, regclass)",
    "follow_source(regclass, regclass)",
    "in_parts(tsvector, tsvector[], tsquery)",
    "lacking(regclass, regclass)",
    "less_visible(regclass, regclass)",
    "more_score(sparsevec[], sparsevec)",
    "noting_triggers()",
    "word_score(sparsevec, sparsevec)",
)


RENAME_INDEXES = """
DO $$ DECLARE extra record; BEGIN
    FOR extra IN SELECT e.chunk_table AS name FROM neural.spaces e WHERE e.kind = 'sparse' LOOP
        EXECUTE format('ALTER INDEX IF EXISTS neural.%I RENAME TO %I',
                       extra.name || '{before}', extra.name || '{after}');
    END LOOP;
END $$"""

FOLLOW_STATE = """
UPDATE neural.spaces e SET state = d.state FROM neural.spaces d
 WHERE d.source = e.source AND d.attribute = e.attribute AND d.kind = 'dense' AND e.kind <> 'dense'
   AND e.chunk_table = d.chunk_table || '_' || e.kind AND e.state <> d.state"""

DROP_VECTORS_OF_TABLES = """
DO $$ DECLARE extra record; BEGIN
    FOR extra IN
        SELECT e.* FROM neural.spaces e
          JOIN pg_class r ON r.oid = e.relation
          JOIN pg_class c ON c.relowner = r.relowner
               AND c.oid = to_regclass(format('%I.%I', (parse_ident(e.source))[1], e.chunk_table))
         WHERE e.kind <> 'dense' AND e.source <> 'neural.documents'
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', (parse_ident(extra.source))[1], extra.chunk_table);
        DELETE FROM neural.spaces WHERE id = extra.id;
    END LOOP;
END $$"""


def upgrade() -> None:
    op.execute(FOLLOW_STATE)
    op.execute(RENAME_INDEXES.format(before="_idx", after="_embedding_idx"))
    dropped = ("drop_made(text, regclass)", "index_definition(bigint)", "require_made_of(regclass, regclass)")
    for function in (*RENAMED, *dropped):
        op.execute(f"DROP FUNCTION IF EXISTS neural.{function}")


def downgrade() -> None:
    op.execute(DROP_VECTORS_OF_TABLES)  # earlier revisions know nothing of them when they are downgraded
    op.execute(RENAME_INDEXES.format(before="_embedding_idx", after="_idx"))
    dropped = (
        "drop_search_table(text, regclass)",
        "index_definition(bigint, jsonb, text)",
        "require_search_table(regclass, regclass)",
    )
    for function in (*RENAMED, *dropped):
        op.execute(f"DROP FUNCTION IF EXISTS neural.{function}")
