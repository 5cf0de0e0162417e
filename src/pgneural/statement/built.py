"""Statements that are built once for all queries of one shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pgneural.statement.query import Query
from pgneural.statement.target import Target

KEPT = 200
"""Statements of different shape that are kept before all are built anew; one takes some 100 kB."""


@dataclass
class Built:
    """A statement, and what can be given anew each time.

    Attributes:
        statement: It.
        keys: Of the parameters of expressions that the caller gave.
    """

    statement: sa.Select[Any]
    keys: Sequence[str] = ()
    _text: tuple[str, dict[str, Any]] | None = None

    def text(self, dialect: sa.Dialect) -> tuple[str, dict[str, Any]]:
        """Return it as the driver reads it, with the parameters that are always the same."""
        if self._text is None:
            compiled = self.statement.compile(dialect=dialect)
            self._text = str(compiled), dict(compiled.params)
        return self._text


class Statements:
    """The statements over one target; those that differ only in their values are built once.

    Args:
        target: What is searched.
        build: Makes the whole statement of a query.
    """

    def __init__(self, target: Target, build: Callable[[Target, Query], sa.Select[Any]]) -> None:
        self.target, self._build = target, build
        self._built: dict[Hashable, Built] = {}
        self._asked: dict[Hashable, Query] = {}

    def asked(self) -> Sequence[Query]:
        """Return a query of each shape that statements are kept for, the one that was asked last at the end."""
        return list(self._asked.values())

    def of(self, query: Query, dialect: sa.Dialect) -> tuple[Built, dict[str, Any]]:
        """Return the statement of a query, with the values of its parameters."""
        parameters, literals, shape = query.parameters(self.target), query.literals(), query.shape()
        if shape is None:
            return Built(self._build(self.target, query)), parameters
        built = self._built.get(shape)
        if built is None:
            statement = self._build(self.target, query)
            if literals and not _has_all(statement, literals, dialect):
                return Built(statement), parameters
            if len(self._built) >= KEPT:
                self._built.clear()
                self._asked.clear()
            built = self._built[shape] = Built(statement, [literal.key for literal in literals])
        self._asked[shape] = self._asked.pop(shape, query)  # the last in the order
        values = {key: literal.effective_value for key, literal in zip(built.keys, literals, strict=True)}
        return built, {**parameters, **values}


def _has_all(statement: sa.Select[Any], literals: list[sa.BindParameter[Any]], dialect: sa.Dialect) -> bool:
    """Whether the values of these parameters can be given anew: SQLAlchemy may have put others in their place."""
    known = {parameter.key for parameter in statement.compile(dialect=dialect).bind_names}
    return all(literal.key in known for literal in literals)
