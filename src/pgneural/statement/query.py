"""One search as a value: everything that decides the statement, and nothing that executes it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pgneural.statement.fusion import Fusion, hybrid
from pgneural.statement.lexical_leg import lexical
from pgneural.statement.semantic_leg import semantic, vector_text
from pgneural.statement.target import Page, Target
from pgneural.types import Mode, Vector


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked, in which mode.

    Attributes:
        mode: Which legs answer.
        page: Which part of the ranking.
        vector: What the semantic leg compares, shape (d,).
        text: What the lexical leg reads.
        where: The filter, a condition over the source's columns.
        fusion: How a hybrid search joins its legs.
        max_distance: Leave out what is farther.
        min_score: Leave out what scores less.
    """

    mode: Mode
    page: Page
    vector: Vector | None = None
    text: str | None = None
    where: sa.ColumnElement[bool] | None = None
    fusion: Fusion | None = None
    max_distance: float | None = None
    min_score: float | None = None

    def shape(self) -> Hashable | None:
        """Return what the statement depends on besides `parameters`; None where that cannot be told by a key."""
        where = self.where.name if isinstance(self.where, sa.ColumnClause) and self.where.is_literal else self.where
        if isinstance(where, sa.ColumnElement):
            return None
        return self.mode, self.page, where, self.fusion, self.max_distance, self.min_score

    def parameters(self) -> dict[str, str]:
        """Return the values of the statement's parameters that change from one query to the next."""
        vector = {} if self.vector is None or self.mode is Mode.LEXICAL else {"vector": vector_text(self.vector)}
        text = {} if self.text is None or self.mode is Mode.SEMANTIC else {"text": self.text}
        return vector | text

    def select(self, target: Target) -> sa.Select[Any]:
        """Return the statement; its columns are those of `semantic`."""
        if self.mode is Mode.LEXICAL:
            assert self.text is not None
            return lexical(target, self.text, self.page, where=self.where, min_score=self.min_score)
        assert self.vector is not None
        thresholds = {"max_distance": self.max_distance, "min_score": self.min_score}
        if self.mode is Mode.SEMANTIC:
            return semantic(target, self.vector, self.page, where=self.where, **thresholds)
        assert self.text is not None
        return hybrid(target, self.vector, self.text, self.page, where=self.where, fusion=self.fusion, **thresholds)
