"""The statement that gives the entities of a class with their ranks, and what a row of it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from pgneural.search import Hit, HitChunk
from pgneural.statement import Query, Target


def with_entities(mapper: Mapper[Any], target: Target, query: Query, *, whole: bool = False) -> sa.Select[Any]:
    """Join the ranked keys with their entities and their best chunks.

    Args:
        mapper: Of the class.
        target: What is searched.
        query: What is asked.
        whole: With everything that a hit has, and not only what a reader of rows wants.
    """
    ranked = query.select(target).subquery("ranked")
    if whole:
        ranked = sa.select(ranked, sa.func.count().over().label("ranked")).subquery("every")
    chunks = target.chunks
    if not isinstance(chunks, sa.Table):
        chunks = chunks.alias()
    same_chunk = sa.and_(target.same_row(chunks, ranked), chunks.c.ordinal == ranked.c.ordinal)
    same_row = sa.and_(*(column == ranked.c[name] for name, column in target.keys.items()))
    columns = [ranked.c.rank, ranked.c.score, *(ranked.c[leg] for leg in target.legs), ranked.c.relaxed]
    text = chunks.c.text.label("chunk")
    locator = chunks.c.locator if "locator" in chunks.c else sa.null().label("locator")
    boosts = [column for column in ranked.c if column.name.startswith("boost_")]
    rest = [ranked.c.ordinal, ranked.c.strategy, locator, ranked.c.ranked, *boosts] if whole else []
    return (
        sa.select(mapper.class_, *columns, text, *rest)
        .select_from(mapper.class_)
        .join(ranked, same_row)
        .outerjoin(chunks, same_chunk)
        .where(target.space.is_not(None) if isinstance(target.space, sa.ColumnElement) else sa.true())
        .where(*([] if whole else [ranked.c.score.is_not(None)]))  # rows to be like may have no vectors yet
        .order_by(ranked.c.rank)
    )


def hits_of(rows: Sequence[Any], names: Sequence[str]) -> list[Hit[Any]]:
    """Turn the rows of `with_entities` with everything into hits; the names are those of the target's legs."""
    if not rows:
        return []
    fields = rows[0]._fields
    scores = [(name, fields.index(name)) for name in names]
    boosts = [(name.replace("_", " "), place) for place, name in enumerate(fields) if name.startswith("boost_")]
    rank, score, ordinal, text, locator, relaxed = (fields.index(name) for name in _OF_A_HIT)
    return [
        Hit(
            row[0],
            row[rank],
            row[score],
            HitChunk(row[ordinal], row[text] or "", row[locator] or {}),
            {name: row[place] for name, place in scores if row[place] is not None}
            | {name: row[place] for name, place in boosts},
            row[relaxed],
        )
        for row in rows
    ]


_OF_A_HIT = ("rank", "score", "ordinal", "chunk", "locator", "relaxed")
