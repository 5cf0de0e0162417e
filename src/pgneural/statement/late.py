"""Late interaction: the rows of a ranking, compared with the query token by token (sql/30_late_interaction.sql)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY

from pgneural.statement.target import Target


def late_interaction(target: Target, query: str, keys: Sequence[tuple[Any, ...]]) -> sa.Select[Any]:
    """Return the statement that scores rows; columns: the key of the row and ``score``, that of its best chunk.

    Args:
        target: What is searched; it has vectors of tokens.
        query: The tokens of the query, as PostgreSQL reads an array of halfvec.
        keys: Of the rows.
    """
    tokens = target.tokens
    assert tokens is not None
    columns = target.keys_of(tokens)
    query_tokens = sa.cast(sa.cast(query, sa.Text), ARRAY(HALFVEC()))
    score = sa.func.max(sa.func.neural.max_sim(tokens.c.embedding, query_tokens)).label("score")
    return sa.select(*columns, score).where(one_of(columns, keys)).group_by(*columns)


def one_of(columns: Sequence[sa.ColumnElement[Any]], keys: Sequence[tuple[Any, ...]]) -> sa.ColumnElement[bool]:
    """Return the condition that columns have the values of one of these keys."""
    if len(columns) > 1:
        return sa.tuple_(*columns).in_(keys)
    values = [key for (key,) in keys]
    return columns[0] == sa.any_(sa.literal(values, ARRAY(columns[0].type)))
