"""A leg over vectors: the nearest chunks, by whichever way cannot come back short (design 5.1).

::

    near      many rows pass: the vector index, filtered by looking up each candidate's row
    exact     few rows pass: their true distances, one by one
    fallback  near came back short: the true distance of every row that passes
    semantic  the nearest chunk of each row, or another sum of its chunks

A branch that is not wanted hides behind a condition without columns, which PostgreSQL evaluates once before it
touches the branch's tables. The exact branches never order by the bare distance expression, because the planner
might then take the vector index after all. Thresholds stay outside: within the index scan, one that nothing
meets would make it run to its end.

The sparse leg is the same over the vectors of a learned sparse encoder; its parts are called ``sparse_near`` and so
on. There a row counts only if it shares a word with the query.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.errors import InvalidQuery
from pgneural.statement.probe import Probe
from pgneural.statement.target import Page, Target, Vectors, constant, distinct_on, row_by_row, scalar
from pgneural.store.vectors import SENT, Method, Storage
from pgneural.types import Vector

EF_SEARCH = 200
"""Candidates that one pass of an HNSW scan keeps, twenty for each of the usual ten hits; pgvector's default is 40.
A scan with few may end in a part of the graph that holds no right row. And under a filter, which takes candidates out,
the first pass is the best one: the next ones begin where it stopped and miss what lies behind."""

MAX_EF_SEARCH = 1000
"""pgvector's limit."""

WINDOW = 3
"""Candidates taken for each row asked for, so that near ones found late still count. `bench filter` shows what both
reach; a filter that is correlated with the query needs more than an independent one."""

COARSE_WINDOW = 8
"""How many times more are taken from an index of fewer dimensions or of bits, to be ranked by the whole vectors."""

MOST_CHUNKS = 1000
"""The most chunks of a row whose mean can be asked for."""

MAX_SCAN_TUPLES = 20_000
"""Where an index scan gives up and the fallback begins: pgvector's default."""


class Way(enum.StrEnum):
    """How the chunks of a row become one score."""

    MAX = "max"
    MEAN = "mean"
    SUM = "sum"
    TOP = "top"


@dataclass(frozen=True)
class Aggregate:
    """From chunks to rows: the best chunk counts, or all, or the best few.

    The rows are those of which a chunk is near the query; all their chunks then count.

    Attributes:
        way: ``max``, ``mean`` or ``sum`` of the scores, or ``top``: the mean of the best `best`.
        best: How many chunks ``top`` takes.
    """

    way: Way = Way.MAX
    best: int = 3

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``max``, ``mean``, ``sum``, or ``top`` with a number (``top5``).

        Raises:
            InvalidQuery: It is none of these.
        """
        name = text.rstrip("0123456789")
        number = text[len(name) :]
        best = int(number[:9] or 3)
        if name not in tuple(Way) or (number and name != Way.TOP) or not 1 <= best <= MOST_CHUNKS:
            raise InvalidQuery(f"aggregate is {text!r}, expected max, mean, sum, or top with a number like top3")
        return cls(Way(name), best if name == Way.TOP else 3)


class VectorLeg:
    """The CTEs of the leg.

    Attributes:
        rows: CTE ``semantic``: key, ``ordinal`` of the nearest chunk, ``distance`` of each row, and ``block``.
        strategy: How they are found, as a text.

    Args:
        target: What to search.
        vectors: By which of its vectors.
        vector: The query, shape (d,), or an expression that gives it.
        probe: How many rows pass.
        page: Which part of the ranking is wanted.
        rows: How many rows one block of candidates should have.
        enough: With fewer rows than this (or than pass), near has come back short.
        aggregate: What the distance of a row is.
    """

    def __init__(
        self,
        target: Target,
        vectors: Vectors,
        vector: Vector | sa.ColumnElement[Any],
        probe: Probe,
        page: Page,
        *,
        rows: int,
        enough: int,
        aggregate: Aggregate | None = None,
    ) -> None:
        self.target, self.vectors, self.table, self.probe = target, vectors, vectors.table, probe
        self.aggregate = aggregate or Aggregate()
        self.sparse = vectors.indexed.storage is Storage.SPARSEVEC
        self.query = self._query(vector)
        self.distance = self._by(self.table.c.embedding, vectors.indexed.distance.operator, self.query.c.vector)
        window = COARSE_WINDOW if vectors.indexed.index.approximate else 1
        self.block = max(int(rows * vectors.per_row), rows) * window
        self.blocks = math.ceil(page.end / rows)
        self.settings = self._settings()
        self.near = self._near()
        self.rows_of_block, self.paged = rows, page.offset > 0
        counted = self._named(self._found_by_block() if self.paged else self._found(), "found")
        found, first = scalar(counted.c.n), scalar(counted.c.first)
        self.cut = scalar(counted.c.cut)
        self.short = sa.and_(found < enough, found < probe.passing)
        self.in_blocks = sa.or_(first >= page.limit, first >= probe.passing)
        self.rows = self._rows(self._exact(), self._fallback())
        self.strategy = sa.case((probe.few, "exact"), (self.short, "fallback"), else_="near")

    def order(self, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        """Return the order of the ranking."""
        return [rows.c.block, rows.c.distance, *self.target.keys_of(rows)]

    def score(self, distance: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return the distance of a row as its score."""
        return self.vectors.score(distance) if self.aggregate.way is Way.MAX else -distance

    def of_row(self, of: sa.FromClause) -> LateralFromClause:
        """Return ``ordinal`` and ``distance`` of a row, whether or not it is among the candidates."""
        table = self.table
        nearest = (
            sa.select(table.c.ordinal, self.distance.label("distance"))
            .where(self.target.same_row(table, of))
            .order_by(self.distance + 0, table.c.ordinal)
            .limit(constant(1))
            .lateral(f"nearest_{self.vectors.leg}")
        )
        if self.aggregate.way is Way.MAX:
            return nearest
        summed = self._summed(of)
        both = sa.select(nearest.c.ordinal, summed.c.distance).select_from(nearest.join(summed, sa.true()))
        return both.lateral(f"summed_{self.vectors.leg}")

    def _named(self, select: sa.Select[Any], name: str) -> sa.CTE:
        """Name a part; those of the leg that leads are called as the documentation says, others after their leg."""
        leads = self.vectors.leg == self.target.dense.leg
        return self.target.named(select, name if leads else f"{self.vectors.leg}_{name}")

    def _query(self, vector: Vector | sa.ColumnElement[Any]) -> sa.CTE:
        """Return the query and what the index keeps of it, read once: a generic plan would do it for every row."""
        storage, _, dimensions = self.vectors.indexed.vectors
        if isinstance(vector, sa.ColumnElement):
            literal = vector
        else:
            value = storage.readable(vector) if self.target.composed else storage.bound(vector)
            literal = storage.query_value(self.target.parameter(self.vectors.leg, value, SENT), dimensions)
        read = self._named(sa.select(literal.label("vector")), "query_vector")
        indexed = self.vectors.indexed.index_expression(read.c.vector)
        return self._named(sa.select(read.c.vector, indexed.label("indexed")), "query")

    @staticmethod
    def _by(column: sa.ColumnElement[Any], operator: str, query: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
        return column.op(operator, return_type=sa.Float())(scalar(query))

    def _settings(self) -> sa.CTE:
        index = self.vectors.indexed.index
        ef = max(EF_SEARCH, min(self.block, MAX_EF_SEARCH))
        values: dict[str, object] = {
            "hnsw.ef_search": ef,
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": MAX_SCAN_TUPLES,
        }
        if index.method is Method.IVFFLAT:
            values = {
                "ivfflat.probes": probes(index.lists),
                "ivfflat.iterative_scan": "relaxed_order",
                "ivfflat.max_probes": max(index.lists // 2, probes(index.lists)),
            }
        calls = [sa.func.set_config(name, str(value), True) for name, value in values.items()]
        return self._named(sa.select(sa.func.concat(*calls).label("applied")), "settings")

    def _near(self) -> sa.CTE:
        indexed = self.vectors.indexed
        by = self._by(indexed.index_expression(self.table.c.embedding), indexed.operator, self.query.c.indexed)
        candidates = (
            self._candidates()
            .where(sa.not_(self.probe.few), scalar(self.settings.c.applied) != "")
            .where(*self.probe.passes(self.table))
            .order_by(by)
            .limit(constant(self.block * self.blocks))
        )
        if self.blocks == 1:
            return self._named(candidates.add_columns(constant(0).label("block")), "near")
        scanned = candidates.subquery("scanned")
        block = (sa.func.row_number().over() - 1) // constant(self.block)
        return self._named(sa.select(scanned, block.label("block")), "near")

    def _matching(self, distance: sa.ColumnElement[Any] | None = None) -> list[sa.ColumnElement[bool]]:
        """Return what a vector must meet besides the filter: a sparse one shares a word with the query."""
        return [(self.distance if distance is None else distance) < 0] if self.sparse else []

    def _found(self) -> sa.Select[Any]:
        """Count the rows of near as ``n``."""
        rows = self._found_rows().subquery("rows")
        n = sa.func.count()
        columns: list[sa.Label[Any]] = [n.label("n"), n.label("first"), sa.null().cast(sa.Integer).label("cut")]
        return sa.select(*columns).select_from(rows)

    def _found_by_block(self) -> sa.Select[Any]:
        """Find the first block that does not bring its share of rows, as ``cut``.

        ``n`` are the rows up to there, all where every block does; ``first`` are those of the first block. After the
        cut all other rows follow by their true distances, so that every page sees the same ranking.
        """
        rows = self._found_rows().subquery("rows")
        numbers = (
            sa.func.generate_series(0, constant(self.blocks - 1)).table_valued("block", name="numbers").render_derived()
        )
        n = sa.func.count(rows.c.block).label("n")
        joined = numbers.outerjoin(rows, rows.c.block == numbers.c.block)
        each = sa.select(numbers.c.block, n).select_from(joined).group_by(numbers.c.block).subquery("each")
        up_to = sa.func.sum(each.c.n).over(order_by=each.c.block).label("n")
        filled = sa.select(each.c.block, up_to).subquery("filled")
        lacking = filled.c.n < self.rows_of_block * (filled.c.block + 1)
        at_cut = sa.func.min(filled.c.n).filter(lacking)  # grows from block to block
        counted: sa.Select[Any] = sa.select(
            sa.func.coalesce(at_cut, sa.func.max(filled.c.n)).label("n"),
            sa.func.min(filled.c.n).label("first"),
            sa.func.min(filled.c.block).filter(lacking).label("cut"),
        )
        return counted

    def _found_rows(self) -> sa.Select[Any]:
        keys, block = self.target.keys_of(self.near), sa.func.min(self.near.c.block).label("block")
        return sa.select(*keys, block).where(*self._matching(self.near.c.distance)).group_by(*keys)

    def _exact(self) -> sa.CTE:
        target, keys = self.target, self.probe.keys
        chunks = row_by_row(self._candidates().where(target.same_row(self.table, keys)), "of_row")
        exact = sa.select(chunks, constant(0).label("block")).select_from(keys.join(chunks, sa.true()))
        return self._named(exact.where(self.probe.few), "exact")

    def _fallback(self) -> sa.CTE:
        rows = self.probe.rows()
        joined = sa.join(rows, self.table, self.target.same_row(self.table, rows))
        fallback = self._candidates().select_from(joined).where(sa.not_(self.probe.few), self.short)
        return self._named(fallback.add_columns(constant(self.blocks).label("block")), "fallback")

    def _rows(self, exact: sa.CTE, fallback: sa.CTE) -> sa.CTE:
        """Take the nearest chunk of each row.

        Blocks count, and the rows of the fallback come last, only where the first page is full without it.
        """
        every = sa.union_all(*(sa.select(branch) for branch in (self.near, exact, fallback))).subquery("candidates")
        keys = self.target.keys_of(every)
        within = sa.func.least(every.c.block, self.cut + 1)  # of NULL and a number the least is the number
        block = sa.case((self.in_blocks, within), else_=0) if self.paged else constant(0)
        columns = [*keys, every.c.ordinal, every.c.distance, block.label("block")]
        nearest = distinct_on(sa.select(*columns).where(*self._matching(every.c.distance)), keys)
        first = [block] if self.paged else []
        nearest = nearest.order_by(*keys, *first, every.c.distance, every.c.ordinal)
        if self.aggregate.way is Way.MAX:
            return self.target.named(nearest, self.vectors.leg)
        rows = nearest.subquery("nearest")
        summed = self._summed(rows)
        columns = [*self.target.keys_of(rows), rows.c.ordinal, summed.c.distance, rows.c.block]
        return self.target.named(sa.select(*columns).select_from(rows.join(summed, sa.true())), self.vectors.leg)

    def _summed(self, of: sa.FromClause) -> LateralFromClause:
        """Return the score over all chunks of a row, negative so that it orders like a distance."""
        table = self.table
        scores = sa.select(self.vectors.score(self.distance).label("score")).where(self.target.same_row(table, of))
        if self.aggregate.way is Way.TOP:
            scores = scores.order_by(self.distance + 0).limit(constant(self.aggregate.best))
        every = scores.correlate(of).subquery("scores")
        total = sa.func.sum(every.c.score) if self.aggregate.way is Way.SUM else sa.func.avg(every.c.score)
        return sa.select((-total).label("distance")).lateral("summed")

    def _candidates(self) -> sa.Select[Any]:
        table = self.table
        return sa.select(*self.target.keys_of(table), table.c.ordinal, self.distance.label("distance"))


def probes(lists: int) -> int:
    """Return how many lists of an IVFFlat index are read: a tenth of them, or pgvector's square root if more."""
    return max(math.isqrt(lists), lists // 10, 1)
