"""What the lexical leg counts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _of_space(table: str) -> tuple[sa.Column, sa.ForeignKeyConstraint]:
    name = op.f(f"{table}_space_id_fkey")
    foreign = sa.ForeignKeyConstraint(["space_id"], ["neural.spaces.id"], ondelete="CASCADE", name=name)
    return sa.Column("space_id", sa.BigInteger, nullable=False), foreign


def upgrade() -> None:
    language = sa.Column(
        "language",
        sa.Text,
        server_default="english",
        nullable=False,
        comment="The text search configuration of its words",
    )
    boost = sa.Column(
        "title_boost",
        sa.Double,
        server_default="1",
        nullable=False,
        comment="How often a word of the title counts, against one of the content",
    )
    mean = sa.Column(
        "mean_length",
        sa.Double,
        comment="The mean number of words of a row that the stored BM25 weights were made with",
    )
    for column in (language, boost, mean):
        op.add_column("spaces", column, schema="neural")
    op.create_table(
        "term_counts",
        *_of_space("term_counts"),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("lexeme", sa.Text, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False, comment="How many rows more, or fewer, have the lexeme"),
        schema="neural",
        comment="Document frequencies, to be summed up: every change adds rows, so that no writer waits for another",
    )
    op.create_index(
        op.f("term_counts_space_id_language_lexeme_idx"),
        "term_counts",
        ["space_id", "language", "lexeme"],
        schema="neural",
        postgresql_include=["documents"],
    )
    op.create_table(
        "corpus_counts",
        *_of_space("corpus_counts"),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False, comment="The words of these rows"),
        schema="neural",
        comment="Rows and words of each space, to be summed up as term_counts",
    )
    op.create_index(op.f("corpus_counts_space_id_idx"), "corpus_counts", ["space_id"], schema="neural")


def downgrade() -> None:
    # the terms tables are made on demand, like the chunk tables of revision 0001
    op.execute("""
        DO $$
        DECLARE terms_table text;
        BEGIN
            FOR terms_table IN SELECT s.chunk_table || '_terms' FROM neural.spaces s
                                WHERE source = 'neural.documents' LOOP
                EXECUTE format('DROP TABLE IF EXISTS neural.%I', terms_table);
            END LOOP;
        END $$
    """)
    op.drop_table("corpus_counts", schema="neural")
    op.drop_table("term_counts", schema="neural")
    for column in ("mean_length", "title_boost", "language"):
        op.drop_column("spaces", column, schema="neural")
