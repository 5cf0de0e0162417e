"""The documents of a collection as the rows of a search.

The statement ranks keys; the rows themselves are fetched with it, in the same query, so that a hit is one
consistent picture of its row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import instance_dict

from pgneural.errors import InvalidFilter, UnknownDocument
from pgneural.filter import Filter, condition, require_over, settled
from pgneural.search import Hit, HitChunk, Hits
from pgneural.space_target import legs_of, tokens_of
from pgneural.statement import Query, StatementCache, Target
from pgneural.store.catalog import chunks_per_row
from pgneural.store.contained import require_contained
from pgneural.store.failures import prepared_anew
from pgneural.store.schema import DOCUMENTS, Document, Space
from pgneural.store.space import indexed_of, terms_of
from pgneural.store.writer import among

MOST_PREPARED = 10
"""Statements that are built and run once before a client turns to another space: those of the shapes that came last."""

READ_ROWS = 50
"""Documents that are read at a time where all are wanted."""


class DocumentStatements:
    """The target of a collection, with its statements.

    What differs only in vector and text goes straight to the driver (`bench overhead`).
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.states = ["serving"]
        self._statements = StatementCache(target, lambda target, query: with_documents(target, query.select(target)))

    def rows(self, connection: sa.Connection, query: Query) -> Sequence[Sequence[Any]]:
        """Run the statement of a query; no rows where the space is in none of `states`."""
        built, parameters = self._statements.get(query, connection)
        parameters["neural_states"] = self.states
        driver: Any = connection.connection.dbapi_connection

        def execute() -> Sequence[Sequence[Any]]:
            if not built.ours:
                return connection.execute(built.statement, parameters).all()
            text, constants = built.text(connection.dialect)
            rows: list[tuple[Any, ...]] = driver.execute(text, {**constants, **parameters}).fetchall()
            return rows

        return prepared_anew(driver, execute)

    def serves(self, target: Target) -> bool:
        """Whether the statements are as good for what the target is by now."""
        here = self.target
        same = (here.space, here.tokens is None) == (target.space, target.tokens is None)
        vectors = zip(here.vectors, target.vectors, strict=False)
        return same and here.legs == target.legs and all(mine.like(theirs) for mine, theirs in vectors)

    def moved_to(self, target: Target, connection: sa.Connection) -> DocumentStatements:
        """Return the same for another space, with the statements for queries like those that were asked here."""
        other = DocumentStatements(target)
        vector = np.ones(target.dense.indexed.dimensions, dtype=np.float32)
        lead = target.dense.leg
        for query in self._statements.recent()[-MOST_PREPARED:]:
            with contextlib.suppress(DBAPIError, psycopg.Error, InvalidFilter):  # a filter that never worked
                other.rows(connection, query.with_inputs(**{lead: vector}) if lead in query.inputs else query)
        return other


@dataclass(frozen=True)
class DocumentRows:
    """The documents of a collection, over one connection."""

    searched: DocumentStatements
    connection: sa.Connection

    @property
    def target(self) -> Target:
        """What is searched."""
        return self.searched.target

    def require(self, clause: sa.ColumnElement[Any], what: str) -> None:
        """Refuse an expression that is not over documents, or that leaves its place."""
        require_over(DOCUMENTS, clause, what)
        require_contained(self.connection, DOCUMENTS, [(what, clause)])

    def execute(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of another statement."""
        return self.connection.execute(statement).all()

    def hits(self, query: Query) -> Hits[Document]:
        """Run the statement of a search."""
        rows = self.searched.rows(self.connection, query)
        strategy = rows[0][_STRATEGY] if rows else ""
        legs = self.target.legs
        return Hits([_hit(row, legs) for row in rows], limit=query.page.limit, strategy=strategy)

    def key(self, entity: Document) -> tuple[Any, ...]:
        """Return the primary key of a document."""
        return (entity.id,)

    def heading(self, entity: Document) -> str:
        """Return the title of a document."""
        return entity.title or ""


def target_of(connection: sa.Connection, space: Space, chunks: sa.Table, extra: Mapping[str, Space]) -> Target:
    """Return what is searched of a collection.

    Args:
        connection: Where.
        space: The space of the collection's vectors.
        chunks: Its chunk table.
        extra: The spaces of extra vectors, by kind.
    """
    per_row = chunks_per_row(connection, space)
    return Target(
        DOCUMENTS,
        legs_of(chunks, indexed_of(space), per_row, extra),
        terms_of(space),
        space.id,
        DOCUMENTS.c.collection == space.attribute,
        tokens_of(chunks, extra),
    )


def with_documents(target: Target, ranking: sa.Select[Any]) -> sa.Select[Any]:
    """Join the ranked keys with their documents and their best chunks; no rows if its space is in no such state."""
    ranked = ranking.subquery("ranked")
    states = target.parameter("states", ["serving"], ARRAY(sa.Text))
    chunks = target.chunks
    same_chunk = sa.and_(chunks.c.source_id == ranked.c.source_id, chunks.c.ordinal == ranked.c.ordinal)
    return (
        sa.select(*DOCUMENTS.c, *ranked.c, chunks.c.text, chunks.c.locator)
        .join_from(ranked, DOCUMENTS, DOCUMENTS.c.id == ranked.c.source_id)
        .outerjoin(chunks, same_chunk)
        .where(
            sa.exists().where(
                Space.id == target.space,
                Space.state == sa.func.any(states),
            )
        )
        .order_by(ranked.c.rank)
    )


_ATTRIBUTES = tuple(property_.key for property_ in sa.inspect(Document).column_attrs)
_RANKED = len(_ATTRIBUTES)  # where the columns of the ranking begin
_STRATEGY = _RANKED + 4


def _hit(row: Sequence[Any], names: Sequence[str]) -> Hit[Document]:
    """Turn a row of `with_documents` into a hit; the names are those of the target's legs."""
    rank, _, ordinal, score, _, relaxed, *scores = row[_RANKED:-2]
    legs = {leg: leg_score for leg, leg_score in zip(names, scores, strict=False) if leg_score is not None}
    for place, boost in enumerate(scores[len(names) :], start=1):
        legs[f"boost {place}"] = boost
    return Hit(_document(row), rank, score, HitChunk(ordinal, row[-2] or "", row[-1] or {}), legs, relaxed)


def _document(row: Sequence[Any]) -> Document:
    """Return the source row as an entity of no session, as if one had loaded it."""
    document = Document()
    instance_dict(document).update(zip(_ATTRIBUTES, row, strict=False))
    make_transient_to_detached(document)
    return document


def stored_keys(connection: sa.Connection, collection: str, external_ids: Sequence[str]) -> dict[str, tuple[int]]:
    """Return the key of each of these documents of a collection.

    Raises:
        UnknownDocument: There is none of one of these ids.
    """
    wanted = DOCUMENTS.c.collection == collection, among(DOCUMENTS.c.external_id, external_ids)
    rows = connection.execute(sa.select(DOCUMENTS.c.external_id, DOCUMENTS.c.id).where(*wanted))
    known = {external_id: (int(key),) for external_id, key in rows}
    for id_ in external_ids:
        if id_ not in known:
            raise UnknownDocument(f"collection {collection!r} has no document {id_!r}; index it first")
    return known


def stored_documents(
    connection: sa.Connection, collection: str, where: sa.ColumnElement[bool] | None, limit: int | None
) -> Iterator[Document]:
    """Yield documents of a collection in the order of their ids, some read at a time."""
    rows = sa.select(*DOCUMENTS.c).where(DOCUMENTS.c.collection == collection)
    rows = (rows if where is None else rows.where(where)).order_by(DOCUMENTS.c.external_id).limit(limit)
    with connection.execution_options(yield_per=READ_ROWS).execute(rows) as found:  # who reads may stop anywhere
        for row in found:
            yield _document(row)


def others(keys: Iterable[tuple[int]], where: Filter | None) -> sa.ColumnElement[bool]:
    """Return the filter that leaves out some documents."""
    rest = Document.id.not_in([key for (key,) in keys])
    narrowed = condition(where)
    return rest if narrowed is None else rest & narrowed


def contained(connection: sa.Connection, clause: sa.ColumnElement[Any], what: str = "filter") -> sa.ColumnElement[Any]:
    """Return an expression with parameters of its own, over documents and rows made of them, that keeps its place.

    Raises:
        InvalidFilter: It is none, or PostgreSQL cannot read it.
    """
    clause = settled(clause, what)
    require_over(DOCUMENTS, clause, what, functions=True)
    require_contained(connection, DOCUMENTS, [(what, clause)])
    return clause
