"""Statements that are built once for all queries of one shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pgneural.filter import require_over
from pgneural.statement.query import Query
from pgneural.statement.target import Target
from pgneural.store.contained import require_contained

MOST_STATEMENTS = 200
"""Statements of different shape that are kept before all are built anew; one takes some 100 kB. With 0 none is kept."""


@dataclass
class CompiledStatement:
    """A statement, and what can be given anew each time.

    Attributes:
        statement: It.
        keys: Of the parameters of expressions that the caller gave.
        ours: Whether all parameters are our own, so that a driver can be given their values as they are.
    """

    statement: sa.Select[Any]
    keys: Sequence[str] = ()
    ours: bool = False
    _text: tuple[str, dict[str, Any]] | None = None

    def text(self, dialect: sa.Dialect) -> tuple[str, dict[str, Any]]:
        """Return it as the driver reads it, with the parameters that are always the same."""
        if self._text is None:
            compiled = self.statement.compile(dialect=dialect)
            self._text = str(compiled), dict(compiled.params)
        return self._text


class StatementCache:
    """The statements over one target; those that differ only in their values are built once.

    Args:
        target: What is searched.
        build: Makes the whole statement of a query.
    """

    def __init__(self, target: Target, build: Callable[[Target, Query], sa.Select[Any]]) -> None:
        self.target, self._build = target, build
        self._built: dict[Hashable, CompiledStatement] = {}
        self._recent: dict[Hashable, Query] = {}

    def recent(self) -> Sequence[Query]:
        """Return a query of each shape that statements are kept for, the one that was asked last at the end."""
        return list(self._recent.values())

    def get(self, query: Query, connection: sa.Connection) -> tuple[CompiledStatement, dict[str, Any]]:
        """Return the statement of a query, with the values of its parameters.

        Raises:
            InvalidFilter: An expression is not over the source, leaves its place, or lacks the value of a parameter.
        """
        query = query.settled()
        require_contained(connection, self.target.source, query.expressions())
        parameters, literals, shape = query.parameters(self.target), query.literals(), query.shape()
        built = None if shape is None or not MOST_STATEMENTS else self._built.get(shape)
        if built is None:
            built = self._anew(query, literals, connection.dialect)
            if shape is None or not MOST_STATEMENTS or (literals and not built.keys):
                return built, parameters
            if len(self._built) >= MOST_STATEMENTS:
                self._built.clear()
                self._recent.clear()
            self._built[shape] = built
        self._recent[shape] = self._recent.pop(shape, query)  # the last in the order
        values = {key: literal.effective_value for key, literal in zip(built.keys, literals, strict=True)}
        return built, {**parameters, **values}

    def _anew(self, query: Query, literals: Sequence[sa.BindParameter[Any]], dialect: sa.Dialect) -> CompiledStatement:
        """Build a statement; without keys if the values of its parameters cannot be given anew."""
        for what, each in query.expressions():
            require_over(self.target.source, each, what)
        statement = self._build(self.target, query)
        if query.shape() is None or (literals and not _has_all(statement, literals, dialect)):
            return CompiledStatement(statement)
        return CompiledStatement(statement, [literal.key for literal in literals], ours=not literals)


def _has_all(statement: sa.Select[Any], literals: Sequence[sa.BindParameter[Any]], dialect: sa.Dialect) -> bool:
    """Whether the values of these parameters can be given anew: SQLAlchemy may have put others in their place."""
    known = {parameter.key for parameter in statement.compile(dialect=dialect).bind_names}
    return all(literal.key in known for literal in literals)
