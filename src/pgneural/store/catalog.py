"""Which spaces exist, and the making and dropping of collections.

A collection is the rows of ``neural.documents`` with one collection name, a space of its own (one
encoder revision, one chunk table) and a view of its rows. Making one is explicit and idempotent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from pgneural.amounts import number
from pgneural.errors import (
    EncoderMismatch,
    InvalidFilter,
    InvalidName,
    InvalidQuery,
    UnknownCollection,
    UnknownLanguage,
)
from pgneural.filter import expression
from pgneural.store.contained import require_contained
from pgneural.store.definition import SearchDefinition
from pgneural.store.engine import execute_script, literal, quoted
from pgneural.store.schema import DOCUMENTS, SCHEMA, Document, Space
from pgneural.store.space import chunks_of, extra_spaces, read_spaces, terms_of
from pgneural.store.tables import NAME_BYTES
from pgneural.store.visibility import follow_row_security
from pgneural.types import Encoder, ExtraEncoder

COLLECTION_BYTES = NAME_BYTES - len(f"{DOCUMENTS.name}_")
"""The longest name of a collection, which is part of that of its chunk table."""

STATISTICS_SECONDS = 60
"""For so long a collection, or a search of a class, believes what it knows of its tables."""

SOURCE = DOCUMENTS.fullname


@dataclass(frozen=True)
class CollectionStatus:
    """One row of the view ``neural.collections``."""

    name: str
    encoder: str
    revision: str
    dimensions: int
    distance: str
    documents: int
    chunks: int
    indexed: bool


MAX_TITLE_BOOST = 1000
"""More would only drown the content, and at some point the sums overflow; `neural.guard_space` knows it, too."""


def require_wording(language: object, title_boost: object) -> None:
    """Refuse what is no name or no number, before it is part of a statement.

    Raises:
        InvalidQuery: It is neither, or the boost is out of bounds.
    """
    if not isinstance(language, str):
        raise InvalidQuery(f"language is {language!r}, expected the name of a text search configuration")
    require_title_boost(title_boost)


def require_title_boost(boost: object) -> None:
    """Refuse what cannot be multiplied by without losing words.

    Raises:
        InvalidQuery: It is no number, or out of bounds.
    """
    if not 0 <= number("title_boost", boost) <= MAX_TITLE_BOOST:
        raise InvalidQuery(f"title_boost is {boost}, expected 0 to {MAX_TITLE_BOOST}; 1 counts titles as the content")


def collections(connection: sa.Connection) -> list[CollectionStatus]:
    """Return every collection with its counts, by name."""
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in CollectionStatus.__dataclass_fields__]
    rows = connection.execute(sa.select(*columns).select_from(sa.table("collections", schema=SCHEMA)))
    return [CollectionStatus(*row) for row in rows]


def find_space(connection: sa.Connection, collection: str) -> Space | None:
    """Return the space of a collection, or None."""
    return next(iter(read_spaces(connection, *_of(collection), Space.state == "serving")), None)


def space_of(connection: sa.Connection, id_: int) -> Space | None:
    """Return the space of an id, or None."""
    return next(iter(read_spaces(connection, Space.id == id_)), None)


def require_space(connection: sa.Connection, collection: str) -> Space:
    """Return the space of a collection.

    Raises:
        UnknownCollection: There is none; the message names those that exist.
    """
    space = find_space(connection, collection)
    if space is None:
        names = connection.scalars(
            sa.select(Space.attribute)
            .where(Space.source == SOURCE, Space.kind == "dense", Space.state == "serving")
            .order_by("attribute")
        )
        listed = ", ".join(names) or "none yet"
        raise UnknownCollection(f"no collection {collection!r}; the database has: {listed}")
    return space


def create_collection(connection: sa.Connection, definition: SearchDefinition, revision: str) -> Space:
    """Make a collection, with its chunk table and its view; the caller commits. One that is there is returned.

    Args:
        connection: In a transaction.
        definition: Its search: `pgneural.opening.definition_of`.
        revision: Of the encoder that will make its vectors.

    Raises:
        InvalidName: The name is empty, too long, not printable or already that of something else.
        UnknownLanguage: The server has no such text search configuration.
    """
    name = definition.attribute
    require_printable(name)
    _lock(connection, name)
    if existing := find_space(connection, name):
        return existing
    _require_free(connection, name)
    _require_language(connection, definition.language)
    if definition.language_by is not None:
        _require_expression(connection, definition.language_by)
    index = definition.index.as_json()
    values = {**definition.catalog(), "language_by": definition.language_by, "vector_index": index}
    connection.execute(insert(Space).values(source=SOURCE, revision=revision, **values))
    space = require_space(connection, name)
    connection.execute(_MAKE_TABLES, {"space": space.id})
    _create_view(connection, name)
    follow_row_security(connection)
    return space


def drop_collection(connection: sa.Connection, name: str) -> None:
    """Drop the collection with all its documents; the caller commits.

    Raises:
        UnknownCollection: There is none.
    """
    _lock(connection, name)
    require_space(connection, name)
    execute_script(connection, f"DROP VIEW IF EXISTS {quoted(SCHEMA, name)}")
    for every in read_spaces(connection, *_of(name)):
        connection.execute(_DROP_VECTORS, {"space": every.id})
        terms_of(every).drop(connection, checkfirst=True)
        chunks_of(every).drop(connection, checkfirst=True)
    connection.execute(sa.delete(Document).where(Document.collection == name))
    connection.execute(sa.delete(Space).where(Space.source == SOURCE, Space.attribute == name))
    connection.execute(sa.text("SELECT neural.watch_documents()"))


def _of(collection: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions that a row of the catalog is a space of a collection."""
    return Space.source == SOURCE, Space.attribute == collection, Space.kind == "dense"


def create_extra(
    connection: sa.Connection, space: Space, kind: str, encoder: ExtraEncoder, options: Mapping[str, Any]
) -> None:
    """Give a collection extra vectors of its chunks, with a table of their own; the caller commits."""
    _lock(connection, space.attribute)
    require_same_space(connection, space)
    if kind in extra_spaces(connection, space):
        return
    arguments = {"kind": kind, "encoder": encoder.name, "dimensions": encoder.dimensions, "revision": encoder.revision}
    values = {**arguments, "attribute": space.attribute, "options": json.dumps(dict(options))}
    connection.execute(_ADD_VECTORS, values)


def require_same_space(connection: sa.Connection, space: Space) -> None:
    """Make sure that the collection is still the one that was opened.

    Raises:
        UnknownCollection: It was dropped, or dropped and made anew.
    """
    if connection.scalar(sa.select(Space.id).where(Space.id == space.id)) is None:
        raise dropped(space)


def current_space(connection: sa.Connection, space: Space) -> Space:
    """Return a space as it is now.

    Raises:
        UnknownCollection: It was dropped, or dropped and made anew.
    """
    now = space_of(connection, space.id)
    if now is None:
        raise dropped(space)
    return now


def dropped(space: Space) -> UnknownCollection:
    """Say that a collection that is open is no longer there."""
    return UnknownCollection(f"collection {space.attribute!r} was dropped after it was opened; open it again")


def add_missing_terms(connection: sa.Connection) -> None:
    """Make the terms table of every collection that an earlier version made without one."""
    for space in read_spaces(connection, Space.source == SOURCE, Space.kind == "dense"):
        if not sa.inspect(connection).has_table(terms_of(space).name, SCHEMA):
            _create_terms(connection, space)


def _create_terms(connection: sa.Connection, space: Space) -> None:
    """Make the terms table, with the triggers that count its words."""
    terms = terms_of(space)
    terms.create(connection)
    connection.execute(_COUNT_WORDS, {"terms": quoted(SCHEMA, terms.name)})


def _require_language(connection: sa.Connection, language: str) -> None:
    names = connection.scalars(sa.text("SELECT cfgname FROM pg_ts_config ORDER BY cfgname")).all()
    if language.rpartition(".")[2] not in names:
        raise UnknownLanguage(f"the server has no text search configuration {language!r}; it has: {', '.join(names)}")


def _require_expression(connection: sa.Connection, text: str) -> None:
    if not isinstance(text, str):
        raise InvalidFilter(f"language_by is {text!r}, expected SQL as text")
    value, rows = expression(text, "language_by"), DOCUMENTS.alias("documents")
    require_contained(connection, rows, [("language_by", value)])
    try:
        with connection.begin_nested():
            reading = sa.select(sa.cast(value, sa.Text)).select_from(rows)
            connection.execute(reading.limit(0).with_for_update(read=True))
    except DBAPIError as error:
        message = str(error.orig).splitlines()[0]
        raise InvalidFilter(f"language_by does not work: {message}; it may use the columns of documents") from error


def require_encoder(space: Space, encoder: Encoder | ExtraEncoder) -> None:
    """Refuse an encoder that did not make the vectors of the space.

    Raises:
        EncoderMismatch: Its name or revision is another.
    """
    if (encoder.name, encoder.revision) != (space.encoder, space.revision):
        raise EncoderMismatch(
            f"collection {space.attribute!r} was encoded by {space.encoder} revision {space.revision}, "
            f"but this is {encoder.name} revision {encoder.revision}; "
            "use the same model files, or index into a new collection"
        )


def chunks_per_row(connection: sa.Connection, space: Space) -> float:
    """Return how many chunks a document has on average, as the server's statistics know; at least 1."""
    return rows_per_key(connection, quoted(SCHEMA, space.chunk_table))


def rows_per_key(connection: sa.Connection, chunks: str) -> float:
    """Return how many chunks a source row has on average, as the server's statistics know; at least 1.

    Args:
        connection: Where.
        chunks: The chunk table, quoted. With a key of several columns, that with the most values tells.
    """
    statistics = sa.text(
        "SELECT min(CASE WHEN n_distinct < 0 THEN -1 / n_distinct ELSE reltuples / nullif(n_distinct, 0) END)"
        "  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        "  JOIN pg_stats ON schemaname = n.nspname AND tablename = c.relname"
        r" WHERE c.oid = to_regclass(:chunks) AND attname LIKE 'source\_%' AND attname <> 'source_hash'"
    )
    return max(float(connection.scalar(statistics, {"chunks": chunks}) or 1), 1.0)


def _lock(connection: sa.Connection, name: str) -> None:
    key = sa.func.hashtextextended(lock_name(name), 0)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def lock_name(collection: str) -> str:
    """Name the advisory lock that making and dropping a collection take, and that its writers share."""
    return f"pgneural collection {collection}"


def require_printable(name: str) -> None:
    """Refuse a name that cannot be part of identifiers.

    Raises:
        InvalidName: It is empty, too long, or has characters that do not print.
    """
    length = len(name.encode("utf-8", "replace"))
    if not name.strip() or not name.isprintable() or "%" in name or length > COLLECTION_BYTES:
        raise InvalidName(
            f"collection name {name!r} will not do; use 1 to {COLLECTION_BYTES} bytes of printable characters without %"
        )


_SUFFIXES = (
    "",
    "_pkey",
    "_embedding_idx",
    "_embedding_new",
    "_terms",
    "_terms_pkey",
    "_terms_idx",
    "_embedding_old",
    "_sparse",
    "_sparse_pkey",
    "_sparse_embedding_idx",
    "_sparse_embedding_new",
    "_tokens",
    "_tokens_pkey",
)


def _require_free(connection: sa.Connection, name: str) -> None:
    names = [name, *(f"{DOCUMENTS.name}_{name}{suffix}" for suffix in _SUFFIXES)]
    taken = sa.text(
        "SELECT 1 FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace) AND relname = ANY(:names) LIMIT 1"
    )
    if connection.scalar(taken, {"schema": SCHEMA, "names": names}):
        raise InvalidName(f"schema {SCHEMA} already has a relation for {name!r}; choose another collection name")


def _create_view(connection: sa.Connection, name: str) -> None:
    columns = ", ".join(column.name for column in DOCUMENTS.c if column.name != "collection")
    view = quoted(SCHEMA, name)
    execute_script(
        connection,
        f"CREATE VIEW {view} WITH (security_invoker = true) AS "  # noqa: S608
        f"SELECT {columns} FROM {DOCUMENTS.fullname} WHERE collection = {literal(name)}",
    )
    comment = literal(f"Documents of collection {name}")
    execute_script(connection, f"COMMENT ON VIEW {view} IS {comment}")


_ADD_VECTORS = sa.text("""
SELECT neural.add_vectors(
       'neural.documents', :attribute, :kind, :encoder, :dimensions, :revision, CAST(:options AS jsonb))""")

_MAKE_TABLES = sa.text("SELECT neural.make_tables(:space)")

_COUNT_WORDS = sa.text("SELECT neural.count_words_of(CAST(:terms AS regclass))")

_DROP_VECTORS = sa.text("SELECT neural.drop_vectors_of(:space)")
