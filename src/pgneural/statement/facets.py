"""Counting the rows that match: all of them, or by a value of theirs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pgneural.statement.lexical_leg import matching_words
from pgneural.statement.target import Target, constant


def facets(
    target: Target,
    by: sa.SQLColumnExpression[Any],
    text: str | None,
    where: sa.ColumnElement[bool] | None,
    limit: int,
) -> sa.Select[Any]:
    """Return the statement that counts rows by a value, the most frequent first; columns ``value`` and ``rows``.

    Args:
        target: What is counted.
        by: The value.
        text: Count only rows that match it by their words.
        where: Count only rows that pass.
        limit: How many values.
    """
    conditions = _conditions(target, text, where)
    value: sa.Label[Any] = by.label("value")
    rows = sa.func.count().label("rows")
    counted = sa.select(value, rows).select_from(target.rows).where(*conditions).group_by(sa.text("1"))
    return counted.order_by(sa.text("2 DESC, 1")).limit(constant(limit))


def total(target: Target, text: str | None, where: sa.ColumnElement[bool] | None) -> sa.Select[Any]:
    """Return the statement that counts rows; arguments as of `facets`."""
    return sa.select(sa.func.count()).select_from(target.rows).where(*_conditions(target, text, where))


def _conditions(target: Target, text: str | None, where: sa.ColumnElement[bool] | None) -> list[sa.ColumnElement[bool]]:
    conditions = [part for part in (target.scope, where) if part is not None]
    return conditions if text is None else [*conditions, matching_words(target, text)]
