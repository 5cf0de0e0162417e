"""The entities of a mapped class as the rows of a search: one statement gives them with their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql.base import ExecutableOption

from pgneural.errors import InvalidQuery
from pgneural.filter import require_over
from pgneural.orm.contract import ClassSearch
from pgneural.search import Hit, HitChunk, Hits
from pgneural.statement import Query, Target
from pgneural.store.contained import require_contained
from pgneural.store.vectors import teach

E = TypeVar("E")


class EntityRows(Generic[E]):
    """The entities of a class, over one session."""

    def __init__(
        self, search: ClassSearch[E], session: Session, revision: str, loading: Sequence[ExecutableOption]
    ) -> None:
        self._search, self._session, self._loading = search, session, loading
        self._statements = search.statements(revision, session)
        self.target = self._statements.target
        self.key, self.heading = search.key, search.heading

    def require(self, given: sa.ColumnElement[Any], what: str) -> None:
        """Refuse an expression that is not over the class, or that leaves its place."""
        require_over(self.target.source, given, what)
        connection = self._session.connection(bind_arguments={"mapper": self._search.mapper})
        require_contained(connection, self.target.source, [(what, given)])

    def execute(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of another statement."""
        return self._session.execute(statement, bind_arguments={"mapper": self._search.mapper}).all()

    def hits(self, query: Query) -> Hits[E]:
        """Run the statement of a search."""
        connection = self._session.connection(bind_arguments={"mapper": self._search.mapper})
        refuse_translated_schemas(connection)
        teach(connection)
        built, parameters = self._statements.get(query, connection)
        statement = built.statement.options(*self._loading) if self._loading else built.statement
        with self._search.installed():
            rows = self._session.execute(statement, parameters).unique(_rank).all()
        if query.where is None and (not rows or rows[0].ranked > len(rows)):
            # what is kept of rows that are gone has taken places: look each candidate's row up
            return self.hits(replace(query, where=sa.true()))
        if rows and rows[0].score is None:
            raise InvalidQuery("the rows to be like have no vectors yet; call sync()")
        legs = self.target.legs
        return Hits(
            [_hit(row, legs) for row in rows], limit=query.page.limit, strategy=rows[0].strategy if rows else ""
        )


def refuse_translated_schemas(connection: sa.Connection) -> None:
    """Refuse a ``schema_translate_map``, which does not reach the names of tables in functions and in the catalog.

    Raises:
        InvalidQuery: There is one.
    """
    if connection.get_execution_options().get("schema_translate_map"):
        raise InvalidQuery("a schema_translate_map does not reach the tables of a search; set the search_path instead")


def with_entities(mapper: Mapper[Any], target: Target, query: Query, *, whole: bool = False) -> sa.Select[Any]:
    """Join the ranked keys with their entities and their best chunks.

    Args:
        mapper: Of the class.
        target: What is searched.
        query: What is asked.
        whole: With everything that a hit has, and not only what a reader of rows wants.
    """
    ranked = query.select(target).subquery("ranked")
    if whole:
        ranked = sa.select(ranked, sa.func.count().over().label("ranked")).subquery("every")
    chunks = target.chunks
    if not isinstance(chunks, sa.Table):
        chunks = chunks.alias()
    same_chunk = sa.and_(target.same_row(chunks, ranked), chunks.c.ordinal == ranked.c.ordinal)
    same_row = sa.and_(*(column == ranked.c[name] for name, column in target.keys.items()))
    columns = [ranked.c.rank, ranked.c.score, *(ranked.c[leg] for leg in target.legs), ranked.c.relaxed]
    text = chunks.c.text.label("chunk")
    locator = chunks.c.locator if "locator" in chunks.c else sa.null().label("locator")
    boosts = [column for column in ranked.c if column.name.startswith("boost_")]
    rest = [ranked.c.ordinal, ranked.c.strategy, locator, ranked.c.ranked, *boosts] if whole else []
    return (
        sa.select(mapper.class_, *columns, text, *rest)
        .select_from(mapper.class_)
        .join(ranked, same_row)
        .outerjoin(chunks, same_chunk)
        .where(target.space.is_not(None) if isinstance(target.space, sa.ColumnElement) else sa.true())
        .where(*([] if whole else [ranked.c.score.is_not(None)]))  # rows to be like may have no vectors yet
        .order_by(ranked.c.rank)
    )


def _hit(row: Any, names: Sequence[str]) -> Hit[Any]:
    values = row._mapping
    legs = {leg: values[leg] for leg in names if values[leg] is not None}
    legs |= {name.replace("_", " "): values[name] for name in dict(values) if str(name).startswith("boost_")}
    chunk = HitChunk(row.ordinal, row.chunk or "", row.locator or {})
    return Hit(row[0], row.rank, row.score, chunk, legs, row.relaxed)


def _rank(row: Any) -> int:
    """Return what tells rows apart: an eagerly joined collection repeats them."""
    rank: int = row.rank
    return rank
