"""The catalog and the built-in source."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _now(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text, nullable=False, comment="The caller's identifier, unique in a collection"),
        sa.Column("title", sa.Text, server_default="", nullable=False),
        sa.Column("content", sa.Text, server_default="", nullable=False),
        sa.Column("metadata", JSONB, server_default="{}", nullable=False, comment="A JSON object, for filters"),
        sa.Column("uri", sa.Text, comment="Where the document came from"),
        sa.Column("modality", sa.Text, server_default="text", nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name=op.f("documents_metadata_object_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("documents_pkey")),
        sa.UniqueConstraint("collection", "external_id", name=op.f("documents_collection_external_id_key")),
        schema="neural",
        comment="Documents of all collections; each collection also has a view of its own rows",
    )
    op.create_index(
        op.f("documents_metadata_idx"),
        "documents",
        ["metadata"],
        schema="neural",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.create_table(
        "spaces",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text, nullable=False, comment="The source table, schema-qualified"),
        sa.Column("attribute", sa.Text, nullable=False, comment="For documents: the name of the collection"),
        sa.Column("chunk_table", sa.Text, nullable=False, comment="The chunk table, in the schema of the source"),
        sa.Column("encoder", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False, comment="The encoder's revision"),
        sa.Column(
            "options",
            JSONB,
            server_default="{}",
            nullable=False,
            comment="What the encoder was made with, so that it can be made again",
        ),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("distance", sa.Text, nullable=False),
        sa.Column("max_tokens", sa.Integer, nullable=False, comment="The length of a chunk in the encoder's tokens"),
        sa.Column("overlap", sa.Integer, nullable=False, comment="How many tokens two neighbouring chunks share"),
        _now("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("spaces_pkey")),
        sa.UniqueConstraint("source", "attribute", name=op.f("spaces_source_attribute_key")),
        schema="neural",
        comment="Which encoder made the vectors of which chunk table",
    )
    op.create_table(
        "sql_files",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False, comment="The pgneural version that applied it"),
        _now("applied_at"),
        sa.PrimaryKeyConstraint("name", name=op.f("sql_files_pkey")),
        schema="neural",
        comment="The files of functions and views as they were last applied",
    )


def downgrade() -> None:
    # the chunk tables and views of collections are made on demand, and cannot be without their documents
    op.execute("""
        DO $$
        DECLARE chunk_table text;
        BEGIN
            FOR chunk_table IN SELECT s.chunk_table FROM neural.spaces s WHERE source = 'neural.documents' LOOP
                EXECUTE format('DROP TABLE IF EXISTS neural.%I', chunk_table);
            END LOOP;
            FOR chunk_table IN SELECT attribute FROM neural.spaces WHERE source = 'neural.documents' LOOP
                EXECUTE format('DROP VIEW IF EXISTS neural.%I', chunk_table);
            END LOOP;
        END $$
    """)
    op.drop_table("sql_files", schema="neural")
    op.drop_table("spaces", schema="neural")
    op.drop_table("documents", schema="neural")
