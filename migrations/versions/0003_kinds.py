"""What kinds of vectors a space has, how they are stored and indexed, and languages by row."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.Column(
        "kind",
        sa.Text,
        server_default="dense",
        nullable=False,
        comment="dense, sparse, or tokens: one vector, weights of words, a vector a token",
    )
    language = sa.Column(
        "language_by",
        sa.Text,
        comment="An SQL expression over the source that gives the language of a row; NULL if all have one",
    )
    storage = sa.Column(
        "storage", sa.Text, server_default="vector", nullable=False, comment="The type of the vectors' column"
    )
    index = sa.Column(
        "vector_index",
        JSONB,
        server_default='{"method": "hnsw", "precision": "full", "dimensions": null, "options": {}}',
        nullable=False,
        comment="How the vectors are indexed",
    )
    for column in (kind, language, storage, index):
        op.add_column("spaces", column, schema="neural")
    # what pgvector cannot index in full was not indexed until now
    op.execute("""
        UPDATE neural.spaces SET vector_index = vector_index || CASE
            WHEN dimensions <= 4000 THEN '{"precision": "half"}'::jsonb
            WHEN dimensions <= 64000 THEN '{"precision": "binary"}' ELSE '{"method": "none"}' END
         WHERE dimensions > 2000
    """)
    op.drop_constraint("spaces_source_attribute_key", "spaces", schema="neural")
    op.create_unique_constraint(
        op.f("spaces_source_attribute_kind_key"), "spaces", ["source", "attribute", "kind"], schema="neural"
    )


def downgrade() -> None:
    # the tables of the other kinds are made on demand, and cannot be without their chunk table
    op.execute("""
        DO $$
        DECLARE other text;
        BEGIN
            FOR other IN SELECT chunk_table FROM neural.spaces
                          WHERE source = 'neural.documents' AND kind <> 'dense' LOOP
                EXECUTE format('DROP TABLE IF EXISTS neural.%I', other);
            END LOOP;
        END $$
    """)
    op.execute("DELETE FROM neural.spaces WHERE kind <> 'dense'")
    op.drop_constraint(op.f("spaces_source_attribute_kind_key"), "spaces", schema="neural")
    op.create_unique_constraint("spaces_source_attribute_key", "spaces", ["source", "attribute"], schema="neural")
    for column in ("vector_index", "storage", "language_by", "kind"):
        op.drop_column("spaces", column, schema="neural")
