"""``neural.index_definition`` takes another kind of index, and another name; arguments have the field's names."""

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


def upgrade() -> None:
    dropped = ("drop_made(text, regclass)", "index_definition(bigint)", "require_made_of(regclass, regclass)")
    for function in (*RENAMED, *dropped):
        op.execute(f"DROP FUNCTION IF EXISTS neural.{function}")


def downgrade() -> None:
    dropped = (
        "drop_search_table(text, regclass)",
        "index_definition(bigint, jsonb, text)",
        "require_search_table(regclass, regclass)",
    )
    for function in (*RENAMED, *dropped):
        op.execute(f"DROP FUNCTION IF EXISTS neural.{function}")
