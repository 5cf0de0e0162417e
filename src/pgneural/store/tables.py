"""The tables that are kept of a source: its chunks, its words, extra vectors of its chunks, and their indexes.

Each belongs to one searchable attribute of one source table, and is an ordinary `sqlalchemy.Table` in whatever
MetaData it is asked to live in. What the catalog knows of them is in `schema`.
"""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import (
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    event,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.sql.elements import conv

from pgneural.store.engine import execute_script, quoted_table
from pgneural.store.schema import DOCUMENTS
from pgneural.store.vectors import Indexed, Storage

NAME_BYTES = 63 - len("_embedding_idx")
"""The longest name of a chunk table, so that those of its indexes and triggers are whole."""

INLINE_DIMENSIONS = 1900
"""Up to here a vector (4 bytes a dimension) fits a page beside its chunk, and is stored in the row.

PostgreSQL would otherwise move it out of line as soon as the row passes 2 kB, and an exact scan would
look every vector up a second time.
"""


def source_columns(source: Table) -> dict[str, Column[Any]]:
    """Map the key column names of a chunk table to the key columns of its source."""
    return {f"source_{column.name}": column for column in source.primary_key}


def _foreign_key(source: Table, keys: dict[str, Column[Any]], name: str) -> ForeignKeyConstraint:
    """Let rows follow their source row, also to another key.

    For tables of a user's own the models alone know of it, to join and to sort tables by. In the database it would
    stand in the way of TRUNCATE, of partitions that come and go, and of changes of the primary key: there triggers do
    what it would do (``neural.note_changes``), and workers what no trigger saw.
    """
    key = ForeignKeyConstraint(list(keys), list(keys.values()), ondelete="CASCADE", onupdate="CASCADE", name=conv(name))
    return key if source is DOCUMENTS else key.ddl_if(callable_=_never)


def _never(*_: Any, **__: Any) -> bool:
    return False


def chunk_table(
    source: Table,
    attribute: str,
    dimensions: int,
    *,
    metadata: MetaData,
    schema: str | None = None,
    storage: Storage = Storage.VECTOR,
    name: str | None = None,
) -> Table:
    """Declare the chunk table ``<source>_<attribute>`` in the schema of the source.

    The primary key is the key of the source row plus the ordinal of the chunk, so that the chunks of
    a row lie together and need no key of their own.

    Args:
        source: The user's table.
        attribute: The name of the `Searchable`, or of the collection.
        dimensions: The length of the vectors.
        metadata: Where the table is declared.
        schema: Another schema than that of the source.
        storage: The type of the vectors.
        name: Another name.
    """
    keys = source_columns(source)
    name = name or f"{source.name}_{attribute}"
    table = Table(
        name,
        metadata,
        *(Column(key, column.type, nullable=False) for key, column in keys.items()),
        Column("ordinal", Integer, nullable=False, comment="The position of the chunk in its row, from 0"),
        Column("text", Text, nullable=False, comment="The chunk's text; may be empty where it is not text"),
        Column("locator", JSONB, nullable=False, comment='Where it lies, for example {"content": [0, 512]}'),
        Column("hash", LargeBinary, nullable=False, comment="Of what the encoder read for this chunk"),
        Column("source_hash", LargeBinary, nullable=False, comment="Of the row's searchable content"),
        Column("embedding", storage.type(dimensions), nullable=False),
        PrimaryKeyConstraint(*keys, "ordinal", name=conv(f"{name}_pkey")),
        _foreign_key(source, keys, f"{name}_source_fkey"),
        schema=schema or source.schema,
        comment=f"Chunks of {source.fullname}, attribute {attribute}",
    )
    if dimensions * storage.width <= 4 * INLINE_DIMENSIONS:
        table.info["storage"] = ("embedding", "PLAIN")
    event.listen(table, "after_create", _store)
    return table


def inline_storage(table: Table) -> str | None:
    """Return the statement that says which column of a table of ours stays in the row; None if none."""
    if "storage" not in table.info:
        return None
    column, strategy = table.info["storage"]
    return f"ALTER TABLE {quoted_table(table.name, table.schema)} ALTER COLUMN {column} SET STORAGE {strategy}"


def _store(table: Table, connection: Connection, **_: Any) -> None:
    if statement := inline_storage(table):
        execute_script(connection, statement)


def extra_table(chunks: Table, kind: str, dimensions: int, *, metadata: MetaData) -> Table:
    """Declare the table ``<chunks>_sparse`` or ``<chunks>_tokens``: extra vectors of the same chunks.

    A row lives as long as its chunk: a chunk that changes is another one. ``neural.make_vectors`` makes the table.
    """
    name = f"{chunks.name}_{kind}"
    keys = [column.name for column in chunks.primary_key]
    vectors = {
        "sparse": Column("embedding", SPARSEVEC(dimensions), nullable=False),
        "tokens": Column("embedding", ARRAY(HALFVEC(dimensions)), nullable=False),
    }
    return Table(
        name,
        metadata,
        *(Column(key, chunks.c[key].type, nullable=False) for key in keys),
        vectors[kind],
        PrimaryKeyConstraint(*keys, name=conv(f"{name}_pkey")),
        ForeignKeyConstraint(keys, [chunks.c[key] for key in keys], ondelete="CASCADE", name=f"{name}_fkey"),
        schema=chunks.schema,
    )


TERM_DIMENSIONS = 1_000_000_000
"""Of the sparse vectors of the lexical leg: all that pgvector allows, so that lexemes hardly ever share one."""


def terms_table(
    source: Table, attribute: str, *, metadata: MetaData, schema: str | None = None, chunks: str | None = None
) -> Table:
    """Declare the terms table ``<source>_<attribute>_terms``: the words of each source row, for the lexical leg.

    It is apart from the chunk table because BM25 counts the words of a row and not of a piece of it, and because
    an update there would insert into the vector index once more. Of a row, only the weights are read for every
    candidate, so they are what stays in it. `chunks` is the name of the chunk table, where it is another than usual.
    """
    keys = source_columns(source)
    name = f"{chunks or f'{source.name}_{attribute}'}_terms"
    table = Table(
        name,
        metadata,
        *(Column(key, column.type, nullable=False) for key, column in keys.items()),
        Column("language", Text, nullable=False, comment="The text search configuration"),
        Column("lexemes", TSVECTOR, nullable=False),
        Column("length", Double, nullable=False, comment="How many words, those of the title boosted"),
        Column("weights", SPARSEVEC(TERM_DIMENSIONS), nullable=False, comment="The row's side of BM25"),
        Column(
            "parts",
            ARRAY(TSVECTOR),
            comment="With places, of a row too long for one tsvector; NULL for all others",
        ),
        Column(
            "more_weights",
            ARRAY(SPARSEVEC(TERM_DIMENSIONS)),
            comment="The row's side of BM25 beyond 16,000 different words",
        ),
        PrimaryKeyConstraint(*keys, name=conv(f"{name}_pkey")),
        _foreign_key(source, keys, f"{name}_fkey"),
        schema=schema or source.schema,
        comment=f"Words of {source.fullname}, attribute {attribute}",
    )
    table.info["storage"] = ("weights", "MAIN")  # PostgreSQL then moves the lexemes out of the row first
    event.listen(table, "after_create", _store)
    return table


def terms_index(terms: Table) -> Index:
    """Declare the GIN index of a terms table, once."""
    name = f"{terms.name}_idx"
    definition = next((index for index in terms.indexes if index.name == name), None)
    return definition or Index(conv(name), terms.c.lexemes, postgresql_using="gin")


def vector_index(chunks: Table, indexed: Indexed) -> Index:
    """Declare the vector index of a table."""
    expression = indexed.index_expression(chunks.c.embedding)
    label = None if expression is chunks.c.embedding else "indexed"
    return Index(
        conv(index_name(chunks)),
        expression.label(label) if label else expression,
        postgresql_using=str(indexed.index.method),
        postgresql_ops={label or "embedding": indexed.operator_class},
        postgresql_with=dict(indexed.index.stated),
    )


def index_name(chunks: Table) -> str:
    """Return the name of the vector index of a chunk table, or of a table of extra vectors."""
    return f"{chunks.name}_embedding_idx"
