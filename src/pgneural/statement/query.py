"""One search as a value: everything that decides the statement, and nothing that executes it."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.sql.expression import ClauseList

from pgneural.filter import settled
from pgneural.statement.fusion import Boost, Fusion, fused
from pgneural.statement.lexical_leg import exclusion, has_exclusion, has_phrase
from pgneural.statement.single import Threshold, by_vectors, by_words
from pgneural.statement.target import LEXICAL, Page, Target
from pgneural.statement.vector_leg import Aggregate
from pgneural.types import Mode, Vector

SENT = {"sent": True}
"""Of a field whose value is sent with the statement (`Query.parameters`): only whether there is one decides it."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked, in which mode.

    Attributes:
        mode: Which legs answer.
        page: Which part of the ranking.
        inputs: What each leg is asked, by its name: a text for ``lexical``; for all others a vector, shape (d,), or an
            expression that gives it. Legs that are not asked are left out.
        text: The text that was asked, for who reads it again (`pgneural.rerank`).
        tokens: What late interaction compares, shape (tokens, dimensions of their space).
        where: The filter, a condition over the source's columns.
        fusion: How a hybrid search joins its legs.
        boosts: Scores from ordinary columns.
        threshold: What a hit must reach.
        aggregate: How the chunks of a row become one score.
    """

    mode: Mode
    page: Page
    inputs: Mapping[str, Any] = field(default_factory=dict, metadata=SENT)
    text: str | None = field(default=None, metadata=SENT)
    tokens: Vector | None = field(default=None, metadata=SENT)
    where: sa.ColumnElement[bool] | None = None
    fusion: Fusion | None = None
    boosts: tuple[Boost, ...] = ()
    threshold: Threshold = Threshold()  # noqa: RUF009
    aggregate: Aggregate = Aggregate()  # noqa: RUF009

    def shape(self) -> Hashable | None:
        """Return what the statement depends on besides `parameters` and the values of `literals`.

        Everything that a field says is in it, unless the field is declared as sent with the statement: whoever adds one
        has nothing to remember. None where something cannot be told by a key; such a statement is built each time.
        """
        shape, _ = self._keyed
        return shape

    def literals(self) -> list[sa.BindParameter[Any]]:
        """Return the parameters of the expressions that the caller gave, in an order that goes with the shape."""
        _, literals = self._keyed
        return list(literals)

    @property
    def read(self) -> str | None:
        """The text whose words are looked up; None where none are."""
        return self.inputs.get(LEXICAL)

    def with_inputs(self, **inputs: Any) -> Query:
        """Return the same with what further legs are asked."""
        return replace(self, inputs={**self.inputs, **inputs})

    @property
    def _operators(self) -> tuple[bool, bool]:
        """Whether there may be phrases, and words that are excluded: the one thing that decides in the text."""
        return has_phrase(self.read or ""), has_exclusion(self.read or "")

    @functools.cached_property
    def _keyed(self) -> tuple[Hashable | None, Sequence[sa.BindParameter[Any]]]:
        expressions: list[sa.ColumnElement[Any]] = []
        try:
            told: tuple[Hashable, ...] = tuple(
                _told(getattr(self, each.name), expressions, sent="sent" in each.metadata) for each in fields(self)
            )
        except _Untold:
            return None, ()
        told = (*told, self._operators)
        if not expressions:
            return told, ()
        # one key for all: what two expressions share, a parameter or an alias, is part of it
        key = ClauseList(*expressions, group=False)._generate_cache_key()
        return (None, ()) if key is None else ((told, key.key), key.bindparams)

    def expressions(self) -> list[tuple[str, sa.ColumnElement[Any]]]:
        """Return the expressions over the source that the caller gave, each with how an error calls it."""
        where = [] if self.where is None else [("filter", self.where)]
        return [*where, *(("boost", boost.by) for boost in self.boosts)]

    def settled(self) -> Query:
        """Return the same, with parameters of expressions that are the expressions' own.

        Raises:
            InvalidFilter: A parameter has no value.
        """
        where = None if self.where is None else settled(self.where, "filter")
        boosts = tuple(replace(boost, by=settled(boost.by, "boost")) for boost in self.boosts)
        same = where is self.where and all(new.by is old.by for new, old in zip(boosts, self.boosts, strict=True))
        return self if same else replace(self, where=where, boosts=boosts)

    def parameters(self, target: Target) -> dict[str, Any]:
        """Return the values of the statement's parameters that change from one query to the next."""
        values: dict[str, Any] = {}
        for leg, value in self.inputs.items():
            if leg == LEXICAL:
                values["neural_text"] = value
            elif isinstance(value, np.ndarray):
                values[f"neural_{leg}"] = target.vectors_of(leg).indexed.storage.bound(value)
        return values

    def select(self, target: Target) -> sa.Select[Any]:
        """Return the statement; its columns are those of `by_vectors`.

        What a query with words excludes is a filter, so that it holds in every leg.
        """
        if self.read is None or not has_exclusion(self.read):
            return self._select(target)
        rest = exclusion(target, self.read)
        return replace(self, where=rest if self.where is None else sa.and_(self.where, rest))._select(target)

    def _select(self, target: Target) -> sa.Select[Any]:
        among: dict[str, Any] = {"where": self.where, "threshold": self.threshold}
        if len(self.inputs) > 1 or self.boosts:
            among |= {"fusion": self.fusion, "boosts": self.boosts, "aggregate": self.aggregate}
            return fused(target, self.page, self.inputs, **among)
        ((leg, value),) = self.inputs.items()
        if leg == LEXICAL:
            return by_words(target, value, self.page, **among)
        vectors = target.vectors_of(leg)
        aggregate = self.aggregate if vectors is target.dense else None
        return by_vectors(target, vectors, value, self.page, **among, aggregate=aggregate)


class _Untold(Exception):
    """A value is of a kind of which nobody knows what it says."""


def _told(value: Any, expressions: list[sa.ColumnElement[Any]], *, sent: bool = False) -> Hashable:
    """Return what a value says, and collect the expressions within."""
    if isinstance(value, sa.ColumnElement):
        expressions.append(value)
        return sa.ColumnElement
    if sent and isinstance(value, Mapping):
        return tuple((name, _told(each, expressions, sent=True)) for name, each in sorted(value.items()))
    if sent and value is not None:
        return "sent"
    if value is None or isinstance(value, str | bool | int | float):
        return type(value), value
    if isinstance(value, Fusion):
        return value
    if isinstance(value, tuple):
        return tuple, *(_told(each, expressions) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), *(_told(getattr(value, each.name), expressions) for each in fields(value))
    raise _Untold
