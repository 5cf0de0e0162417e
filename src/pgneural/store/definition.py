"""A search as a value, and the statements that make and drop that of a table of the user's own.

`MetaData.create_all` and the operations of a migration execute the same statements, and none of them reads the
database, so that Alembic can print them as a script.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from pgneural.chunk import CHUNK_TOKENS, OVERLAP_SHARE
from pgneural.errors import InvalidDeclaration
from pgneural.store.engine import quoted, quoted_table, sql_value
from pgneural.store.schema import SCHEMA
from pgneural.store.tables import chunk_table, inline_storage, terms_index, terms_table, vector_index
from pgneural.store.vectors import Indexed, Method, Storage, VectorIndex
from pgneural.types import Distance, Sync

CONTENT = ("reads", "max_tokens", "overlap", "language", "title_boost")
"""What decides the chunks and words of a row."""

_QUALIFIED = (" concat_ws(E'", " pg_catalog.concat_ws(E'")
"""How fields are joined; migrations of earlier versions have the first, by which that of others may be found."""

Statement = sa.Executable | sa.schema.ExecutableDDLElement


@dataclass(frozen=True)
class SearchDefinition:
    """A search of a table, or of the documents: what it reads, how it encodes that, and how it keeps the vectors.

    Attributes:
        source: The table.
        attribute: The name of the search.
        key: The table's primary key, as columns.
        reads: The SELECT of what is searchable: the key as ``source_…``, ``title``, ``content``, and ``language``
            where it goes by row. None for a search without words, and for a collection, which stores what it is given.
        watched: The tables, and of each the columns, whose changes make a row pending.
        encoder: The name of the encoder.
        dimensions: The length of its vectors.
        options: What the encoder is made with.
        distance: How its vectors are compared.
        storage: The type of the column of the vectors.
        index: How the vectors are indexed.
        max_tokens: The longest chunk, in tokens; shorter where the encoder reads less.
        overlap: How many tokens neighbouring chunks may share.
        language: The text search configuration of rows that say nothing else.
        title_boost: How often a word of the title counts, against one of the content.
        language_by: Of a collection: an SQL expression over the documents that gives the language of each, as a
            configuration or an ISO 639-1 code; where it is NULL, `language` holds. Elsewhere `reads` has it.
        sync: When changed rows are encoded.
        column: The column of the source that has its vectors, where they were made elsewhere.
        schema: The schema of the source; None for the default one.
    """

    source: str
    attribute: str
    key: tuple[sa.Column[Any], ...]
    reads: str | None
    encoder: str
    dimensions: int
    watched: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    distance: Distance = Distance.COSINE
    storage: Storage = Storage.VECTOR
    index: VectorIndex = field(default_factory=VectorIndex)
    max_tokens: int = CHUNK_TOKENS
    overlap: int = CHUNK_TOKENS // OVERLAP_SHARE
    language: str = "english"
    title_boost: float = 1.0
    language_by: str | None = None
    sync: Sync = Sync.QUEUE
    column: str | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        if self.reads is not None:
            object.__setattr__(self, "reads", self.reads.replace(*_QUALIFIED))

    @property
    def name(self) -> str:
        """The name of the chunk table."""
        return f"{self.source}_{self.attribute}"

    @property
    def indexed(self) -> Indexed:
        """How the vectors are kept and indexed."""
        return Indexed(self.index, self.storage, self.distance, self.dimensions)

    def tables(
        self, source: sa.Table, metadata: sa.MetaData, *, indexed: bool = True
    ) -> tuple[sa.Table | None, sa.Table | None]:
        """Declare the chunk table and the terms table, each where the search has one."""
        chunks = terms = None
        for name in (self.name, f"{self.name}_terms"):  # of a class that is defined anew, as in a notebook
            before = metadata.tables.get(sa.schema._get_table_key(name, self.schema))
            if before is not None and _search_of_table.get(before) != (self.source, self.attribute):
                raise InvalidDeclaration(f"table {name} of the models has the name of one of the search's; rename one")
            if before is not None:
                metadata.remove(before)
        if self.column is None:
            chunks = chunk_table(source, self.attribute, self.dimensions, metadata=metadata, storage=self.storage)
            if indexed and self.index.method is not Method.NONE:
                vector_index(chunks, self.indexed)
        if self.reads is not None:
            terms = terms_table(source, self.attribute, metadata=metadata)
            terms_index(terms)
        if chunks is not None and terms is not None:
            terms.add_is_dependent_on(chunks)
        for table in (chunks, terms):
            if table is not None:
                _search_of_table[table] = (self.source, self.attribute)
        return chunks, terms

    def tables_watched(self) -> Iterator[tuple[tuple[str | None, str], Sequence[str]]]:
        """Return the watched tables, each as its schema and its name, with their columns."""
        for table, columns in self.watched.items():
            prefix = f"{self.schema}."
            inside = self.schema is not None and table.startswith(prefix)
            yield (self.schema, table.removeprefix(prefix)) if inside else (None, table), columns

    def catalog(self) -> dict[str, Any]:
        """Return the row of the search in ``neural.spaces``, but for the source and the index."""
        return {
            "attribute": self.attribute,
            "chunk_table": self.name,
            "encoder": self.encoder,
            "options": dict(self.options),
            "dimensions": self.dimensions,
            "distance": str(self.distance),
            "max_tokens": self.max_tokens,
            "overlap": self.overlap,
            "language": self.language,
            "title_boost": float(self.title_boost),
            "storage": str(self.storage),
            "reads": self.reads,
            "watched": {table: list(columns) for table, columns in self.watched.items()},
            "vector_column": self.column,
            "sync": str(self.sync),
        }

    def source_table(self) -> sa.Table:
        """Return a table that stands for the source."""
        return sa.Table(
            self.source,
            sa.MetaData(),
            *(sa.Column(column.name, column.type, primary_key=True) for column in self.key),
            schema=self.schema,
        )


_of_tables: weakref.WeakKeyDictionary[sa.Table, dict[str, SearchDefinition]] = weakref.WeakKeyDictionary()


_search_of_table: weakref.WeakKeyDictionary[sa.Table, tuple[str, str]] = weakref.WeakKeyDictionary()
"""For which search, by source and name, a table of the models is kept."""


def searches_of(table: sa.Table) -> dict[str, SearchDefinition]:
    """Return the searches of a table of the models, by name; who declares one adds it.

    They are not in the ``info`` of the table, which Alembic writes into migrations.
    """
    return _of_tables.setdefault(table, {})


def create_statements(definition: SearchDefinition) -> Iterator[Statement]:
    """Return what makes a search but for its vector index, in order: tables, row in the catalog, triggers."""
    source = definition.source_table()
    for table in definition.tables(source, source.metadata, indexed=False):
        if table is not None:
            yield CreateTable(table)
            if table.comment:
                yield sa.schema.SetTableComment(table)
            yield from (sa.schema.SetColumnComment(column) for column in table.c if column.comment)
            if storage := inline_storage(table):
                yield _sql(storage)
            yield from (CreateIndex(index) for index in table.indexes)
    yield from attach_statements(definition)


def attach_statements(definition: SearchDefinition) -> Iterator[sa.TextClause]:
    """Return what joins tables that are there to the catalog, and has their source watched."""
    values = {**definition.catalog(), "vector_index": definition.index.as_json(), "revision": "", "kind": "dense"}
    columns = ", ".join(values)
    yield from _forgotten(definition)  # left by tables that were dropped without their search
    yield _sql(
        f"INSERT INTO {SCHEMA}.spaces (source, {columns}) "
        f"SELECT {SCHEMA}.qualified({_relation(definition)}), {', '.join(map(sql_value, values.values()))}"
    )
    if definition.reads is None:
        return
    terms = quoted_table(f"{definition.name}_terms", definition.schema)
    yield _sql(f"SELECT {SCHEMA}.count_words_of({sql_value(terms)}::regclass)")
    yield from watch_statements(definition)
    names = [f"{definition.name}_terms"] if definition.column else [definition.name, f"{definition.name}_terms"]
    for name in names:
        relation = sql_value(quoted_table(name, definition.schema))
        yield _sql(f"SELECT {SCHEMA}.follow_source({relation}, {_relation(definition)})")
    yield mark_all(definition)


def watch_statements(definition: SearchDefinition) -> Iterator[sa.TextClause]:
    """Return what has the source watched: its inserted rows, and changes of what is searchable."""
    for (schema, name), columns in definition.tables_watched():
        arguments = (quoted_table(name, schema), definition.name, definition.schema or "", _array(columns))
        yield _sql(f"SELECT {SCHEMA}.watch_table({', '.join(map(sql_value, arguments))})")


def unwatch_statement(definition: SearchDefinition) -> sa.TextClause:
    """Return the reverse of `watch_statements`."""
    return _sql(f"SELECT {SCHEMA}.unwatch_table({sql_value(definition.name)}, {sql_value(definition.schema or '')})")


def mark_all(definition: SearchDefinition) -> sa.TextClause:
    """Return what makes every row pending; the content is not read, since a migration may be about to rename it."""
    space = f"{SCHEMA}.space_id({_relation(definition)}, {sql_value(definition.attribute)}, '')"
    return _sql(f"SELECT {SCHEMA}.mark_all({space}, {_relation(definition)})")


def change_statements(before: SearchDefinition, after: SearchDefinition) -> Iterator[sa.TextClause]:
    """Return what turns a search into one of the same tables; where it reads or cuts otherwise, all is pending."""
    yield unwatch_statement(before)
    index = {"vector_index": after.index.as_json()} if before.index != after.index else {}  # its lists are of its build
    changed = {**after.catalog(), **index}
    assignments = ", ".join(f"{name} = {sql_value(value)}" for name, value in changed.items())
    yield _sql(f"UPDATE {SCHEMA}.spaces SET {assignments} WHERE {_is_space(after)} AND kind = 'dense'")  # noqa: S608
    if after.reads is not None:
        yield from watch_statements(after)
        terms = quoted_table(f"{after.name}_terms", after.schema)
        yield _sql(f"CREATE INDEX IF NOT EXISTS {quoted(f'{after.name}_terms_idx')} ON {terms} USING gin (lexemes)")
        if any(getattr(before, name) != getattr(after, name) for name in CONTENT):
            yield mark_all(after)


def drop_statements(definition: SearchDefinition) -> Iterator[Statement]:
    """Return what drops a search; its source stays as it is."""
    yield from detach_statements(definition)
    source = definition.source_table()
    for table in reversed(definition.tables(source, source.metadata)):
        if table is not None:
            yield DropTable(table, if_exists=True)


def detach_statements(definition: SearchDefinition) -> Iterator[sa.TextClause]:
    """Return the reverse of `attach_statements`, but for what goes with the tables."""
    yield unwatch_statement(definition)
    yield from _forgotten(definition)


def _forgotten(definition: SearchDefinition) -> Iterator[sa.TextClause]:
    yield _sql(  # models know nothing of these tables
        f"SELECT {SCHEMA}.drop_vectors_of(id) FROM {SCHEMA}.spaces "  # noqa: S608
        f"WHERE kind = 'dense' AND {_is_space(definition)}"
    )
    yield _sql(f"DELETE FROM {SCHEMA}.spaces WHERE {_is_space(definition)}")  # noqa: S608


def _is_space(definition: SearchDefinition) -> str:
    """Return the condition on the catalog that a row is that of the search, whether or not its table is still there."""
    relation = sql_value(quoted_table(definition.source, definition.schema))
    schema = sql_value(definition.schema) if definition.schema else "current_schema()"
    gone = f"format('%I.%I', {schema}, {sql_value(definition.source)})"
    source = f"coalesce({SCHEMA}.qualified(to_regclass({relation})), {gone})"
    return f"source = {source} AND attribute = {sql_value(definition.attribute)}"


def _relation(definition: SearchDefinition) -> str:
    """Return the source as a literal regclass."""
    return sql_value(quoted_table(definition.source, definition.schema)) + "::regclass"


def _array(values: Sequence[str]) -> str:
    return "{" + ",".join(json.dumps(value, ensure_ascii=False) for value in values) + "}"


def _sql(text: str) -> sa.TextClause:
    return sa.text(text.replace(":", "\\:"))
