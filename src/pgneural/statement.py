"""Saying a search: one ``Select`` that chooses its own strategy. Nothing here executes.

The statement's parts, in reading order (each a CTE, design 5.1)::

    settings  how far an index scan may go; local to the transaction
    probe     the keys of the rows that pass the filter, up to one more than would be compared or asked for
    near      more pass than that: the vector index, filtered by looking up each candidate's row
    exact     no more pass: their true distances, one by one
    fallback  near came back short: the true distance of every row that passes

Then the best chunk of each row, and the k best rows. A branch that is not wanted hides behind a
condition without columns, which PostgreSQL evaluates once before it touches the branch's tables. The
filter of ``near`` is a subquery on the source's key and not a join, because a join may lose the index.
The exact branches never order by the bare distance expression, because the planner might then take the
vector index after all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import distinct_on

from pgneural.store.schema import source_columns
from pgneural.types import Distance, Vector

EXACT_CHUNKS = 2000
"""While the rows that pass the filter have no more chunks than this, they are compared one by one, which cannot
miss any; `bench search` shows the latency on either side of the bound."""

EF_SEARCH = 100
"""Candidates that one pass of an HNSW scan keeps, ten for each of the usual ten hits; pgvector's default is 40."""

WINDOW = 4
"""Candidates taken for each row asked for, so that near ones found late still count."""

MAX_SCAN_TUPLES = 20_000
"""Where an index scan gives up and the fallback begins: pgvector's default."""


@dataclass(frozen=True)
class VectorSearch:
    """What to search: a source table, one of its chunk tables, and how its vectors are compared.

    Attributes:
        source: The table whose rows are wanted.
        chunks: Its chunk table.
        distance: How vectors are compared.
        scope: A condition on the source that every row of the chunk table meets; it is left out of
            the index scan. For a collection: its name.
        chunks_per_row: How many chunks a source row has on average, at least 1.
    """

    source: sa.Table
    chunks: sa.Table
    distance: Distance
    scope: sa.ColumnElement[bool] | None = None
    chunks_per_row: float = 1.0


def nearest(
    search: VectorSearch, vector: Vector, *, k: int, where: sa.ColumnElement[bool] | None = None
) -> sa.Select[Any]:
    """Return the statement that finds the k nearest source rows under a filter.

    It never comes back short: k distinct rows if k pass the filter, otherwise all that do. Columns:
    the key of the source row as ``source_…``, ``ordinal`` of its best chunk, ``distance``, ``score``
    (larger is better) and ``strategy`` (``exact``, ``near`` or ``fallback``).

    Args:
        search: What to search.
        vector: The query, shape (d,).
        k: How many rows are wanted.
        where: A condition over the source's columns, as in any ``Select``.
    """
    return _Parts(search, vector, k, where).select()


class _Parts:
    """The CTEs of one statement, in the order of the module docstring."""

    def __init__(self, search: VectorSearch, vector: Vector, k: int, where: sa.ColumnElement[bool] | None) -> None:
        self.search, self.k, self.where = search, k, where
        self.exact_rows = max(int(EXACT_CHUNKS / search.chunks_per_row), 1)
        self.source, self.chunks = search.source, search.chunks
        self.keys = source_columns(search.source)
        self.distance = self._distance(vector)
        self.settings = self._settings()
        self.probe = self._probe()
        self.passing = _materialized(_count(self.probe), "passing")
        self.few = _scalar(self.passing.c.n) <= self.exact_rows
        self.near = self._near()
        self.found = _materialized(_count(self._rows_found()), "found")
        self.short = _scalar(self.found.c.n) < sa.func.least(self.k, _scalar(self.passing.c.n))
        self.exact = self._exact()
        self.fallback = self._fallback()

    def select(self) -> sa.Select[Any]:
        """Return the k best rows, each by its best chunk."""
        branches = [sa.select(branch) for branch in (self.near, self.exact, self.fallback)]
        every = sa.union_all(*branches).subquery("candidates")
        keys = [every.c[name] for name in self.keys]
        best = (
            sa.select(every).ext(distinct_on(*keys)).order_by(*keys, every.c.distance, every.c.ordinal).subquery("best")
        )
        metric = self.search.distance.value
        strategy = sa.case((self.few, "exact"), (self.short, "fallback"), else_="near")
        return (
            sa.select(
                best,
                sa.func.neural.score(best.c.distance, metric, type_=sa.Float).label("score"),
                strategy.label("strategy"),
            )
            .order_by(best.c.distance, *(best.c[name] for name in self.keys))
            .limit(self.k)
        )

    def _distance(self, vector: Vector) -> sa.ColumnElement[float]:
        text = "[" + ",".join(map(str, np.asarray(vector, dtype=np.float32).tolist())) + "]"
        query = sa.cast(sa.bindparam("query", text, sa.String), VECTOR(len(vector)))
        operator = self.chunks.c.embedding.op(self.search.distance.operator, return_type=sa.Float())
        return operator(query)

    def _settings(self) -> sa.CTE:
        values = {
            "hnsw.ef_search": EF_SEARCH,
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": MAX_SCAN_TUPLES,
        }
        calls = [sa.func.set_config(name, str(value), True) for name, value in values.items()]
        return _materialized(sa.select(sa.func.concat(*calls).label("applied")), "settings")

    def _probe(self) -> sa.CTE:
        if self.where is None:  # every row has a first chunk, and the chunk table holds no other rows
            keys = sa.select(*(self.chunks.c[name] for name in self.keys)).where(self.chunks.c.ordinal == 0)
        else:
            keys = sa.select(*(column.label(name) for name, column in self.keys.items())).where(*self._filter())
        return _materialized(keys.limit(max(self.exact_rows, self.k) + 1), "probe")

    def _near(self) -> sa.CTE:
        window = max(int(self.k * WINDOW * self.search.chunks_per_row), self.k)
        candidates = (
            self._candidates()
            .where(sa.not_(self.few), _scalar(self.settings.c.applied) != "")
            .order_by(self.distance)
            .limit(window)
        )
        if self.where is not None:
            row = [self.chunks.c[name] == column for name, column in self.keys.items()]
            passes = sa.select(self.where).select_from(self.source).where(*row).correlate(self.chunks)
            candidates = candidates.where(passes.scalar_subquery())
        return _materialized(candidates, "near")

    def _rows_found(self) -> sa.Subquery:
        return sa.select(*(self.near.c[name] for name in self.keys)).distinct().subquery("rows")

    def _exact(self) -> sa.CTE:
        on = sa.and_(*(self.chunks.c[name] == self.probe.c[name] for name in self.keys))
        rows = self.probe.join(self.chunks, on)
        return _materialized(self._candidates().select_from(rows).where(self.few), "exact")

    def _fallback(self) -> sa.CTE:
        on = sa.and_(*(self.chunks.c[name] == column for name, column in self.keys.items()))
        rows = self.source.join(self.chunks, on)
        condition = sa.and_(sa.not_(self.few), self.short, *self._filter())
        return _materialized(self._candidates().select_from(rows).where(condition), "fallback")

    def _candidates(self) -> sa.Select[Any]:
        keys = [self.chunks.c[name] for name in self.keys]
        return sa.select(*keys, self.chunks.c.ordinal, self.distance.label("distance"))

    def _filter(self) -> list[sa.ColumnElement[bool]]:
        return [part for part in (self.search.scope, self.where) if part is not None]


def _scalar(column: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    return sa.select(column).scalar_subquery()


def _count(rows: sa.FromClause) -> sa.Select[Any]:
    return sa.select(sa.func.count().label("n")).select_from(rows)


def _materialized(select: sa.Select[Any], name: str) -> sa.CTE:
    return select.cte(name).prefix_with("MATERIALIZED", dialect="postgresql")
