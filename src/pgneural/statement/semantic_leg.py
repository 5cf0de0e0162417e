"""The semantic leg: the nearest chunks, by whichever way cannot come back short (design 5.1).

::

    near      many rows pass: the vector index, filtered by looking up each candidate's row
    exact     few rows pass: their true distances, one by one
    fallback  near came back short: the true distance of every row that passes
    semantic  the nearest chunk of each row

A branch that is not wanted hides behind a condition without columns, which PostgreSQL evaluates once before it
touches the branch's tables. The exact branches never order by the bare distance expression, because the planner
might then take the vector index after all. Thresholds stay outside: within the index scan, one that nothing
meets would make it run to its end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.statement.probe import Probe
from pgneural.statement.target import Page, Target, constant, count, materialized, row_by_row, scalar
from pgneural.types import Vector

EF_SEARCH = 200
"""Candidates that one pass of an HNSW scan keeps, twenty for each of the usual ten hits; pgvector's default is 40.
Under a filter the first pass is the best one: the next ones begin where it stopped and miss what lies behind."""

WINDOW = 3
"""Candidates taken for each row asked for, so that near ones found late still count. `bench filter` shows what both
reach; a filter that is correlated with the query needs more than an independent one."""

MAX_SCAN_TUPLES = 20_000
"""Where an index scan gives up and the fallback begins: pgvector's default."""


def semantic(
    target: Target,
    vector: Vector,
    page: Page,
    *,
    where: sa.ColumnElement[bool] | None = None,
    max_distance: float | None = None,
    min_score: float | None = None,
) -> sa.Select[Any]:
    """Return the statement that finds the nearest source rows under a filter.

    It never comes back short: a full page if so many rows pass the filter. Columns: ``rank`` from 1, the key of
    the source row as ``source_…``, ``ordinal`` of its best chunk, ``score`` (larger is better), ``semantic`` and
    ``lexical`` (what each leg contributed) and ``strategy`` (``exact``, ``near`` or ``fallback``).

    Args:
        target: What to search.
        vector: The query, shape (d,).
        page: Which part of the ranking.
        where: A condition over the source's columns, as in any ``Select``.
        max_distance: Leave out what is farther.
        min_score: Leave out what scores less.
    """
    leg = SemanticLeg(target, vector, Probe(target, where, page.end), page, rows=page.limit * WINDOW, enough=page.end)
    wanted = sa.select(leg.rows)
    if max_distance is not None:
        wanted = wanted.where(leg.rows.c.distance <= max_distance)
    if min_score is not None:
        wanted = wanted.where(target.score(leg.rows.c.distance) >= min_score)
    best = page.cut(wanted, leg.order(leg.rows)).subquery("best")
    score = target.score(best.c.distance)
    return sa.select(
        page.rank(leg.order(best)),
        *target.keys_of(best),
        best.c.ordinal,
        score.label("score"),
        score.label("semantic"),
        sa.null().cast(sa.Float).label("lexical"),
        leg.strategy.label("strategy"),
    )


def vector_text(vector: Vector) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(map(str, np.asarray(vector, dtype=np.float32).tolist())) + "]"


class SemanticLeg:
    """The CTEs of the leg.

    Attributes:
        rows: CTE ``semantic``: key, ``ordinal`` and ``distance`` of the nearest chunk of each row, and ``block``.
        strategy: How they are found, as a text.

    Args:
        target: What to search.
        vector: The query, shape (d,).
        probe: How many rows pass.
        page: Which part of the ranking is wanted.
        rows: How many rows one block of candidates should have.
        enough: With fewer rows than this (or than pass), near has come back short.
    """

    def __init__(self, target: Target, vector: Vector, probe: Probe, page: Page, *, rows: int, enough: int) -> None:
        self.target, self.probe = target, probe
        self.distance = self._distance(vector)
        self.block = max(int(rows * target.chunks_per_row), rows)
        self.blocks = math.ceil(page.end / rows)
        self.settings = self._settings()
        self.near = self._near()
        found = scalar(materialized(count(self._rows_found()), "found").c.n)
        self.short = found < sa.func.least(enough, probe.passing)
        self.in_blocks = found >= sa.func.least(page.limit, probe.passing)
        self.rows = self._semantic(self._exact(), self._fallback())
        self.strategy = sa.case((probe.few, "exact"), (self.short, "fallback"), else_="near")

    def order(self, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        """Return the order of the ranking."""
        return [rows.c.block, rows.c.distance, *self.target.keys_of(rows)]

    def nearest_chunk(self, of: sa.FromClause) -> LateralFromClause:
        """Return the nearest chunk of a row, whether or not it is among the candidates."""
        chunks = self.target.chunks
        return (
            sa.select(chunks.c.ordinal, self.distance.label("distance"))
            .where(self.target.same_row(chunks, of))
            .order_by(self.distance + 0, chunks.c.ordinal)
            .limit(constant(1))
            .lateral("nearest")
        )

    def _distance(self, vector: Vector) -> sa.ColumnElement[float]:
        """Return the distance to the query, read once: a kept plan would otherwise read its text for every row."""
        asked = sa.cast(sa.bindparam("vector", vector_text(vector), sa.String), VECTOR(len(vector)))
        query = scalar(materialized(sa.select(asked.label("vector")), "query").c.vector)
        operator = self.target.chunks.c.embedding.op(self.target.distance.operator, return_type=sa.Float())
        return operator(query)

    def _settings(self) -> sa.CTE:
        values = {
            "hnsw.ef_search": EF_SEARCH,
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": MAX_SCAN_TUPLES,
        }
        calls = [sa.func.set_config(name, str(value), True) for name, value in values.items()]
        return materialized(sa.select(sa.func.concat(*calls).label("applied")), "settings")

    def _near(self) -> sa.CTE:
        candidates = (
            self._candidates()
            .where(sa.not_(self.probe.few), scalar(self.settings.c.applied) != "")
            .where(*self.probe.passes(self.target.chunks))
            .order_by(self.distance)
            .limit(constant(self.block * self.blocks))
        )
        if self.blocks == 1:
            return materialized(candidates.add_columns(constant(0).label("block")), "near")
        scanned = candidates.subquery("scanned")
        block = (sa.func.row_number().over() - 1) / constant(self.block)
        return materialized(sa.select(scanned, block.label("block")), "near")

    def _rows_found(self) -> sa.Subquery:
        return sa.select(*self.target.keys_of(self.near)).distinct().subquery("rows")

    def _exact(self) -> sa.CTE:
        target, keys = self.target, self.probe.keys
        chunks = row_by_row(self._candidates().where(target.same_row(target.chunks, keys)), "of_row")
        exact = sa.select(chunks, constant(0).label("block")).select_from(keys.join(chunks, sa.true()))
        return materialized(exact.where(self.probe.few), "exact")

    def _fallback(self) -> sa.CTE:
        target = self.target
        rows = target.source.join(target.chunks, target.same_row(target.chunks, target.source))
        condition = sa.and_(sa.not_(self.probe.few), self.short, *self.probe.conditions())
        fallback = self._candidates().select_from(rows).where(condition)
        last = self.blocks if self.blocks > 1 else 0
        return materialized(fallback.add_columns(constant(last).label("block")), "fallback")

    def _semantic(self, exact: sa.CTE, fallback: sa.CTE) -> sa.CTE:
        """Take the nearest chunk of each row; blocks count only where the first page did not need the fallback."""
        every = sa.union_all(*(sa.select(branch) for branch in (self.near, exact, fallback))).subquery("candidates")
        keys = self.target.keys_of(every)
        block = sa.case((self.in_blocks, every.c.block), else_=0) if self.blocks > 1 else every.c.block
        columns = [*keys, every.c.ordinal, every.c.distance, block.label("block")]
        nearest = sa.select(*columns).ext(distinct_on(*keys)).order_by(*keys, block, every.c.distance, every.c.ordinal)
        return materialized(nearest, "semantic")

    def _candidates(self) -> sa.Select[Any]:
        chunks = self.target.chunks
        return sa.select(*self.target.keys_of(chunks), chunks.c.ordinal, self.distance.label("distance"))
