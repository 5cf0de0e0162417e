"""Counting the rows that a search is about: all of them, or by a value of theirs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pgneural.diversify import hashable
from pgneural.errors import InvalidQuery
from pgneural.filter import Expression, Filter, condition, expression, require_over, settled
from pgneural.options import page_of, text_of, with_arrays
from pgneural.search import filter_errors
from pgneural.statement import Target, facets, total
from pgneural.store.contained import require_contained


class Counting:
    """The rows, over one connection, that pass a filter and, if there is a text, match it by their words.

    Args:
        target: What is counted.
        connection: Where.
        query: With a phrase rows match that have it, or if there are none those with any of the words.
        where: The filter.
        noun: What a filter may use.

    Raises:
        InvalidFilter: PostgreSQL does not accept the filter or an expression.
        InvalidQuery: There is a text, and the source has no words.
    """

    def __init__(
        self, target: Target, connection: sa.Connection, query: str | None, where: Filter | None, noun: str
    ) -> None:
        if query is not None and target.terms is None:
            raise InvalidQuery("rows without words cannot be counted by them; leave the query out")
        self._target, self._connection, self._noun = target, connection, noun
        self._text = None if query is None else text_of(query)
        narrowed = condition(where)
        with filter_errors(narrowed is not None, "filter", noun):
            self._where = None if narrowed is None else with_arrays(self._contained(narrowed, "filter"))

    def total(self) -> int:
        """Return how many there are."""
        with filter_errors(self._where is not None, "filter", self._noun):
            return int(self._connection.scalar(total(self._target, self._text, self._where)) or 0)

    def facets(self, by: Expression, limit: int) -> dict[Any, int]:
        """Return how many there are of each value of an expression, the most frequent first."""
        counted = expression(by)
        with filter_errors(True, "filter or expression", self._noun):
            value = self._contained(counted, "expression")
            counting = facets(self._target, value, self._text, self._where, page_of(limit).limit)
            return {hashable(row[0]): row[1] for row in self._connection.execute(counting)}

    def _contained(self, clause: sa.ColumnElement[Any], what: str) -> sa.ColumnElement[Any]:
        clause = settled(clause, what)
        require_over(self._target.source, clause, what, functions=True)
        require_contained(self._connection, self._target.source, [(what, clause)])
        return clause
