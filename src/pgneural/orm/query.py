"""One search as a value: it grows by its methods, and is a statement or hits when it is asked to be."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import LoaderCriteriaOption, Session, scoped_session
from sqlalchemy.sql.base import ExecutableOption

from pgneural.counting import Counting
from pgneural.errors import InvalidFilter, InvalidQuery
from pgneural.explain import Explanation, explain
from pgneural.filter import Expression, Filter, condition, read_by, require_plain
from pgneural.options import (
    QueryInput,
    SearchOptions,
    inputs_of,
    patience_of,
    query_of,
    refinement_of,
    require_legs,
    text_of,
    with_arrays,
)
from pgneural.orm.asynchronous import asynchronous
from pgneural.orm.contract import ClassSearch
from pgneural.orm.entities import with_entities
from pgneural.orm.rows import EntityRows
from pgneural.orm.searcher import ClassSearcher
from pgneural.query import Generative
from pgneural.search import Hit, Hits, RefinedSearch, Refinement, mean_vectors, run
from pgneural.statement import LEXICAL, Query, Target, one_of
from pgneural.store.engine import require_driver, translated
from pgneural.store.freshness import wait_until_fresh
from pgneural.transcribers.question import in_words
from pgneural.types import Media, Mode, Sync

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


E = TypeVar("E")

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Similar:
    """A query by stored rows: like some, unlike others."""

    positive: Sequence[Key]
    negative: Sequence[Key] = ()


@dataclass(frozen=True, eq=False)
class SearchQuery(Generative, Generic[E]):
    """A search of a mapped class.

    Immutable: every method returns another. Nothing is encoded or executed before `select`, `all` or `explain`.

    Attributes:
        search: What is searched.
        input: A text, a vector, several texts with weights, or stored rows; None where rows are only counted.
        search_options: Options, as of `pgneural.Collection.search`.
        conditions: The filter.
        loading: Loader options.
        pairs: Keys of rows in pairs: a hit is the better, the more pairs there are of which it is nearer to the first.
    """

    search: ClassSearch[E]
    input: QueryInput | Similar | None
    search_options: SearchOptions = field(default_factory=SearchOptions)
    conditions: tuple[sa.ColumnElement[bool], ...] = ()
    loading: tuple[ExecutableOption, ...] = ()
    pairs: tuple[tuple[Key, Key], ...] = ()

    def where(self, *conditions: Filter) -> SearchQuery[E]:
        """Narrow the rows: conditions over the class as in any ``Select``, or SQL predicates as text.

        They hold before anything is ranked. A condition on another class goes through a relationship
        (``Article.author.has(...)``) or a subquery. A text may have parameters,
        ``("lang = :lang", {"lang": "en"})``; what your users wrote belongs there, and not in the text.
        """
        return replace(self, conditions=(*self.conditions, *map(self._coerced, conditions)))

    def options(self, *options: ExecutableOption) -> SearchQuery[E]:
        """Load the entities with these options, for example ``selectinload(Article.author)``."""
        return replace(self, loading=(*self.loading, *options))

    def _coerced(self, filter_: Filter) -> sa.ColumnElement[bool]:
        found = condition(filter_)
        if found is None:
            raise InvalidFilter("the filter is None, expected a condition over the class, or SQL as text; leave it out")
        mapper = self.search.mapper
        mine = {table.fullname for table in mapper.tables}
        for table in read_by(found):
            if getattr(table, "fullname", None) not in mine:
                other = getattr(table, "name", table)
                raise InvalidQuery(
                    f"the filter is over another table, {other}; reach it through a relationship "
                    f"({mapper.class_.__name__}.other.has(...) or .any(...)) or a subquery"
                )
        return found

    def select(self) -> sa.Select[Any]:
        """Return an ordinary ``Select`` of the entity and the columns of its rank, to compose and to execute.

        A ``with_loader_criteria`` holds for the ranking itself if the search has a filter (`where`). Columns: the
        entity, ``rank`` from 1, ``score`` (larger is better), ``semantic`` and ``lexical`` (what each leg
        contributed), ``relaxed`` (whether it lacks a phrase that was asked for), ``chunk`` (the text of the
        best chunk). The rows come by rank. Conditions added to the ``Select`` hold after the ranking, those of `where`
        before.

        Raises:
            InvalidQuery: An option is of hits and not of a statement (`rerank`, `diverse`, `group_by`).
            InvalidFilter: A text has parts that only a server can read (a backslash, ``$``, a comment): others will
                execute the statement.
        """
        searcher = self.search.searcher()
        query = self.encoded(searcher)
        if self.pairs or refinement_of(query, self.search_options):
            raise InvalidQuery(
                "rerank, diverse, group_by and discover come after the statement; use all(), or leave them out"
            )
        for what, each in query.expressions():
            require_plain(each, what)
        target = searcher.target(self._revision(searcher), composed=True)
        return with_entities(self.search.mapper, target, query).options(*self.loading)

    @overload
    def all(self, session: Session) -> Hits[E]: ...
    @overload
    def all(self, session: AsyncSession) -> Awaitable[Hits[E]]: ...
    def all(self, session: Session | AsyncSession) -> Hits[E] | Awaitable[Hits[E]]:
        """Search, and return the hits, best first; with an `AsyncSession`, await them.

        Never short: as many as `limit` if so many rows pass the filter, otherwise all, and ``exhausted`` is true.

        Raises:
            InvalidQuery: An option is out of range, or does not go with the others.
            InvalidFilter: PostgreSQL does not accept the filter.
            EncoderMismatch: Another revision of the encoder made the stored vectors.
            StaleResults: `fresh` was asked for, and rows are not encoded in time.
            SchemaNotInstalled: The database has no such search.
        """
        if asynchronous(session):
            return session.run_sync(self.all)
        if isinstance(session, scoped_session):
            session = session()
        if not isinstance(session, Session):
            raise InvalidQuery(f"{type(session).__name__} is no session; give one, or execute select() on a connection")
        connection = session.connection(bind_arguments={"mapper": self.search.mapper})
        require_driver(connection)
        if self.search.definition.sync is Sync.INLINE:
            self.search.sync_own(self.search.connected(session))
        searcher = self.search.searcher(connection)
        with translated():
            searcher.look(connection)
            if (patience := patience_of(self.search_options)) is not None:
                wait_until_fresh(connection, self.search.space(connection).id, patience, repr(self.search))
            return searcher.answer(lambda: self._hits(session, searcher), lambda: searcher.refresh(connection))

    def _hits(self, session: Session, searcher: ClassSearcher) -> Hits[E]:
        query = searcher.with_tokens(self._filtered(session, searcher), self.search_options)
        rows = EntityRows(self.search, searcher, session, self._revision(searcher), self.loading)
        if refinement := self._refinement(query, rows.target, self.search.connected(session)):
            return RefinedSearch(rows, query, refinement).hits()
        return run(rows, query, f"the columns of {self.search.definition.source}")

    def _refinement(self, query: Query, target: Target, connection: sa.Connection) -> Refinement | None:
        refinement = refinement_of(query, self.search_options)
        if not self.pairs:
            return refinement
        known = mean_vectors(target, connection, [key for pair in self.pairs for key in pair])
        context = np.array([[known[good], known[bad]] for good, bad in self.pairs], dtype=np.float32)
        return replace(refinement or Refinement(), context=context)

    def _filtered(self, session: Session, searcher: ClassSearcher) -> Query:
        query = self.encoded(searcher)
        if query.where is None and self._may_have_criteria(session):
            return replace(query, where=sa.true())  # so that each candidate's row is looked up
        return query

    @overload
    def first(self, session: Session) -> Hit[E] | None: ...
    @overload
    def first(self, session: AsyncSession) -> Awaitable[Hit[E] | None]: ...
    def first(self, session: Session | AsyncSession) -> Hit[E] | Awaitable[Hit[E] | None] | None:
        """Return the best hit, or None."""
        if asynchronous(session):
            return session.run_sync(self.first)
        return next(iter(self.limit(1).all(session)), None)

    @overload
    def facets(self, session: Session, by: Expression, limit: int = 20) -> dict[Any, int]: ...
    @overload
    def facets(self, session: AsyncSession, by: Expression, limit: int = 20) -> Awaitable[dict[Any, int]]: ...
    def facets(
        self, session: Session | AsyncSession, by: Expression, limit: int = 20
    ) -> dict[Any, int] | Awaitable[dict[Any, int]]:
        """Count the rows that pass the filter by the value of an expression, the most frequent first.

        Of a query by text only rows that match it by their words are counted: a phrase, or any of the words.

        Args:
            session: Where; with an `AsyncSession`, await the counts.
            by: An expression over the class, or SQL as text as of `where`.
            limit: How many values.

        Raises:
            InvalidFilter: PostgreSQL does not accept the filter or the expression.

        Example:
            >>> Article.search("foxes").facets(session, Article.title)
            {'Foxes': 1}
        """
        if asynchronous(session):
            return session.run_sync(lambda synchronous: self._counting(synchronous).facets(by, limit))
        return self._counting(session).facets(by, limit)

    @overload
    def total(self, session: Session) -> int: ...
    @overload
    def total(self, session: AsyncSession) -> Awaitable[int]: ...
    def total(self, session: Session | AsyncSession) -> int | Awaitable[int]:
        """Count the rows that pass the filter and, of a query by text, match it by their words; as of `facets`."""
        if asynchronous(session):
            return session.run_sync(lambda synchronous: self._counting(synchronous).total())
        return self._counting(session).total()

    def _counting(self, session: Session) -> Counting:
        connection = self.search.connected(session)
        text = text_of(self.input) if isinstance(self.input, (str, Mapping)) and self.search.terms is not None else None
        where, noun = self._where(self.input), f"the columns of {self.search.definition.source}"
        searcher = self.search.searcher(connection)
        with translated(), self.search.installed(searcher):
            searcher.look(connection)
            return Counting(searcher.target(), connection, text, where, noun)

    @overload
    def explain(self, session: Session) -> Explanation: ...
    @overload
    def explain(self, session: AsyncSession) -> Awaitable[Explanation]: ...
    def explain(self, session: Session | AsyncSession) -> Explanation | Awaitable[Explanation]:
        """Search, and say what the search did: the way it took and why, what each stage cost."""
        if asynchronous(session):
            return session.run_sync(self.explain)
        connection = self.search.connected(session)
        searcher = self.search.searcher(connection)
        query = self.encoded(searcher)
        if self.pairs or refinement_of(query, self.search_options):
            raise InvalidQuery("explain is of the statement; leave rerank, diverse and group_by out")
        hits: Any = self.all(session)  # which may find that another space answers
        with translated():
            return explain(connection, searcher.target(self._revision(searcher)), self.encoded(searcher), hits)

    def _may_have_criteria(self, session: Session) -> bool:
        """Whether ``with_loader_criteria`` may narrow the rows: by an option, or by a listener of the session."""
        listening = bool(session.dispatch.do_orm_execute)
        return listening or any(isinstance(option, LoaderCriteriaOption) for option in self.loading)

    def _revision(self, searcher: ClassSearcher) -> str:
        """Return the revision of the encoder, where it made the vector of the query."""
        question = inputs_of(self.search_options).get("semantic", self.input)
        encoded = isinstance(question, (str, Mapping, Media)) and "semantic" in self.encoded(searcher).inputs
        return searcher.encoder.revision if encoded else ""

    def encoded(self, searcher: ClassSearcher) -> Query:
        """Return the query with its vector: encoded once for each space, however often it is executed."""
        known: dict[Any, Query] = self.__dict__.setdefault("_by_space", {})
        while True:
            state = searcher.state
            query = known[searcher, state] if (searcher, state) in known else self._encode(searcher)
            if searcher.state == state:
                return known.setdefault((searcher, state), query)

    def _encode(self, searcher: ClassSearcher) -> Query:
        question = self.input
        if question is None:
            raise InvalidQuery("the query is None; give a text, a vector, or a row")
        if not isinstance(question, Similar):
            question = in_words(question, lambda modality: modality in searcher.encoder.modalities)
        text: QueryInput = question if not isinstance(question, Similar) else np.empty(0, dtype=np.float32)
        mode = self.search_options.get("mode") or self._mode(question)
        query, inputs = query_of(text, {**self.search_options, "mode": mode}), inputs_of(self.search_options)
        if self.search.terms is None and query.mode is not Mode.SEMANTIC:
            raise InvalidQuery(f"{self.search!r} has no words; search it with mode semantic")
        query = replace(query, where=self._where(question))
        if isinstance(question, Similar):
            query = query.with_inputs(semantic=self._mean(question, searcher))
            require_legs(inputs, query)
            return query
        return searcher.encoded(query, question, self.search_options)

    def _mode(self, question: Any) -> Mode:
        texts = text_of(question) is not None or LEXICAL in inputs_of(self.search_options)
        worded = texts and self.search.terms is not None
        return Mode.HYBRID if worded else Mode.SEMANTIC

    def _where(self, question: QueryInput | Similar | None) -> sa.ColumnElement[bool] | None:
        conditions = [*self.conditions]
        if (restricted := self.search.restricted()) is not None:
            conditions.append(restricted)
        examples = {key for pair in self.pairs for key in pair}
        if isinstance(question, Similar):
            examples |= {*question.positive, *question.negative}
        if examples:
            conditions.append(sa.not_(one_of(list(self.search.definition.key), sorted(examples, key=str))))
        return with_arrays(sa.and_(*conditions)) if conditions else None

    def _mean(self, question: Similar, searcher: ClassSearcher) -> sa.ColumnElement[Any]:
        """Return the vector of rows like some and unlike others, as SQL (Rocchio 1971, with equal weights)."""
        target, indexed = searcher.target(), searcher.indexed
        chunks = target.chunks.alias()

        def mean(keys: Sequence[Key]) -> sa.ColumnElement[Any]:
            wanted = one_of(target.keys_of(chunks), keys)
            return sa.select(sa.func.avg(chunks.c.embedding)).where(wanted).scalar_subquery()

        liked = mean(question.positive)
        vector = liked.op("+")(liked).op("-")(mean(question.negative)) if question.negative else liked
        return sa.cast(vector, indexed.storage.type(indexed.dimensions))
