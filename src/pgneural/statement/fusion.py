"""Several legs, fused into one ranking.

The best rows of each leg make a pool, every row of it is scored by all, and the scores are made comparable
within the pool. After the pool come the other rows of the leading leg, so that a page is full wherever it lies.
Boosts, from ordinary columns, are scores like those of a leg, but bring no rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.amounts import number
from pgneural.errors import InvalidQuery
from pgneural.filter import Expression, expression
from pgneural.statement.lexical_leg import LexicalLeg
from pgneural.statement.probe import Probe
from pgneural.statement.single import Threshold, contributions
from pgneural.statement.target import Page, Target, constant, row_by_row, scalar
from pgneural.statement.vector_leg import Aggregate, VectorLeg
from pgneural.types import Vector

POOL = 200
"""Rows that each leg brings to the pool, or as many as a page has, if that is more."""

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

    The semantic leg counts twice: it knows something about every row, the others only about those that share
    a word with the query. `bench hybrid --sweep` prints other weights.
    """

    semantic: float = 2.0
    lexical: float = 1.0
    sparse: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that make no score."""
        _require_weights(self.semantic, self.lexical, self.sparse)


@dataclass(frozen=True)
class RRF:
    """Reciprocal rank fusion: the sum of ``weight / (constant + rank)`` (Cormack, Clarke and Büttcher 2009)."""

    constant: int = 60
    semantic: float = 1.0
    lexical: float = 1.0
    sparse: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no score."""
        _require_weights(self.semantic, self.lexical, self.sparse)
        if number("the constant of RRF", self.constant) < 0:
            raise InvalidQuery(f"the constant of RRF is {self.constant}, expected 0 or more; 60 is usual")


def _require_weights(*weights: float) -> None:
    for weight in weights:
        number("a weight", weight)


Fusion = WeightedSum | RRF


@dataclass(frozen=True, eq=False)
class Boost:
    """A score from ordinary columns, fused with those of the legs: recency, popularity, anything that is a number.

    Attributes:
        by: An expression over the source, or SQL as text, alone or with parameters:
            ``("ln(1 + views) * :factor", {"factor": 2})``; larger is better, NULL counts as the mean.
        weight: Against those of the legs; a negative one makes larger worse.
    """

    by: Any  # an `Expression` when it is made, a ``ColumnElement`` afterwards
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Take text for SQL, and refuse what is no expression, or a weight that makes no score."""
        object.__setattr__(self, "by", expression(self.by, "boost"))
        object.__setattr__(self, "weight", number("the weight of a boost", self.weight))

    @classmethod
    def recency(cls, at: Expression, half_life: timedelta, weight: float = 1.0) -> Self:
        """Prefer what is new: 1 for now and for what is to come, and half of it after every half-life.

        Args:
            at: A timestamp, or SQL as text.
            half_life: After which it counts half.
            weight: Against those of the legs.

        Raises:
            InvalidQuery: The half-life is not positive.
        """
        seconds = half_life.total_seconds()
        if seconds <= 0:
            raise InvalidQuery(f"half_life is {half_life}, expected a positive one")
        age = sa.extract("epoch", sa.func.now() - sa.cast(expression(at, "boost"), sa.DateTime(timezone=True)))
        halvings = sa.func.least(sa.func.greatest(age, 0) / seconds, 1000)  # more is below what a number can be
        return cls(sa.func.power(0.5, halvings), weight)

    @classmethod
    def popularity(cls, count: Expression, weight: float = 1.0) -> Self:
        """Prefer what is used much: the logarithm of a count, so that ten times more is the same step anywhere.

        Args:
            count: A number, or SQL as text; below 0 counts as 0.
            weight: Against those of the legs.
        """
        number = sa.cast(expression(count, "boost"), sa.Float)
        return cls(sa.func.ln(1 + sa.func.greatest(number, 0)), weight)


def fused(
    target: Target,
    page: Page,
    *,
    vector: Vector | sa.ColumnElement[Any] | None = None,
    text: str | None = None,
    sparse: Vector | None = None,
    where: sa.ColumnElement[bool] | None = None,
    fusion: Fusion | None = None,
    boosts: Sequence[Boost] = (),
    threshold: Threshold = Threshold(),  # noqa: B008
    aggregate: Aggregate | None = None,
) -> sa.Select[Any]:
    """Return the statement that ranks rows by several legs, or by one with boosts; columns as of `by_vectors`.

    Args:
        target: What to search.
        page: Which part of the ranking.
        vector: What the semantic leg compares, shape (d,); None to leave it out.
        text: What the lexical leg reads; None to leave it out.
        sparse: What the sparse leg compares; None to leave it out.
        where: A condition over the source's columns.
        fusion: How the legs are joined.
        boosts: Scores from ordinary columns.
        threshold: What a hit must reach.
        aggregate: How the chunks of a row become one score of the semantic leg.
    """
    asked = {"semantic": vector, "lexical": text, "sparse": sparse}
    parts = _Parts(target, page, asked, where, fusion or WeightedSum(), tuple(boosts), aggregate)
    distance = parts.fused.c.distance if vector is not None else None
    return parts.page_of(threshold.of(sa.select(parts.fused), distance, parts.fused.c.score))


def _number(value: Any) -> sa.ColumnElement[Any]:
    """Return a value as a number; one that is not finite says nothing."""
    number = sa.cast(value, sa.Float)
    return sa.case((number.between(-sys.float_info.max, sys.float_info.max), number))


class _Parts:
    def __init__(
        self,
        target: Target,
        page: Page,
        asked: dict[str, Any],
        where: sa.ColumnElement[bool] | None,
        fusion: Fusion,
        boosts: tuple[Boost, ...],
        aggregate: Aggregate | None,
    ) -> None:
        self.target, self.page, self.fusion, self.boosts = target, page, fusion, boosts
        self.size = max(POOL, page.limit)
        self.tailed = page.offset > 0
        words_only = asked["semantic"] is None and asked["sparse"] is None
        self.probe = Probe(target, where, page.end, by_words=words_only)
        self.legs: dict[str, VectorLeg | LexicalLeg] = {}
        for name in ("semantic", "sparse", "lexical"):  # the first that is asked leads
            if asked[name] is not None:
                self.legs[name] = self._leg(name, asked[name], aggregate)
        self.pool = self._pool()
        self.scored = self._scored()
        self.fused = self.target.named(self._fused(), "fused")

    def _leg(self, name: str, query: Any, aggregate: Aggregate | None) -> VectorLeg | LexicalLeg:
        """Return a leg.

        What it brings to the pool depends on the length of a page and not on its place. Only the leading leg has
        more rows for a later page.
        """
        target, lead = self.target, self.lead is None
        if name == "lexical":
            rows = max(self.size, self.page.end) if lead else self.size
            guaranteed = rows if lead else self.page.limit
            wanted = self.page.limit
            return LexicalLeg(target, query, self.probe, rows=rows, guaranteed=guaranteed, wanted=wanted)
        vectors = target.dense if name == "semantic" else target.sparse
        assert vectors is not None
        page = self.page if lead else Page(self.page.limit)
        among = aggregate if name == "semantic" else None
        return VectorLeg(target, vectors, query, self.probe, page, rows=self.size, enough=page.end, aggregate=among)

    @property
    def lead(self) -> VectorLeg | LexicalLeg | None:
        """The leg whose other rows follow after the pool; None before there is one."""
        return next(iter(self.legs.values()), None)

    @property
    def phrases(self) -> bool:
        """Whether the query may have phrases."""
        leg = self.legs.get("lexical")
        return isinstance(leg, LexicalLeg) and leg.phrases

    def page_of(self, wanted: sa.Select[Any]) -> sa.Select[Any]:
        best = self.page.cut(wanted, self._order(self.fused)).subquery("best")
        scores = {name: self._score(name, best) for name in self.legs}
        return sa.select(
            self.page.rank(self._order(best)),
            *self.target.keys_of(best),
            best.c.ordinal,
            best.c.score,
            *contributions(**scores),
            next(iter(self.legs.values())).strategy.label("strategy"),
            (best.c.unmet if self.phrases else sa.false()).label("relaxed"),
            *(best.c[f"boost_{place}"] for place, _ in enumerate(self.boosts, start=1)),
        )

    def _order(self, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        unmet = [rows.c.unmet] if self.phrases else []  # where phrases are not enough, rows with them come first
        return [rows.c.tier, *unmet, rows.c.place, rows.c.score.desc(), *self.target.keys_of(rows)]

    def _pool(self) -> sa.CTE:
        """Join the best rows of all legs; the rest of the leading one follows in its own order, if asked for."""
        keys = self.target.keys_of
        every = [sa.select(*keys(self._best(name, leg))) for name, leg in self.legs.items()]
        pool = (sa.union(*every) if len(every) > 1 else every[0]).subquery("best_of_all")
        rows = sa.select(*keys(pool), constant(0).label("tier"), constant(0).label("place"))
        if not self.tailed:
            return self.target.named(rows, "pool")
        assert self.lead is not None
        lead = self.lead.rows
        pooled = sa.exists().where(self.target.same_row(lead, pool))
        place = sa.func.row_number().over(order_by=self.lead.order(lead)).label("place")
        tail = sa.select(*keys(lead), constant(1).label("tier"), place).where(sa.not_(pooled))
        tail = tail.order_by(*self.lead.order(lead)).limit(constant(self.page.end))
        return self.target.named(sa.union_all(rows, tail.subquery("tail").select()), "pool")

    def _best(self, name: str, leg: VectorLeg | LexicalLeg) -> sa.Subquery:
        """Return the best rows of a leg: of one over vectors, those of its first block, which every page sees."""
        best = sa.select(*self.target.keys_of(leg.rows)).order_by(*leg.order(leg.rows)).limit(constant(self.size))
        if isinstance(leg, VectorLeg):
            best = best.where(leg.rows.c.block == 0)
        return best.subquery(f"best_{name}")

    def _scored(self) -> sa.CTE:
        """Score every row of the pool by every leg and boost."""
        pool, columns = self.pool, []
        joined: sa.FromClause = pool
        ordinals: list[sa.ColumnElement[Any]] = []
        for name, leg in self.legs.items():
            found = leg.of_row(pool)
            joined = joined.outerjoin(found, sa.true())
            if isinstance(leg, LexicalLeg):
                columns.append(sa.func.coalesce(found.c.bm25, 0).label("bm25"))
                columns += [leg.unmet(found).label("unmet")] if leg.phrases else []
                continue
            ordinals.append(found.c.ordinal)
            columns.append(found.c.distance.label("distance" if name == "semantic" else "sparse_distance"))
        if not ordinals and isinstance(self.lead, LexicalLeg):
            chunk = self.lead.best_chunk(pool)
            joined, ordinals = joined.outerjoin(chunk, sa.true()), [chunk.c.ordinal]
        if self.boosts:
            values = self._boosts(pool)
            joined, columns = joined.outerjoin(values, sa.true()), [*columns, *values.c]
        ordinal = sa.func.coalesce(*ordinals, 0).label("ordinal")
        return self.target.named(sa.select(pool, ordinal, *columns).select_from(joined), "scored")

    def _boosts(self, pool: sa.CTE) -> LateralFromClause:
        values = [_number(boost.by).label(f"boost_{place}") for place, boost in enumerate(self.boosts, start=1)]
        same_row = self.target.same_row(self.target.source, pool)
        return row_by_row(sa.select(*values).select_from(self.target.rows).where(same_row), "boosts")

    def _score(self, name: str, rows: sa.FromClause) -> sa.ColumnElement[Any]:
        """Return what a leg says of a row, larger is better."""
        leg = self.legs[name]
        if isinstance(leg, LexicalLeg):
            return rows.c.bm25
        return leg.score(rows.c.distance if name == "semantic" else rows.c.sparse_distance)

    def _fused(self) -> sa.Select[Any]:
        fusion = self.fusion
        score = self._sum(fusion) if isinstance(fusion, WeightedSum) else self._reciprocal_ranks(fusion)
        return sa.select(self.scored, score.label("score"))

    def _sum(self, fusion: WeightedSum) -> sa.ColumnElement[Any]:
        parts = [(getattr(fusion, name), self._standard_score(name)) for name in self.legs]
        parts += [
            (boost.weight, self._standard(self.scored.c[f"boost_{place}"], 0))
            for place, boost in enumerate(self.boosts, start=1)
        ]
        total: sa.ColumnElement[Any] = sum((weight * score for weight, score in parts[1:]), parts[0][0] * parts[0][1])
        return total / (sum(abs(weight) for weight, _ in parts) or 1.0)

    def _standard_score(self, name: str) -> sa.ColumnElement[Any]:
        leg = self.legs[name]
        score = self._score(name, self.scored)
        if isinstance(leg, LexicalLeg):
            return self._standard(score / sa.func.nullif(scalar(leg.question.c.ideal), 0), LEAST_SPREAD)
        return self._standard(sa.func.coalesce(score, 0) if leg.sparse else score, 0)

    def _standard(self, score: sa.ColumnElement[Any], least_spread: float) -> sa.ColumnElement[Any]:
        """Return a score in deviations from the mean of the pool; 0 where all are the same or there is none."""
        in_pool = self.scored.c.tier == 0
        mean = sa.func.avg(score).filter(in_pool).over()
        spread = sa.func.greatest(sa.func.stddev_pop(score).filter(in_pool).over(), least_spread)
        return sa.func.coalesce((score - mean) / sa.func.nullif(spread, 0), 0, type_=sa.Float)

    def _reciprocal_ranks(self, fusion: RRF) -> sa.ColumnElement[Any]:
        parts = [self._reciprocal_rank(self._score(name, self.scored), getattr(fusion, name)) for name in self.legs]
        parts += [
            self._reciprocal_rank(self.scored.c[f"boost_{place}"], boost.weight)
            for place, boost in enumerate(self.boosts, start=1)
        ]
        return sum(parts[1:], parts[0])

    def _reciprocal_rank(self, score: sa.ColumnElement[Any], weight: float) -> sa.ColumnElement[Any]:
        constant_ = self.fusion.constant if isinstance(self.fusion, RRF) else 0
        rank = sa.func.rank().over(partition_by=self.scored.c.tier, order_by=score.desc().nulls_last())
        unknown = sa.or_(score.is_(None), score == 0) if score is self.scored.c.get("bm25") else score.is_(None)
        return sa.case((unknown, 0.0), else_=weight / (constant_ + rank))
