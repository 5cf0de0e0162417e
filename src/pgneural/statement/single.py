"""A search by one leg alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pgneural.statement.lexical_leg import LexicalLeg
from pgneural.statement.probe import Probe
from pgneural.statement.target import LEXICAL, Page, Target, Vectors
from pgneural.statement.vector_leg import WINDOW, Aggregate, VectorLeg
from pgneural.types import Vector


@dataclass(frozen=True)
class Threshold:
    """What a hit must reach.

    Attributes:
        max_distance: Leave out what is farther.
        min_score: Leave out what scores less.
    """

    max_distance: float | None = None
    min_score: float | None = None

    def of(
        self, wanted: sa.Select[Any], distance: sa.ColumnElement[Any] | None, score: sa.ColumnElement[Any]
    ) -> sa.Select[Any]:
        """Apply it to a ranking that is complete: within an index scan it would make the scan run to its end."""
        if self.max_distance is not None and distance is not None:
            wanted = wanted.where(distance <= self.max_distance)
        return wanted if self.min_score is None else wanted.where(score >= self.min_score)


def by_vectors(
    target: Target,
    vectors: Vectors,
    vector: Vector | sa.ColumnElement[Any],
    page: Page,
    *,
    where: sa.ColumnElement[bool] | None = None,
    threshold: Threshold = Threshold(),
    aggregate: Aggregate | None = None,
) -> sa.Select[Any]:
    """Return the statement that finds the nearest source rows under a filter.

    It never comes back short: a full page if so many rows pass the filter. Columns: ``rank`` from 1, the key of
    the source row as ``source_…``, ``ordinal`` of its best chunk, ``score`` (larger is better), ``strategy``
    (``exact``, ``near`` or ``fallback``), ``relaxed`` (whether the row was found without a phrase that was asked for),
    and for each leg of the target what it contributed.

    Args:
        target: What to search.
        vectors: By which of its vectors.
        vector: The query, shape (d,).
        page: Which part of the ranking.
        where: A condition over the source's columns, as in any ``Select``.
        threshold: What a hit must reach.
        aggregate: How the chunks of a row become one score.
    """
    probe = Probe(target, where, page.end)
    size = {"rows": page.limit * WINDOW, "enough": page.end}
    leg = VectorLeg(target, vectors, vector, probe, page, **size, aggregate=aggregate)
    wanted = threshold.of(sa.select(leg.rows), leg.rows.c.distance, leg.score(leg.rows.c.distance))
    best = page.cut(wanted, leg.order(leg.rows)).subquery("best")
    score = leg.score(best.c.distance)
    return sa.select(
        page.rank(leg.order(best)),
        *target.keys_of(best),
        best.c.ordinal,
        score.label("score"),
        leg.strategy.label("strategy"),
        sa.false().label("relaxed"),
        *contributions(target, {vectors.leg: score}),
    )


def by_words(
    target: Target,
    text: str,
    page: Page,
    *,
    where: sa.ColumnElement[bool] | None = None,
    threshold: Threshold = Threshold(),
) -> sa.Select[Any]:
    """Return the statement that ranks the rows with words of the query by BM25; columns as of `by_vectors`.

    Rows that have its phrases come first.
    """
    probe = Probe(target, where, page.end, by_words=True)
    leg = LexicalLeg(target, text, probe, rows=page.end, guaranteed=page.end, wanted=page.end)
    wanted = threshold.of(sa.select(leg.rows), None, leg.rows.c.bm25)
    best = page.cut(wanted, leg.order(leg.rows)).subquery("best")
    chunk = leg.best_chunk(best)
    columns = [
        page.rank(leg.order(best)),
        *target.keys_of(best),
        sa.func.coalesce(chunk.c.ordinal, 0).label("ordinal"),
        best.c.bm25.label("score"),
        leg.strategy.label("strategy"),
        leg.unmet(best).label("relaxed"),
        *contributions(target, {LEXICAL: best.c.bm25}),
    ]
    return sa.select(*columns).select_from(best.outerjoin(chunk, sa.true()))


def contributions(target: Target, scores: Mapping[str, sa.ColumnElement[Any]]) -> list[sa.Label[Any]]:
    """Return a column for each leg of a target: what it contributed, NULL where it was not asked."""
    nothing = sa.null().cast(sa.Float)
    return [scores.get(leg, nothing).label(leg) for leg in target.legs]
