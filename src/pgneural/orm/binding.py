"""What a mapped class has for each of its `Searchable`s."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Mapper, Session, scoped_session

from pgneural import encoders
from pgneural.encoders.permitted import permitted
from pgneural.errors import InvalidQuery, SchemaNotInstalled, TransactionConflict
from pgneural.filter import Expression, Filter
from pgneural.ingest.job import drain
from pgneural.ingest.transaction import TransactionalSync
from pgneural.load import read_question
from pgneural.options import QueryInput
from pgneural.orm.asynchronous import asynchronous
from pgneural.orm.declaration import single_table_condition
from pgneural.orm.query import SearchQuery, Similar
from pgneural.orm.searcher import ClassSearcher
from pgneural.query import Query
from pgneural.report import Report
from pgneural.store import queue
from pgneural.store.definition import SearchDefinition
from pgneural.store.engine import quoted_table, require_driver, translated
from pgneural.store.failures import sqlstate
from pgneural.store.schema import Space
from pgneural.store.space import read_spaces
from pgneural.store.space_tables import SpaceTables
from pgneural.store.vectors import Storage
from pgneural.types import Encoder, Mode

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sqlalchemy.ext.asyncio import AsyncSession

E = TypeVar("E")

_NOTHING_WRITTEN = sa.text("SELECT pg_current_xact_id_if_assigned() IS NULL")
"""Of a transaction: then it has changed no row, and may be one that only reads."""


class SearchBinding(Generic[E]):
    """One search of one mapped class: ask it, and keep it up to date.

    Attributes:
        mapper: The mapper of the class.
        definition: What its `Searchable` says.
        model_chunks: The chunk table of the models; None where the vectors are in a column.
        terms: The table of its words; None for a search without words.
    """

    def __init__(
        self,
        mapper: Mapper[Any],
        definition: SearchDefinition,
        chunks: sa.Table | None,
        terms: sa.Table | None,
        encoder: str | Path | Encoder,
        *,
        title: str | None = None,
        parent: SearchBinding[Any] | None = None,
        catalogued: bool = False,
        pinned: tuple[Space, dict[str, Space]] | None = None,
    ) -> None:
        self.mapper, self.definition, self.model_chunks, self.terms = mapper, definition, chunks, terms
        self._encoder, self._title, self._parent, self._catalogued = encoder, title, parent, catalogued
        self._searchers: weakref.WeakKeyDictionary[sa.Pool, ClassSearcher] = weakref.WeakKeyDictionary()
        self._latest = ClassSearcher(self, pinned)
        self._pinned = pinned is not None

    def __repr__(self) -> str:
        return f"<search {self.mapper.class_.__name__}.{self.definition.attribute}, {self.definition.encoder}>"

    def __call__(self, query: QueryInput | Query | E) -> SearchQuery[E]:
        """Return the search for a text, a vector, several texts with weights, a `pgneural.Query`, or a stored row.

        Nothing is encoded or executed yet.
        """
        if isinstance(query, Query):
            query_of_class: SearchQuery[E] = SearchQuery(self, query.input, query.search_options)
            return query_of_class.where(*query.conditions)
        if isinstance(query, self.mapper.class_):
            return self.like(query)
        return SearchQuery(self, read_question(query))

    def like(self, entity: E) -> SearchQuery[E]:
        """Return the search for rows near a stored one, which is not among them."""
        return self.recommend([entity])

    def recommend(self, positive: Sequence[E], negative: Sequence[E] = ()) -> SearchQuery[E]:
        """Return the search for rows near some and far from others, none of which is among them.

        As of `pgneural.Collection.recommend`; the vectors are read by the search itself.

        Raises:
            InvalidQuery: There is no positive one, or the vectors have no mean.
        """
        if not positive:
            raise InvalidQuery("recommend needs a positive row at least; give one")
        if self.definition.storage not in (Storage.VECTOR, Storage.HALFVEC):
            raise InvalidQuery(f"vectors of type {self.definition.storage} have no mean; search with a vector")
        keys = ([self.key(entity) for entity in positive], [self.key(entity) for entity in negative])
        return SearchQuery(self, Similar(*keys))

    def discover(self, target: QueryInput | E | None, context: Sequence[tuple[E, E]]) -> SearchQuery[E]:
        """Return the search for rows on the right side of pairs of examples, and among these the nearest to a target.

        As of `pgneural.Collection.discover`; the examples are not among the hits.

        Args:
            target: As of a search; None for what is like the first of each pair.
            context: Stored rows, in pairs of a good and a bad example.

        Raises:
            InvalidQuery: There is no pair.
        """
        if not context:
            raise InvalidQuery("discover needs a pair of examples at least; give a good and a bad row")
        pairs = tuple((self.key(good), self.key(bad)) for good, bad in context)
        query = self.recommend([good for good, _ in context]) if target is None else self(target)
        return replace(query, pairs=pairs)

    @overload
    def facets(self, session: Session, by: Expression, limit: int = 20) -> dict[Any, int]: ...
    @overload
    def facets(self, session: AsyncSession, by: Expression, limit: int = 20) -> Awaitable[dict[Any, int]]: ...
    def facets(
        self, session: Session | AsyncSession, by: Expression, limit: int = 20
    ) -> dict[Any, int] | Awaitable[dict[Any, int]]:
        """Count all rows of the class by the value of an expression; a query (`SearchQuery.facets`) narrows them."""
        return self._everything.facets(session, by, limit)

    @overload
    def total(self, session: Session) -> int: ...
    @overload
    def total(self, session: AsyncSession) -> Awaitable[int]: ...
    def total(self, session: Session | AsyncSession) -> int | Awaitable[int]:
        """Count all rows of the class; a query (`SearchQuery.total`) narrows them."""
        return self._everything.total(session)

    def where(self, *conditions: Filter) -> SearchQuery[E]:
        """Return what has `facets` and a `total` of the rows that pass a filter; it asks for nothing."""
        return self._everything.where(*conditions)

    @property
    def _everything(self) -> SearchQuery[E]:
        return SearchQuery(self, None)

    @property
    def modes(self) -> Sequence[Mode]:
        """The modes in which it can be searched, as it was known a moment ago: sparse only with sparse vectors."""
        if self.terms is None:
            return [Mode.SEMANTIC]
        return [mode for mode in Mode if mode is not Mode.SPARSE or "sparse" in self.searcher().extra]

    @property
    def chunks(self) -> sa.Table:
        """The chunk table, for statements of your own.

        Raises:
            InvalidQuery: The class has its vectors in a column.
        """
        if self.model_chunks is None:
            raise InvalidQuery(f"{self!r} has its vectors in column {self.definition.column!r}; there are no chunks")
        return self.model_chunks

    @property
    def related(self) -> InstrumentedAttribute[Any]:
        """The relationship to the chunks, ``<attribute>_chunks``, for joins and loader options."""
        found: InstrumentedAttribute[Any] = getattr(self.mapper.class_, f"{self.definition.attribute}_chunks")
        return found

    def of(self, mapper: Mapper[Any]) -> SearchBinding[Any]:
        """Return the same search over the rows of a child class."""
        models = self.model_chunks, self.terms
        return SearchBinding(mapper, self.definition, *models, self._encoder, title=self._title, parent=self)

    @property
    def declaring(self) -> Mapper[Any]:
        """The mapper of the class that declares the search."""
        return self._parent.declaring if self._parent is not None else self.mapper

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder; loading it may take seconds. Searches with the same encoder and options share it."""
        if self._parent is not None:
            return self._parent.encoder
        if not isinstance(self._encoder, (str, Path)):
            return self._encoder
        if self._catalogued:  # only the database names it
            return permitted(self.definition.encoder, **self.definition.options)
        return encoders.get(self.definition.encoder, **self.definition.options)

    @property
    def encoder_is_loaded(self) -> bool:
        """Whether it was needed already."""
        return "encoder" in self.__dict__ or self._parent is not None

    def searcher(self, connection: sa.Connection | None = None) -> ClassSearcher:
        """Return what is known of the search in the database of a connection; without one, in that asked last.

        A program may have several databases with the same class, as tenants have, or tests.
        """
        if connection is None or self._pinned:
            return self._latest
        pool = connection.engine.pool
        if pool not in self._searchers:
            self._searchers[pool] = ClassSearcher(self)
        self._latest = self._searchers[pool]
        return self._latest

    @property
    def query_encoder(self) -> Encoder:
        """The encoder of the space that answers, whatever the class says."""
        return self.searcher().encoder

    @property
    def scope(self) -> sa.ColumnElement[bool] | None:
        """A condition that every row of the search meets, whichever class it is of."""
        return single_table_condition(self.mapper) if self._parent is None else None

    def key(self, entity: Any) -> tuple[Any, ...]:
        """Return the primary key of a row, in the order of the table's.

        Raises:
            InvalidQuery: It is no row of the class.
        """
        if not isinstance(entity, self.declaring.class_):
            raise InvalidQuery(f"{entity!r} is no {self.declaring.class_.__name__}, whose search this is")
        properties = (self.mapper.get_property_by_column(column) for column in self.definition.key)
        return tuple(getattr(entity, property_.key) for property_ in properties)

    def heading(self, entity: Any) -> str:
        """Return the title of a row, where it is an attribute."""
        return str(getattr(entity, self._title, None) or "") if self._title else ""

    def restricted(self) -> sa.ColumnElement[bool] | None:
        """Return the condition that a row of the search is one of the class; None where every row is."""
        if self._parent is None:
            return None
        condition = single_table_condition(self.mapper)
        if condition is None and isinstance(self.mapper.local_table, sa.Table):
            return next(iter(self.mapper.local_table.primary_key)).is_not(None)
        return condition

    @overload
    def sync(self, where: Session | sa.Connection | sa.Engine) -> Report: ...
    @overload
    def sync(self, where: AsyncSession) -> Awaitable[Report]: ...
    def sync(self, where: Any) -> Report | Awaitable[Report]:
        """Encode the rows that changed, and index their words.

        Args:
            where: A session or a connection: all in its transaction, which the caller commits. An engine: each batch
                in a transaction of its own, and nothing is encoded inside of one; it may be stopped anywhere.

        Raises:
            EncoderMismatch: Another revision of the encoder made the vectors that are there.
            SchemaNotInstalled: The database has no such search; its migrations make it.

        Example:
            >>> Article.search.sync(session).rows
            2
        """
        if asynchronous(where):
            return where.run_sync(self.sync)
        if self.terms is None:
            return Report()
        if isinstance(where, sa.Engine):
            with translated():
                with where.begin() as connection:
                    tables = self.space_tables(self.connected(connection))
                return drain(where, tables, lambda: self.searcher().encoder_of(tables.space))
        with translated():
            connection = self.connected(where)
            tables = self.space_tables(connection)
            return TransactionalSync(tables, lambda: self.searcher().encoder_of(tables.space)).within(connection)

    def connected(self, where: Any) -> sa.Connection:
        """Return the connection of a session, whose changes are flushed, or the connection itself.

        Raises:
            InvalidQuery: It is neither.
        """
        if isinstance(where, scoped_session):
            where = where()
        if isinstance(where, Session):
            where.flush()
            where = where.connection(bind_arguments={"mapper": self.mapper})
        if not isinstance(where, sa.Connection):
            raise InvalidQuery(f"{type(where).__name__} is no place to work in; give a session or a connection")
        require_driver(where)
        return where

    def sync_own(self, connection: sa.Connection) -> Report:
        """Encode the rows that the transaction of a connection has changed itself."""
        with translated():
            if connection.scalar(_NOTHING_WRITTEN):
                return Report()
            tables = self.space_tables(connection)
            return TransactionalSync(tables, lambda: self.searcher().encoder_of(tables.space)).within(
                connection, own=True
            )

    @overload
    def pending(self, where: Session | sa.Connection) -> int: ...
    @overload
    def pending(self, where: AsyncSession) -> Awaitable[int]: ...
    def pending(self, where: Any) -> int | Awaitable[int]:
        """Return how many rows are to be encoded; with an `AsyncSession`, await it."""
        if asynchronous(where):
            return where.run_sync(self.pending)
        connection = self.connected(where)
        return queue.waiting(connection, self.space(connection).id)

    @contextlib.contextmanager
    def installed(self, searcher: ClassSearcher) -> Iterator[None]:
        """Say so where something fails because the database has no such search, or no longer what was known of it.

        Raises:
            SchemaNotInstalled: It has no such search.
            TransactionConflict: Tables were dropped or renamed a moment ago.
        """
        try:
            yield
        except sa.exc.DBAPIError as error:
            if sqlstate(error) != "42P01" or self.definition.name not in str(error.orig):
                raise
            searcher.forget()
            if searcher.resolved.space is None or searcher.resolved.is_usual:
                raise self._missing() from error
            raise TransactionConflict(f"the tables of {self!r} were changed a moment ago; search again") from error

    def _missing(self) -> SchemaNotInstalled:
        return SchemaNotInstalled(
            f"the database has no search {self.definition.attribute!r} of table {self.definition.source}; "
            "upgrade it: its migrations make it with op.create_search"
        )

    def space(self, connection: sa.Connection) -> Space:
        """Return the row of the search in ``neural.spaces``.

        Raises:
            SchemaNotInstalled: The database has no such search.
        """
        source = sa.func.to_regclass(quoted_table(self.definition.source, self.definition.schema))
        found = Space.source == sa.func.neural.qualified(source), Space.attribute == self.definition.attribute
        wanted = *found, Space.kind == "dense", Space.state == "serving"
        for space in read_spaces(connection, *wanted):
            return space
        raise self._missing()

    def space_tables(self, connection: sa.Connection) -> SpaceTables:
        """Return the tables of the space that serves; errors are those of `space`."""
        return SpaceTables.of(connection, self.space(connection))
