"""One search as a value: everything that decides the statement, and nothing that executes it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from pgneural.statement.fusion import Boost, Fusion, fused
from pgneural.statement.lexical_leg import exclusion, has_exclusion, has_phrase
from pgneural.statement.single import Threshold, by_vectors, by_words
from pgneural.statement.target import Page, Target
from pgneural.statement.vector_leg import Aggregate
from pgneural.store.vectors import Storage
from pgneural.types import Mode, Vector


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked, in which mode.

    Attributes:
        mode: Which legs answer.
        page: Which part of the ranking.
        vector: What the semantic leg compares, shape (d,), or an expression that gives it.
        text: What the lexical leg reads.
        sparse: What the sparse leg compares, shape (dimensions of its space,).
        tokens: What late interaction compares, shape (tokens, dimensions of their space).
        where: The filter, a condition over the source's columns.
        fusion: How a hybrid search joins its legs.
        boosts: Scores from ordinary columns.
        threshold: What a hit must reach.
        aggregate: How the chunks of a row become one score.
    """

    mode: Mode
    page: Page
    vector: Vector | sa.ColumnElement[Any] | None = None
    text: str | None = None
    sparse: Vector | None = None
    tokens: Vector | None = None
    where: sa.ColumnElement[bool] | None = None
    fusion: Fusion | None = None
    boosts: tuple[Boost, ...] = ()
    threshold: Threshold = Threshold()  # noqa: RUF009
    aggregate: Aggregate = Aggregate()  # noqa: RUF009

    def shape(self) -> Hashable | None:
        """Return what the statement depends on besides `parameters` and the values of `literals`.

        None where that cannot be told by a key.
        """
        keys = [_cache_key(expression) for expression in self._expressions()]
        if any(key is None for key in keys):
            return None
        weights = tuple(boost.weight for boost in self.boosts)
        expressions = tuple(key.key for key in keys)
        asked = isinstance(self.vector, np.ndarray), self.where is None, self.sparse is None, self._operators
        return self.mode, self.page, expressions, self.fusion, weights, self.threshold, self.aggregate, asked

    def literals(self) -> list[sa.BindParameter[Any]]:
        """Return the parameters of the expressions that the caller gave, in an order that goes with the shape."""
        keys = (_cache_key(expression) for expression in self._expressions())
        return [parameter for key in keys if key for parameter in key.bindparams]

    @property
    def read(self) -> str | None:
        """The text whose words are looked up; None in a mode that looks up none."""
        return self.text if self.mode in (Mode.LEXICAL, Mode.HYBRID) else None

    @property
    def _operators(self) -> tuple[bool, bool]:
        """Whether there may be phrases, and words that are excluded."""
        return has_phrase(self.read or ""), has_exclusion(self.read or "")

    def _expressions(self) -> list[sa.ColumnElement[Any]]:
        given = (self.where, self.vector, *(boost.by for boost in self.boosts))
        return [part for part in given if isinstance(part, sa.ColumnElement)]

    def parameters(self, target: Target) -> dict[str, Any]:
        """Return the values of the statement's parameters that change from one query to the next."""
        values: dict[str, Any] = {}
        if isinstance(self.vector, np.ndarray) and self.mode in (Mode.SEMANTIC, Mode.HYBRID):
            values["neural_vector"] = target.dense.indexed.storage.bound(self.vector)
        if self.text is not None and self.mode in (Mode.LEXICAL, Mode.HYBRID):
            values["neural_text"] = self.text
        if self.sparse is not None and self.mode in (Mode.SPARSE, Mode.HYBRID):
            values["neural_sparse"] = Storage.SPARSEVEC.bound(self.sparse)
        return values

    def select(self, target: Target) -> sa.Select[Any]:
        """Return the statement; its columns are those of `by_vectors`.

        What a query with words excludes is a filter, so that it holds in every leg.
        """
        if self.read is None or not has_exclusion(self.read):
            return self._select(target)
        kept = exclusion(target, self.read)
        return replace(self, where=kept if self.where is None else sa.and_(self.where, kept))._select(target)

    def _select(self, target: Target) -> sa.Select[Any]:
        if self.mode is Mode.HYBRID or self.boosts:
            return self._fused(target)
        among: dict[str, Any] = {"where": self.where, "threshold": self.threshold}
        if self.mode is Mode.LEXICAL:
            assert self.text is not None
            return by_words(target, self.text, self.page, **among)
        if self.mode is Mode.SPARSE:
            assert self.sparse is not None
            assert target.sparse is not None
            return by_vectors(target, target.sparse, self.sparse, self.page, **among)
        assert self.vector is not None
        return by_vectors(target, target.dense, self.vector, self.page, **among, aggregate=self.aggregate)

    def _fused(self, target: Target) -> sa.Select[Any]:
        return fused(
            target,
            self.page,
            vector=self.vector if self.mode in (Mode.SEMANTIC, Mode.HYBRID) else None,
            text=self.text if self.mode in (Mode.LEXICAL, Mode.HYBRID) else None,
            sparse=self.sparse if self.mode in (Mode.SPARSE, Mode.HYBRID) else None,
            where=self.where,
            fusion=self.fusion,
            boosts=self.boosts,
            threshold=self.threshold,
            aggregate=self.aggregate,
        )


def _cache_key(expression: sa.ColumnElement[Any]) -> Any:
    return expression._generate_cache_key()
