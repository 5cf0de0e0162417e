"""What a search of a space compares: its vectors by leg, and the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from pgneural.statement import Vectors
from pgneural.store.schema import Space
from pgneural.store.space import extra_of, indexed_of
from pgneural.store.vectors import Indexed


def legs_of(chunks: sa.FromClause, indexed: Indexed, per_row: float, extra: Mapping[str, Space]) -> tuple[Vectors, ...]:
    """Return the vectors that the legs of a search compare, those of its chunk table first.

    Args:
        chunks: The chunk table, or what stands for it.
        indexed: What its vectors are, and how they are indexed.
        per_row: How many a source row has on average, at least 1.
        extra: The spaces of extra vectors of the chunks, by kind.
    """
    dense = Vectors("semantic", chunks, indexed, per_row)
    sparse = extra.get("sparse")
    if sparse is None or not isinstance(chunks, sa.Table):
        return (dense,)
    return dense, Vectors("sparse", extra_of(sparse, chunks), indexed_of(sparse), per_row)


def tokens_of(chunks: sa.FromClause, extra: Mapping[str, Space]) -> sa.Table | None:
    """Return the table of the vectors of tokens, where the search has them."""
    tokens = extra.get("tokens")
    return None if tokens is None or not isinstance(chunks, sa.Table) else extra_of(tokens, chunks)
