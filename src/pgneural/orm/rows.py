"""The entities of a mapped class as the rows of a search: one statement gives them with their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption

from pgneural.errors import InvalidQuery
from pgneural.filter import require_over
from pgneural.orm.contract import ClassSearch
from pgneural.orm.entities import hits_of
from pgneural.orm.searcher import ClassSearcher
from pgneural.search import Hits
from pgneural.statement import Query
from pgneural.store.contained import require_contained
from pgneural.store.vectors import teach

E = TypeVar("E")


class EntityRows(Generic[E]):
    """The entities of a class, over one session."""

    def __init__(
        self,
        search: ClassSearch[E],
        searcher: ClassSearcher,
        session: Session,
        revision: str,
        loading: Sequence[ExecutableOption],
    ) -> None:
        self._search, self._searcher, self._session, self._loading = search, searcher, session, loading
        self._statements = searcher.statements(revision, self._connection)
        self.target = self._statements.target
        self.key, self.heading = search.key, search.heading

    def require(self, clause: sa.ColumnElement[Any], what: str) -> None:
        """Refuse an expression that is not over the class, or that leaves its place."""
        require_over(self.target.source, clause, what)
        require_contained(self._connection, self.target.source, [(what, clause)])

    def execute(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of another statement."""
        return self._session.execute(statement, bind_arguments={"mapper": self._search.mapper}).all()

    def hits(self, query: Query) -> Hits[E]:
        """Run the statement of a search."""
        connection = self._connection
        refuse_translated_schemas(connection)
        teach(connection)
        built, parameters = self._statements.get(query, connection)
        statement = built.statement.options(*self._loading) if self._loading else built.statement
        with self._search.installed(self._searcher):
            rows = self._session.execute(statement, parameters).unique(_rank).all()
        if query.where is None and (not rows or rows[0].ranked > len(rows)):
            # what is kept of rows that are gone has taken places: look each candidate's row up
            return self.hits(replace(query, where=sa.true()))
        if rows and rows[0].score is None:
            raise InvalidQuery("the rows to be like have no vectors yet; call sync()")
        strategy = rows[0].strategy if rows else ""
        return Hits(hits_of(rows, self.target.legs), limit=query.page.limit, strategy=strategy)

    @property
    def _connection(self) -> sa.Connection:
        return self._session.connection(bind_arguments={"mapper": self._search.mapper})


def refuse_translated_schemas(connection: sa.Connection) -> None:
    """Refuse a ``schema_translate_map``, which does not reach the names of tables in functions and in the catalog.

    Raises:
        InvalidQuery: There is one.
    """
    if connection.get_execution_options().get("schema_translate_map"):
        raise InvalidQuery("a schema_translate_map does not reach the tables of a search; set the search_path instead")


def _rank(row: Any) -> int:
    """Return what tells rows apart: an eagerly joined collection repeats them."""
    rank: int = row.rank
    return rank
