"""The bounded look at a filter that decides how the legs go about it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pgneural.statement.target import Target, constant, count, scalar

EXACT_CHUNKS = 2000
"""While the rows that pass the filter have no more chunks than this, they are compared one by one, which cannot
miss any; `bench search` shows the latency on either side of the bound."""


class Probe:
    """The keys of the rows that pass a filter, up to one more than would be compared one by one or asked for.

    Attributes:
        keys: CTE ``probe``: the keys.
        passing: How many they are; beyond the bound, the bound and one. Without a filter it is seldom needed, and
            then not counted.
        few: Whether the keys are all there are, and few enough to be compared one by one.
    """

    def __init__(
        self, target: Target, where: sa.ColumnElement[bool] | None, wanted: int, *, by_words: bool = False
    ) -> None:
        self.target, self.where = target, where
        exact_rows = max(int(EXACT_CHUNKS / target.dense.per_row), 1)
        self.keys = target.named(self._keys(by_words).limit(constant(max(exact_rows, wanted) + 1)), "probe")
        self.passing = scalar(target.named(count(self.keys), "passing").c.n)
        self.few = self._few(exact_rows, by_words)

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return what a row of the source must meet."""
        return [part for part in (self.target.scope, self.where) if part is not None]

    def rows(self) -> sa.Subquery:
        """Return the keys of all rows that pass.

        A filter that is written as text finds its columns in the source alone, whatever the rows are joined with.
        """
        return self._passing().subquery("passing_rows")

    def passes(self, table: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        """Return the filter on the source as a condition on a row of another table.

        It looks the source row up by its key: a subquery and not a join, because a join may lose the index that
        the other table is scanned by.
        """
        if self.where is None:
            return []
        target = self.target
        row = sa.select(self.where).select_from(target.rows).where(target.same_row(table, target.source))
        return [row.correlate(table).scalar_subquery()]

    def _few(self, exact_rows: int, by_words: bool) -> sa.ColumnElement[bool]:
        """Without a filter, look only whether there is one more row than would be compared one by one."""
        if self.where is not None:
            return self.passing <= exact_rows
        beyond = self._every_row(by_words).offset(constant(exact_rows)).limit(constant(1)).subquery("beyond")
        return scalar(self.target.named(count(beyond), "many").c.n) == 0

    def _every_row(self, by_words: bool) -> sa.Select[Any]:
        """Return the keys of all rows that can be found: those with words, or those with a first chunk."""
        target = self.target
        if by_words:
            return sa.select(*target.keys_of(target.words))
        return sa.select(*target.keys_of(target.chunks)).where(target.chunks.c.ordinal == 0)

    def _keys(self, by_words: bool) -> sa.Select[Any]:
        return self._every_row(by_words) if self.where is None else self._passing()

    def _passing(self) -> sa.Select[Any]:
        keys = (column.label(name) for name, column in self.target.keys.items())
        return sa.select(*keys).select_from(self.target.rows).where(*self.conditions())
