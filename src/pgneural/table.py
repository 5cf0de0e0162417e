"""The search of a table, asked as a collection is: by a name and by texts, without a mapped class or a session.

The class is made of what the catalog and the table itself say, so everything that a mapped class can do is there.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import DOMAIN, MONEY
from sqlalchemy.orm import Mapper, Session, registry

from pgneural.errors import InvalidQuery, UnknownDocument
from pgneural.orm.binding import SearchBinding
from pgneural.store.definition import SearchDefinition
from pgneural.store.engine import quoted_table, translated
from pgneural.store.space import extra_spaces
from pgneural.store.vectors import Storage, VectorIndex
from pgneural.types import Distance, Sync

if TYPE_CHECKING:
    from pgneural.explain import Explanation
    from pgneural.filter import Expression, Filter
    from pgneural.options import QueryInput, SearchOptions
    from pgneural.orm.query import SearchQuery
    from pgneural.query import Query
    from pgneural.search import Hits
    from pgneural.store.schema import Space
    from pgneural.types import Encoder, Mode

E = TypeVar("E")

Sessions = Callable[[], contextlib.AbstractContextManager[Session]]


class TableSearch(Generic[E]):
    """A search of a table; its methods, options and errors are those of `pgneural.Collection`.

    Rows are known by the text of their primary key; of several columns, by the texts as a JSON array: ``["a", "1"]``.

    Args:
        bound: The search of the class.
        sessions: Gives a session for each call.
    """

    def __init__(self, bound: SearchBinding[E], sessions: Sessions) -> None:
        self._bound, self._sessions = bound, sessions

    @property
    def name(self) -> str:
        """The table with its schema, and the name of the search."""
        definition = self._bound.definition
        return ".".join(filter(None, (definition.schema, definition.source, definition.attribute)))

    @property
    def modes(self) -> Sequence[Mode]:
        """The modes in which it can be searched."""
        return self._bound.modes

    @property
    def encoder(self) -> Encoder:
        """The encoder of the space that answers."""
        return self._bound.query_encoder

    def id_of(self, row: E) -> str:
        """Return the text that a row is known by."""
        key = [str(value) for value in self._bound.key(row)]
        return key[0] if len(key) == 1 else json.dumps(key, ensure_ascii=False)

    def search(self, query: QueryInput | Query, **options: Unpack[SearchOptions]) -> Hits[E]:
        """Return the rows that answer a query best."""
        with self._sessions() as session:
            return self._query(self._bound(query), **options).all(session)

    def explain(self, query: QueryInput | Query, **options: Unpack[SearchOptions]) -> Explanation:
        """Search, and say what the search did."""
        with self._sessions() as session:
            return self._query(self._bound(query), **options).explain(session)

    def like(self, id_: str, **options: Unpack[SearchOptions]) -> Hits[E]:
        """Return the rows nearest to a stored one, which is not among them."""
        return self.recommend([id_], **options)

    def recommend(
        self, positive: Sequence[str], negative: Sequence[str] = (), **options: Unpack[SearchOptions]
    ) -> Hits[E]:
        """Return the rows nearest to some stored ones and far from others, none of which is among them."""
        with self._sessions() as session:
            liked, unliked = self._rows(session, positive), self._rows(session, negative)
            return self._query(self._bound.recommend(liked, unliked), **options).all(session)

    def discover(
        self, target: QueryInput | None, context: Sequence[tuple[str, str]], **options: Unpack[SearchOptions]
    ) -> Hits[E]:
        """Return rows on the right side of pairs of examples, and among these the nearest to a target."""
        with self._sessions() as session:
            pairs = [(good, bad) for good, bad in (self._rows(session, pair) for pair in context)]
            return self._query(self._bound.discover(target, pairs), **options).all(session)

    def facets(
        self, by: Expression, *, query: str | None = None, where: Filter | None = None, limit: int = 20
    ) -> dict[Any, int]:
        """Count rows by the value of an expression, the most frequent first."""
        with self._sessions() as session:
            return self._counted(query, where).facets(session, by, limit)

    def total(self, *, query: str | None = None, where: Filter | None = None) -> int:
        """Count rows."""
        with self._sessions() as session:
            return self._counted(query, where).total(session)

    def _counted(self, query: str | None, where: Filter | None) -> SearchQuery[E]:
        everything = self._bound.where() if query is None else self._bound(query)
        return everything if where is None else everything.where(where)

    def _query(self, query: SearchQuery[E], **options: Any) -> SearchQuery[E]:
        where = options.pop("where", None)
        narrowed = query.with_options(**options)
        return narrowed if where is None else narrowed.where(where)

    def _rows(self, session: Session, ids: Sequence[str]) -> list[E]:
        return [self._row(session, id_) for id_ in ids]

    def _row(self, session: Session, id_: str) -> E:
        key = self._bound.definition.key
        parts = [id_] if len(key) == 1 else _array(id_)
        wanted = "the value of" if len(key) == 1 else "a JSON array of the texts of"
        unknown = UnknownDocument(f"{self.name} has no row {id_!r}; give {wanted} {_named(key)}")
        if len(parts) != len(key):
            raise unknown
        same = [
            column == sa.cast(sa.literal(str(part), sa.Text), column.type)
            for column, part in zip(key, parts, strict=True)
        ]
        try:
            with translated():
                row: E | None = session.scalar(sa.select(self._bound.mapper.class_).where(*same))
        except sa.exc.DataError:
            session.rollback()
            raise unknown from None
        if row is None:
            raise unknown
        return row


def table_search(engine: sa.Engine, space: Space, *, pinned: bool = False) -> TableSearch[Any]:
    """Return the search of a table as the catalog has it.

    Args:
        engine: Where the table is.
        space: The space that serves.
        pinned: Whether this very space is searched, whichever serves.

    Raises:
        InvalidQuery: The table has no primary key any more, or is gone.
    """
    with engine.connect() as connection:
        schema, name = connection.execute(_NAMES, {"source": space.source}).one()
        table = _reflected(connection, schema, name)
        reads = _trusted_reads(connection, space)
        fixed = (space, extra_spaces(connection, space)) if pinned else None
    row = type(name, (), {"__doc__": f"A row of {space.source}."})
    mapper: Mapper[Any] = registry().map_imperatively(row, table)
    definition = _definition(space, table)
    chunks, terms = definition.tables(table, table.metadata)
    definition = replace(definition, reads=reads)  # not the text of the catalog, which is its owner's to write
    bound: SearchBinding[Any] = SearchBinding(
        mapper, definition, chunks, terms, space.encoder, catalogued=True, pinned=fixed
    )
    with engine.connect() as connection:
        bound.searcher(connection).look(connection)
    return TableSearch(bound, lambda: Session(engine))


def _reflected(connection: sa.Connection, schema: str, name: str) -> sa.Table:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # of types that SQLAlchemy does not know
            table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
    except sa.exc.NoSuchTableError:
        raise InvalidQuery(f"table {schema}.{name} is gone; neural.unwatch removes its search") from None
    for column in table.columns:
        if isinstance(column.type, (sa.types.NullType, MONEY, DOMAIN)):
            column.type = _Named(connection.scalar(_TYPE, {"table": quoted_table(name, schema), "column": column.name}))
    if not table.primary_key:
        raise InvalidQuery(f"table {schema}.{name} has no primary key; give it one")
    return table


class _Named(sa.types.UserDefinedType[Any]):
    """A type that SQLAlchemy knows nothing of but its name."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """Return the name, as in SQL."""
        return self.name


def _definition(space: Space, table: sa.Table) -> SearchDefinition:
    """Return what a class would declare to have this search."""
    watched: Mapping[str, Sequence[str]] = space.watched
    return SearchDefinition(
        source=table.name,
        attribute=space.attribute,
        key=tuple(table.primary_key),
        reads=space.reads,
        encoder=space.encoder,
        dimensions=space.dimensions,
        watched=watched,
        options=space.options,
        distance=Distance(space.distance),
        storage=Storage(space.storage),
        index=VectorIndex.of(space.vector_index),
        max_tokens=space.max_tokens,
        overlap=space.overlap,
        language=space.language,
        title_boost=space.title_boost,
        sync=Sync.MANUAL,
        column=space.vector_column,
        schema=table.schema,
    )


def _trusted_reads(connection: sa.Connection, space: Space) -> str | None:
    """Return the SELECT of what is searchable, made anew of the numbers of its columns.

    That of the catalog is text of the table's owner, and would be executed with the rights of whoever searches. So
    would be a cast of the owner's: where a column is of a type of theirs, there is no such SELECT, and words are found
    when workers have indexed them.
    """
    if space.fields is None:
        return None
    numbers = [int(number) for number in space.fields.get("columns") or ()]
    language = space.fields.get("language")
    values = {"relation": space.relation, "numbers": numbers, "language": language}
    reads: str | None = connection.scalar(_READS, values)
    return reads


def _array(text: str) -> list[Any]:
    try:
        read = json.loads(text)
    except ValueError:
        return []
    return read if isinstance(read, list) else []


def _named(key: Sequence[sa.Column[Any]]) -> str:
    return ", ".join(column.name for column in key)


_TYPE = sa.text("""
SELECT format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = CAST(:table AS regclass) AND a.attname = :column""")

_NAMES = sa.text("SELECT x[1], x[2] FROM parse_ident(:source) x")

_READS = sa.text("""
WITH named AS (
    SELECT (SELECT array_agg(CAST(a.attname AS text) ORDER BY n.place)
              FROM unnest(CAST(:numbers AS int[])) WITH ORDINALITY AS n(number, place)
              JOIN pg_catalog.pg_attribute a
                   ON a.attrelid = CAST(:relation AS regclass) AND a.attnum = n.number) AS texts,
           (SELECT CAST(a.attname AS text) FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = CAST(:relation AS regclass) AND a.attnum = CAST(:language AS int)) AS language)
SELECT neural.reads_of(CAST(:relation AS regclass), n.texts, n.language)
  FROM named n
 WHERE n.texts IS NOT NULL AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = CAST(:relation AS regclass) AND t.typnamespace <> CAST('pg_catalog' AS regnamespace)
          AND a.attname = ANY (
              n.texts || n.language || CAST(neural.key_columns(CAST(:relation AS regclass)) AS text[])))
""")
