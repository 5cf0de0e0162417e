"""Several legs, fused into one ranking.

The best rows of each leg make a pool, every row of it is scored by all, and the scores are made comparable
within the pool. After the pool come the other rows of the leading leg, so that a page is full wherever it lies.
Boosts, from ordinary columns, are scores like those of a leg, but bring no rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self

import sqlalchemy as sa
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.amounts import number
from pgneural.errors import InvalidQuery
from pgneural.filter import Expression, expression
from pgneural.statement.lexical_leg import LexicalLeg
from pgneural.statement.probe import Probe
from pgneural.statement.single import Threshold, contributions
from pgneural.statement.target import LEXICAL, Page, Target, constant, row_by_row, scalar
from pgneural.statement.vector_leg import Aggregate, VectorLeg

POOL = 200
"""Rows that each leg brings to the pool, or as many as a page has, if that is more."""

LEAST_SPREAD = 0.03
"""The least spread of the lexical scores over the pool that counts as full, as a share of the query's information:
about half of what is usual. Where hardly a row has hardly a word of the query, a chance match would otherwise stand
out by many deviations."""


class _Weights:
    """Weights of legs by their names; a leg that none is given for has that of `usual`, or 1."""

    usual: ClassVar[Mapping[str, float]] = {}

    def __init__(self, **weights: float) -> None:
        for leg, weight in weights.items():
            number(f"the weight of leg {leg}", weight)
        self.weights = tuple(sorted((leg, float(weight)) for leg, weight in weights.items()))

    def weight(self, leg: str) -> float:
        """Return the weight of a leg."""
        return dict(self.weights).get(leg, self.usual.get(leg, 1.0))

    def require_legs(self, legs: Sequence[str]) -> None:
        """Refuse a weight of a leg that there is not.

        Raises:
            InvalidQuery: There is one.
        """
        for leg, _ in self.weights:
            if leg not in legs:
                raise InvalidQuery(f"the fusion has a weight for leg {leg!r}, but the search has {', '.join(legs)}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *sorted(vars(self).items())))

    def __repr__(self) -> str:
        parameters = {**{name: value for name, value in vars(self).items() if name != "weights"}, **dict(self.weights)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in parameters.items())})"


class WeightedSum(_Weights):
    """Fusion by a weighted mean of standard scores: how many deviations a row is above the mean of the pool.

    Standard scores (Montague and Aslam 2001) and not a range from 0 to 1, because the cosines of different encoders
    fill very different parts of theirs: the spread over the pool tells what a difference of one leg is worth, and
    the same weights then serve any encoder. A lexical score is first divided by the best possible one, the sum of
    the query's idf, so that a query whose words are mostly not there is not made to look as if they were.

    The semantic leg counts twice: it knows something about every row, the others only about those that share
    a word with the query. `bench hybrid --sweep` prints other weights. A leg that says nothing of a row (a picture has
    no words) counts as its mean over the pool: the row is taken neither for one that matches nor for one that does not.

    Args:
        **weights: By the names of the legs: ``WeightedSum(semantic=3, lexical=1)``.

    Raises:
        InvalidQuery: A weight is no finite number.
    """

    usual: ClassVar[Mapping[str, float]] = {"semantic": 2.0}


class RRF(_Weights):
    """Reciprocal rank fusion: the sum of ``weight / (constant + rank)`` (Cormack, Clarke and Büttcher 2009).

    A leg that says nothing of a row adds what it adds to the rows of the pool on the average.

    Args:
        constant: 60 is usual.
        **weights: By the names of the legs, 1 by default.

    Raises:
        InvalidQuery: A number is not finite, or the constant negative.
    """

    def __init__(self, constant: int = 60, **weights: float) -> None:
        super().__init__(**weights)
        if number("the constant of RRF", constant) < 0:
            raise InvalidQuery(f"the constant of RRF is {constant}, expected 0 or more; 60 is usual")
        self.constant = constant


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
        object.__setattr__(self, "_said", self.by)  # as it was given, to be written down again
        object.__setattr__(self, "by", expression(self.by, "boost"))
        object.__setattr__(self, "weight", number("the weight of a boost", self.weight))

    @property
    def expression(self) -> Any:
        """The expression as it was given."""
        return vars(self)["_said"]

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
    inputs: Mapping[str, Any],
    *,
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
        inputs: What each leg is asked, by its name: a text for ``lexical``, a vector, shape (d,), for all others.
        where: A condition over the source's columns.
        fusion: How the legs are joined.
        boosts: Scores from ordinary columns.
        threshold: What a hit must reach.
        aggregate: How the chunks of a row become one score of the leading leg.

    Raises:
        InvalidQuery: There is no such leg.
    """
    fusion = fusion or WeightedSum()
    fusion.require_legs(target.legs)
    parts = _Parts(target, page, inputs, where, fusion, tuple(boosts), aggregate)
    distance = parts.fused.c[_distance(target.dense.leg)] if target.dense.leg in inputs else None
    return parts.page_of(threshold.of(sa.select(parts.fused), distance, parts.fused.c.score))


def _distance(leg: str) -> str:
    """Return the name of the column with the distances of a leg."""
    return f"{leg}_distance"


def _number(value: Any) -> sa.ColumnElement[Any]:
    """Return a value as a number; one that is not finite says nothing."""
    number = sa.cast(value, sa.Float)
    return sa.case((number.between(-sys.float_info.max, sys.float_info.max), number))


class _Parts:
    def __init__(
        self,
        target: Target,
        page: Page,
        inputs: Mapping[str, Any],
        where: sa.ColumnElement[bool] | None,
        fusion: Fusion,
        boosts: tuple[Boost, ...],
        aggregate: Aggregate | None,
    ) -> None:
        self.target, self.page, self.fusion, self.boosts = target, page, fusion, boosts
        self.size = max(POOL, page.limit)
        self.tailed = page.offset > 0
        self.probe = Probe(target, where, page.end, by_words=inputs.keys() == {LEXICAL})
        self.legs: dict[str, VectorLeg | LexicalLeg] = {}
        for name in sorted(inputs, key=target.legs.index):  # the first that is asked leads
            self.legs[name] = self._leg(name, inputs[name], aggregate)
        self.pool = self._pool()
        self.scored = self._scored()
        self.fused = self.target.named(self._fused(), "fused")

    def _leg(self, name: str, query: Any, aggregate: Aggregate | None) -> VectorLeg | LexicalLeg:
        """Return a leg.

        What it brings to the pool depends on the length of a page and not on its place. Only the leading leg has
        more rows for a later page.
        """
        target, lead = self.target, self.lead is None
        if name == LEXICAL:
            rows = max(self.size, self.page.end) if lead else self.size
            guaranteed = rows if lead else self.page.limit
            wanted = self.page.limit
            return LexicalLeg(target, query, self.probe, rows=rows, guaranteed=guaranteed, wanted=wanted)
        vectors = target.vectors_of(name)
        page = self.page if lead else Page(self.page.limit)
        among = aggregate if vectors is target.dense else None
        return VectorLeg(target, vectors, query, self.probe, page, rows=self.size, enough=page.end, aggregate=among)

    @property
    def lead(self) -> VectorLeg | LexicalLeg | None:
        """The leg whose other rows follow after the pool; None before there is one."""
        return next(iter(self.legs.values()), None)

    @property
    def phrases(self) -> bool:
        """Whether the query may have phrases."""
        leg = self.legs.get(LEXICAL)
        return isinstance(leg, LexicalLeg) and leg.phrases

    def page_of(self, wanted: sa.Select[Any]) -> sa.Select[Any]:
        best = self.page.cut(wanted, self._order(self.fused)).subquery("best")
        scores = {name: self._score(name, best) for name in self.legs}
        return sa.select(
            self.page.rank(self._order(best)),
            *self.target.keys_of(best),
            best.c.ordinal,
            best.c.score,
            next(iter(self.legs.values())).strategy.label("strategy"),
            (best.c.unmet if self.phrases else sa.false()).label("relaxed"),
            *contributions(self.target, scores),
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
                columns.append(found.c.bm25)
                columns += [leg.unmet(found).label("unmet")] if leg.phrases else []
                continue
            ordinals.append(found.c.ordinal)
            columns.append(found.c.distance.label(_distance(name)))
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
        return leg.score(rows.c[_distance(name)])

    def _fused(self) -> sa.Select[Any]:
        if isinstance(self.fusion, WeightedSum):
            return sa.select(self.scored, self._sum(self.fusion).label("score"))
        return self._reciprocal_ranks(self.fusion)

    def _sum(self, fusion: WeightedSum) -> sa.ColumnElement[Any]:
        parts = [(fusion.weight(name), self._standard_score(name)) for name in self.legs]
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
        return self._standard(score, 0)

    def _standard(self, score: sa.ColumnElement[Any], least_spread: float) -> sa.ColumnElement[Any]:
        """Return a score in deviations from the mean of the pool; 0 where all are the same or there is none."""
        in_pool = self.scored.c.tier == 0
        mean = sa.func.avg(score).filter(in_pool).over()
        spread = sa.func.greatest(sa.func.stddev_pop(score).filter(in_pool).over(), least_spread)
        return sa.func.coalesce((score - mean) / sa.func.nullif(spread, 0), 0, type_=sa.Float)

    def _reciprocal_ranks(self, fusion: RRF) -> sa.Select[Any]:
        """Return the fused rows; what says nothing of a row adds the mean of the pool."""
        scores = [(self._score(name, self.scored), fusion.weight(name)) for name in self.legs]
        scores += [(self.scored.c[f"boost_{place}"], each.weight) for place, each in enumerate(self.boosts, start=1)]
        parts = [self._reciprocal_rank(score, weight) for score, weight in scores]
        names = [f"part_{place}" for place, _ in enumerate(parts, start=1)]
        labelled = (part.label(name) for name, part in zip(names, parts, strict=True))
        ranked = sa.select(self.scored, *labelled).subquery("ranked")
        means = [sa.func.avg(ranked.c[name]).filter(ranked.c.tier == 0).over() for name in names]
        added = [sa.func.coalesce(ranked.c[name], mean, 0.0) for name, mean in zip(names, means, strict=True)]
        every = (ranked.c[column.key] for column in self.scored.c)
        return sa.select(*every, sa.cast(sum(added[1:], added[0]), sa.Float).label("score"))

    def _reciprocal_rank(self, score: sa.ColumnElement[Any], weight: float) -> sa.ColumnElement[Any]:
        """Return what a score adds: 0 where no word of the query is there, NULL where the score is."""
        constant_ = self.fusion.constant if isinstance(self.fusion, RRF) else 0
        rank = sa.func.rank().over(partition_by=self.scored.c.tier, order_by=score.desc().nulls_last())
        none = [(score == 0, 0.0)] if score is self.scored.c.get("bm25") else []
        return sa.case(*none, (score.is_not(None), weight / (constant_ + rank)))
