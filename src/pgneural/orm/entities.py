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


def hit_of(row: Any, names: Sequence[str]) -> Hit[Any]:
    """Turn a row of `with_entities` with everything into a hit; the names are those of the target's legs."""
    values = row._mapping
    legs = {leg: values[leg] for leg in names if values[leg] is not None}
    legs |= {name.replace("_", " "): values[name] for name in dict(values) if str(name).startswith("boost_")}
    chunk = HitChunk(row.ordinal, row.chunk or "", row.locator or {})
    return Hit(row[0], row.rank, row.score, chunk, legs, row.relaxed)
