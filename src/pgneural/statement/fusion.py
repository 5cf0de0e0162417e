"""Both legs, fused into one ranking.

The best rows of each leg make a pool, every row of it is scored by both, and the scores are made comparable
within the pool. After the pool come the other rows by distance, so that a page is full wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pgneural.statement.lexical_leg import LexicalLeg
from pgneural.statement.probe import Probe
from pgneural.statement.semantic_leg import SemanticLeg
from pgneural.statement.target import Page, Target, constant, materialized, scalar
from pgneural.types import Vector

POOL = 200
"""Rows that each leg brings to the pool, or as many as a page has, if that is more. As many as `EF_SEARCH`, so that
without a filter they cost no second pass of the index."""

LEAST_SPREAD = 0.03
"""The least spread of the lexical scores over the pool that counts as full, as a share of the query's information:
about half of what is usual. Where hardly a row has hardly a word of the query, a chance match would otherwise stand
out by many deviations."""


@dataclass(frozen=True)
class WeightedSum:
    """Fusion by a weighted mean of standard scores: how many deviations a row is above the mean of the pool.

    Standard scores (Montague and Aslam 2001) and not a range from 0 to 1, because the cosines of different encoders
    fill very different parts of theirs: the spread over the pool tells what a difference of one leg is worth, and
    the same weights then serve any encoder. A lexical score is first divided by the best possible one, the sum of
    the query's idf, so that a query whose words are mostly not there is not made to look as if they were.

    The semantic leg counts twice: it knows something about every row, the lexical one only about those that share
    a word with the query. `bench hybrid --sweep` prints other weights.
    """

    semantic: float = 2.0
    lexical: float = 1.0


@dataclass(frozen=True)
class RRF:
    """Reciprocal rank fusion: the sum of ``weight / (constant + rank)`` (Cormack, Clarke and Büttcher 2009)."""

    constant: int = 60
    semantic: float = 1.0
    lexical: float = 1.0


Fusion = WeightedSum | RRF


def hybrid(
    target: Target,
    vector: Vector,
    text: str,
    page: Page,
    *,
    where: sa.ColumnElement[bool] | None = None,
    fusion: Fusion | None = None,
    max_distance: float | None = None,
    min_score: float | None = None,
) -> sa.Select[Any]:
    """Return the statement that ranks rows by meaning and by words; columns as of `semantic`."""
    parts = _Parts(target, vector, text, page, where, fusion or WeightedSum())
    wanted = sa.select(parts.fused)
    if max_distance is not None:
        wanted = wanted.where(parts.fused.c.distance <= max_distance)
    if min_score is not None:
        wanted = wanted.where(parts.fused.c.score >= min_score)
    return parts.page_of(wanted)


class _Parts:
    def __init__(
        self,
        target: Target,
        vector: Vector,
        text: str,
        page: Page,
        where: sa.ColumnElement[bool] | None,
        fusion: Fusion,
    ) -> None:
        self.target, self.page, self.fusion = target, page, fusion
        self.size = max(POOL, page.limit)
        self.tailed = page.end > self.size
        probe = Probe(target, where, page.end)
        enough = page.end if self.tailed else page.limit
        self.semantic = SemanticLeg(target, vector, probe, page, rows=self.size, enough=enough)
        self.lexical = LexicalLeg(target, text, probe, rows=self.size, guaranteed=page.limit)
        self.pool = self._pool()
        self.scored = self._scored()
        self.fused = materialized(self._fused(), "fused")

    def page_of(self, wanted: sa.Select[Any]) -> sa.Select[Any]:
        best = self.page.cut(wanted, self._order(self.fused)).subquery("best")
        return sa.select(
            self.page.rank(self._order(best)),
            *self.target.keys_of(best),
            best.c.ordinal,
            best.c.score,
            self.target.score(best.c.distance).label("semantic"),
            best.c.bm25.label("lexical"),
            self.semantic.strategy.label("strategy"),
        )

    def _order(self, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        return [rows.c.tier, rows.c.block, rows.c.score.desc(), *self.target.keys_of(rows)]

    def _pool(self) -> sa.CTE:
        """Join the best rows of both legs; the rest of the semantic ones follow as another tier, if asked for."""
        semantic, keys = self.semantic.rows, self.target.keys_of
        nearest = sa.select(*keys(semantic)).order_by(*self.semantic.order(semantic))
        best = nearest.limit(constant(self.size)).subquery("best")
        pool = sa.union(sa.select(*keys(best)), sa.select(*keys(self.lexical.rows))).subquery("both")
        rows = sa.select(*keys(pool), constant(0).label("tier"), constant(0).label("block"))
        if not self.tailed:
            return materialized(rows, "pool")
        pooled = sa.exists().where(self.target.same_row(semantic, pool))
        tail = sa.select(*keys(semantic), constant(1).label("tier"), semantic.c.block).where(sa.not_(pooled))
        tail = tail.order_by(*self.semantic.order(semantic)).limit(constant(self.page.end))
        return materialized(sa.union_all(rows, tail.subquery("tail").select()), "pool")

    def _scored(self) -> sa.CTE:
        pool = self.pool
        nearest, matched = self.semantic.nearest_chunk(pool), self.lexical.bm25(pool)
        both = pool.outerjoin(nearest, sa.true()).outerjoin(matched, sa.true())
        bm25 = sa.func.coalesce(matched.c.bm25, 0).label("bm25")
        ordinal = sa.func.coalesce(nearest.c.ordinal, 0).label("ordinal")
        return materialized(sa.select(pool, ordinal, nearest.c.distance, bm25).select_from(both), "scored")

    def _fused(self) -> sa.Select[Any]:
        fusion = self.fusion
        score = self._sum(fusion) if isinstance(fusion, WeightedSum) else self._reciprocal_ranks(fusion)
        return sa.select(self.scored, score.label("score"))

    def _sum(self, fusion: WeightedSum) -> sa.ColumnElement[Any]:
        share = self.scored.c.bm25 / sa.func.nullif(scalar(self.lexical.question.c.ideal), 0)
        semantic = self._standard(self.target.score(self.scored.c.distance), 0)
        lexical = self._standard(share, LEAST_SPREAD)
        total: sa.ColumnElement[Any] = fusion.semantic * semantic + fusion.lexical * lexical
        return total / (fusion.semantic + fusion.lexical)

    def _standard(self, score: sa.ColumnElement[Any], least_spread: float) -> sa.ColumnElement[Any]:
        """Return a score in deviations from the mean of the pool; 0 where all are the same or there is none."""
        in_pool = self.scored.c.tier == 0
        mean = sa.func.avg(score).filter(in_pool).over()
        spread = sa.func.greatest(sa.func.stddev_pop(score).filter(in_pool).over(), least_spread)
        return sa.func.coalesce((score - mean) / sa.func.nullif(spread, 0), 0, type_=sa.Float)

    def _reciprocal_ranks(self, fusion: RRF) -> sa.ColumnElement[Any]:
        scored = self.scored
        near = sa.func.rank().over(order_by=scored.c.distance.asc().nulls_last())
        matching = sa.func.rank().over(order_by=scored.c.bm25.desc())
        lexical = sa.case((scored.c.bm25 > 0, fusion.lexical / (fusion.constant + matching)), else_=0.0)
        reciprocal: sa.ColumnElement[Any] = fusion.semantic / (fusion.constant + near)
        return reciprocal + lexical
