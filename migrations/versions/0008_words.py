"""Words of a second version: rows of any length, words as they stand beside their stems, and how far a space is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEX = "term_counts_space_id_language_lexeme_idx"

TERMS_TABLES = """
DO $$
DECLARE
    terms regclass;
BEGIN
    FOR terms IN
        SELECT DISTINCT to_regclass(format('%%I.%%I', (parse_ident(s.source))[1], s.chunk_table || '_terms'))
          FROM neural.spaces s
         WHERE s.kind = 'dense'
           AND to_regclass(format('%%I.%%I', (parse_ident(s.source))[1], s.chunk_table || '_terms')) IS NOT NULL
    LOOP
        EXECUTE format('ALTER TABLE %%s %s', terms);
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'table %% is of another role, and its words need further columns', terms
    USING HINT = 'Run pgneural db upgrade as a member of the role that owns it.';
END
$$"""

PARTS = "With places, of a row too long for one tsvector; NULL for all others"
MORE_WEIGHTS = "The row''s side of BM25 beyond 16,000 different words"

COMMENTS = """
DO $$
DECLARE
    terms regclass;
BEGIN
    FOR terms IN
        SELECT DISTINCT to_regclass(format('%I.%I', (parse_ident(s.source))[1], s.chunk_table || '_terms'))
          FROM neural.spaces s
         WHERE s.kind = 'dense'
           AND to_regclass(format('%I.%I', (parse_ident(s.source))[1], s.chunk_table || '_terms')) IS NOT NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.parts IS %L', terms, '{parts}');
        EXECUTE format('COMMENT ON COLUMN %s.more_weights IS %L', terms, '{more_weights}');
    END LOOP;
END
$$"""


def upgrade() -> None:
    op.add_column(
        "spaces",
        sa.Column(
            "words_version",
            sa.Integer,
            nullable=False,
            server_default="1",
            comment="The version of its words: see neural.words_version",
        ),
        schema="neural",
    )
    op.alter_column("spaces", "words_version", server_default="2", schema="neural")
    op.add_column(
        "spaces",
        sa.Column("words_refresh", JSONB, comment="How far neural.refresh_words is; NULL where it is not under way"),
        schema="neural",
    )
    columns = "ADD COLUMN IF NOT EXISTS parts tsvector[], ADD COLUMN IF NOT EXISTS more_weights sparsevec(1000000000)[]"
    op.execute(TERMS_TABLES % columns)
    op.execute(COMMENTS.replace("{parts}", PARTS).replace("{more_weights}", MORE_WEIGHTS))
    op.drop_index(INDEX, "term_counts", schema="neural")
    op.create_index(
        INDEX,
        "term_counts",
        ["space_id", "language", "lexeme"],
        postgresql_include=["documents"],
        postgresql_ops={"lexeme": "text_pattern_ops"},
        schema="neural",
    )
    op.execute("DROP FUNCTION IF EXISTS neural.lexical_query(bigint, text, integer)")
    op.execute("DROP FUNCTION IF EXISTS neural.fresh_score(bigint, text, text, text, tsquery, sparsevec)")
    op.execute("DROP FUNCTION IF EXISTS neural.query_conditions(text, text)")


def downgrade() -> None:
    op.drop_index(INDEX, "term_counts", schema="neural")
    op.create_index(
        INDEX,
        "term_counts",
        ["space_id", "language", "lexeme"],
        postgresql_include=["documents"],
        schema="neural",
    )
    op.execute(TERMS_TABLES % "DROP COLUMN IF EXISTS parts, DROP COLUMN IF EXISTS more_weights")
    op.drop_column("spaces", "words_refresh", schema="neural")
    op.drop_column("spaces", "words_version", schema="neural")
