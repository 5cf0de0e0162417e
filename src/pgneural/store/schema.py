"""The catalog: the ORM models of schema ``neural``.

They are the one source of truth for it; ``migrations/`` follows them. Functions and views are not here but in
``sql/``, the tables that are kept of each source in `tables`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, REGCLASS
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

SCHEMA = "neural"
"""The schema of everything that is ours."""

NAMING = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}
"""PostgreSQL's own names for constraints and indexes."""


class Catalog(DeclarativeBase):
    """The declarative base of schema ``neural``."""

    metadata = MetaData(schema=SCHEMA, naming_convention=NAMING)


class Document(Catalog):
    """One row of the built-in source: a document of a collection."""

    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("collection", "external_id"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata_object"),
        Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        {"comment": "Documents of all collections; each collection also has a view of its own rows"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    collection: Mapped[str] = mapped_column(Text)
    external_id: Mapped[str] = mapped_column(Text, comment="The caller's identifier, unique in a collection")
    title: Mapped[str] = mapped_column(Text, server_default="")
    content: Mapped[str] = mapped_column(Text, server_default="")
    metadata_: Mapped[dict[str, Any]] = mapped_column(
        "metadata", JSONB, server_default="{}", comment="A JSON object, for filters"
    )
    uri: Mapped[str | None] = mapped_column(Text, comment="Where the document came from")
    modality: Mapped[str] = mapped_column(Text, server_default="text")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Space(Catalog):
    """All vectors that one encoder revision made for one searchable attribute of one source.

    `pgneural.store.space.read_spaces` reads it, without its times: psycopg reads none in a DateStyle other than ISO,
    which a connection of the user's may have.
    """

    __tablename__ = "spaces"
    __table_args__ = (
        UniqueConstraint("source", "attribute", "kind", "name"),
        Index(
            "spaces_serving_idx", "source", "attribute", "kind", unique=True, postgresql_where=text("state = 'serving'")
        ),
        {"comment": "Which encoder made the vectors of which chunk table"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    source: Mapped[str] = mapped_column(Text, comment="The source table, schema-qualified")
    attribute: Mapped[str] = mapped_column(Text, comment="For documents: the name of the collection")
    chunk_table: Mapped[str] = mapped_column(Text, comment="The chunk table, in the schema of the source")
    encoder: Mapped[str] = mapped_column(Text)
    revision: Mapped[str] = mapped_column(Text, comment="The encoder's revision")
    options: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default="{}", comment="What the encoder was made with, so that it can be made again"
    )
    dimensions: Mapped[int] = mapped_column(Integer)
    distance: Mapped[str] = mapped_column(Text)
    max_tokens: Mapped[int] = mapped_column(Integer, comment="The length of a chunk in the encoder's tokens")
    overlap: Mapped[int] = mapped_column(Integer, comment="How many tokens two neighbouring chunks share")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), deferred=True)
    language: Mapped[str] = mapped_column(
        Text, server_default="english", comment="The text search configuration of its words"
    )
    title_boost: Mapped[float] = mapped_column(
        Double, server_default="1", comment="How often a word of the title counts, against one of the content"
    )
    mean_length: Mapped[float | None] = mapped_column(
        Double, comment="The mean number of words of a row that the stored BM25 weights were made with"
    )
    kind: Mapped[str] = mapped_column(
        Text, server_default="dense", comment="dense, sparse, or tokens: one vector, weights of words, a vector a token"
    )
    language_by: Mapped[str | None] = mapped_column(
        Text, comment="An SQL expression over the source that gives the language of a row; NULL if all have one"
    )
    storage: Mapped[str] = mapped_column(Text, server_default="vector", comment="The type of the vectors' column")
    vector_index: Mapped[dict[str, Any]] = mapped_column(
        JSONB,
        server_default='{"method": "hnsw", "precision": "full", "dimensions": null, "options": {}}',
        comment="How the vectors are indexed",
    )
    reads: Mapped[str | None] = mapped_column(
        Text, comment="The SELECT of what is searchable: source_… keys, title, content, language; NULL for collections"
    )
    watched: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default="{}", comment="The tables, and of each the columns, whose changes make a row pending"
    )
    vector_column: Mapped[str | None] = mapped_column(
        Text, comment="The column of the source that has its vectors; NULL where they are in the chunk table"
    )
    sync: Mapped[str] = mapped_column(
        Text, server_default="manual", comment="When changed rows are encoded: inline, queue or manual"
    )
    name: Mapped[str] = mapped_column(Text, server_default="main", comment="Tells the spaces of one search apart")
    state: Mapped[str] = mapped_column(
        Text,
        server_default="serving",
        comment="serving: answers searches; building: is to; standby: did, and can be brought back",
    )
    rows_per_second: Mapped[float | None] = mapped_column(
        Double, comment="How many rows all workers together encode at most, while it does not serve; NULL for no limit"
    )
    resumes_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When the next rows may be encoded, where there is a limit", deferred=True
    )
    switched_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When its state last changed", deferred=True
    )
    switched: Mapped[bool] = column_property(switched_at.is_not(None))
    relation: Mapped[str | None] = mapped_column(
        REGCLASS, comment="The source table, by its number: a rename does not change it"
    )
    fields: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="Of neural.watch: the numbers of the columns that are title, content and language; NULL else"
    )
    problem: Mapped[str | None] = mapped_column(
        Text, comment="Why workers leave it alone for now; NULL where they do not"
    )
    reconciled: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="What the server had counted for its tables at the last comparison"
    )
    words_version: Mapped[int] = mapped_column(
        Integer, server_default="2", comment="The version of its words: see neural.words_version"
    )
    words_refresh: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="How far neural.refresh_words is; NULL where it is not under way"
    )
    index_waits: Mapped[bool] = mapped_column(
        Boolean,
        server_default="false",
        comment="Whether its vector index is made when the rows that wait are encoded: see neural.set_index_aside",
    )

    @property
    def search(self) -> str:
        """The name of its search, as a person gives it."""
        return search_name(self.source, self.attribute)


def search_name(source: str, attribute: str) -> str:
    """Return the name of a search, as a person gives it: a collection's, or ``schema.table.search``."""
    return attribute if source == DOCUMENTS.fullname else f"{source}.{attribute}"


class Worker(Catalog):
    """A worker that was seen of late."""

    __tablename__ = "workers"
    __table_args__ = ({"comment": "The workers that were seen of late"},)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    process: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class SqlFile(Catalog):
    """A file of ``sql/`` as it was last applied."""

    __tablename__ = "sql_files"
    __table_args__ = ({"comment": "The files of functions and views as they were last applied"},)

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    sha256: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(Text, comment="The pgneural version that applied it")
    applied_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


def _of_space() -> Column[int]:
    return Column("space_id", BigInteger, ForeignKey(Space.id, ondelete="CASCADE"), nullable=False)


TERM_COUNTS = Table(
    "term_counts",
    Catalog.metadata,
    _of_space(),
    Column("language", Text, nullable=False),
    Column("lexeme", Text, nullable=False),
    Column("documents", BigInteger, nullable=False, comment="How many rows more, or fewer, have the lexeme"),
    Index(
        None,
        "space_id",
        "language",
        "lexeme",
        postgresql_include=["documents"],
        postgresql_ops={"lexeme": "text_pattern_ops"},  # for words that begin so
    ),
    comment="Document frequencies, to be summed up: every change adds rows, so that no writer waits for another",
)
CORPUS_COUNTS = Table(
    "corpus_counts",
    Catalog.metadata,
    _of_space(),
    Column("language", Text, nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("tokens", Double, nullable=False, comment="The words of these rows"),
    Index(None, "space_id"),
    comment="Rows and words of each space, to be summed up as term_counts",
)

CHANGES = Table(
    "changes",
    Catalog.metadata,
    Column("space_id", BigInteger, nullable=False, comment="No foreign key: see neural.forget_changes"),
    Column("version", BigInteger, Identity(always=True), nullable=False, comment="Another one for every change"),
    Column("keys", JSONB, nullable=False, comment="The primary keys of the rows, each an array"),
    Column("rows", Integer, nullable=False, comment="How many keys there are"),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column(
        "changed_by",
        BigInteger,
        nullable=False,
        server_default=text("pg_current_xact_id()::text::bigint"),
        comment="The transaction",
    ),
    PrimaryKeyConstraint("space_id", "version"),
    comment="What statements changed, as triggers note it; neural.collect makes words and pending rows of it",
)
PENDING = Table(
    "pending",
    Catalog.metadata,
    _of_space(),
    Column("key", JSONB, nullable=False, comment="The primary key of the source row, as an array"),
    Column("version", BigInteger, nullable=False, comment="That of its last change"),
    Column("changed_at", DateTime(timezone=True), nullable=False, comment="When it changed first"),
    Column(
        "due",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When it may be claimed: later while a worker has it, or after a failure",
    ),
    Column("claimed_by", Text, comment="The worker that has it"),
    Column("attempts", Integer, nullable=False, server_default="0", comment="How often it failed"),
    Column("error", Text, comment="Why, the last time"),
    PrimaryKeyConstraint("space_id", "key"),
    Index(None, "space_id", "due"),
    comment="Rows that changed and are not encoded yet: a set",
)
FAILED = Table(
    "failed",
    Catalog.metadata,
    _of_space(),
    Column("key", JSONB, nullable=False, comment="The primary key of the source row, as an array"),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("space_id", "key"),
    comment="Rows that were given up after several attempts; another change, or neural.retry, tries again",
)
VECTORS = Table(
    "vectors",
    Catalog.metadata,
    Column("encoder", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="Of what the encoder read"),
    Column("embedding", VECTOR, nullable=False),
    Column("used_on", Date, nullable=False, server_default=func.current_date(), comment="Old ones are removed"),
    Column("owner", Text, nullable=False, server_default=text("CURRENT_USER"), comment="Whose vectors these are"),
    PrimaryKeyConstraint("owner", "encoder", "revision", "hash"),
    comment="Vectors that were made, so that nothing is encoded twice",
)
WORK = Table(
    "work",
    Catalog.metadata,
    _of_space(),
    Column("worker", Text, nullable=False),
    Column("minute", DateTime(timezone=True), nullable=False),
    Column("rows", BigInteger, nullable=False, comment="How many were stored"),
    Column("encoded", BigInteger, nullable=False, comment="How many chunks got a vector"),
    Column("reused", BigInteger, nullable=False, comment="How many had one already"),
    Column("encode_seconds", Double, nullable=False),
    Column("write_seconds", Double, nullable=False),
    PrimaryKeyConstraint("space_id", "worker", "minute"),
    comment="What workers did in each minute of the last hour",
)

CLEANED = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0"
"""Rows of the queue come and go: what is dead must be cleaned before claims have to step over it."""

for _table in (CHANGES, PENDING):
    event.listen(_table, "after_create", DDL(f"ALTER TABLE %(fullname)s SET ({CLEANED})"))  # type: ignore[no-untyped-call]
event.listen(  # a writer would wait for its compression
    CHANGES,
    "after_create",
    DDL("ALTER TABLE %(fullname)s ALTER COLUMN keys SET STORAGE EXTERNAL"),  # type: ignore[no-untyped-call]
)

DOCUMENTS: Table = Document.metadata.tables[f"{SCHEMA}.documents"]
