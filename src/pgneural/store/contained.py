"""Making sure that SQL which was given as text stays in its place, before it is executed: the server's parser reads it.

The text is opened as a cursor twice, and never fetched: once between brackets and once between parentheses. A text that
closes the parenthesis it stands in closes a bracket by a parenthesis, and the other way round; either is no syntax. A
quotation or a comment that it leaves open has nothing behind it that would close it. So what passes is one expression
wherever it stands between parentheses, and no lexer of ours has to know how PostgreSQL reads.

What was read once is not read again over the same engine, except a text with a backslash, which
``standard_conforming_strings`` gives two meanings: it is read each time, over the very connection.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import visitors

from pgneural.errors import InvalidFilter
from pgneural.filter import null_like, reading, tables_of, written_in

KNOWN = 10_000
"""Texts that are remembered for an engine before all are forgotten."""

Named = tuple[str, sa.ColumnElement[Any]]
"""An expression, and how an error calls it."""

_known: weakref.WeakKeyDictionary[sa.Engine, set[tuple[str, str]]] = weakref.WeakKeyDictionary()

_CONDITION = " WHERE {}"
_VALUE = " CROSS JOIN LATERAL (SELECT {}) AS v"
_AROUND = "(ARRAY[{}\n])[1]", "({}\n)"


def require_contained(connection: sa.Connection, source: sa.FromClause, expressions: Sequence[Named]) -> None:
    """Refuse expressions that leave their place, or that PostgreSQL cannot read, before anything is executed.

    The transaction of the connection goes on as before.

    Args:
        connection: That will execute the statement.
        source: Whose columns they may use.
        expressions: The expressions, each with how an error calls it.

    Raises:
        InvalidFilter: With what PostgreSQL said.
    """
    known = _known.setdefault(connection.engine, set())
    for what, each in expressions:
        for template, text in _texts(each):
            if (template, text) in known:
                continue
            message = connection.scalar(_reading(source, text, template))
            if message is not None:
                raise _refused(what, str(message), source)
            if len(known) >= KNOWN:
                known.clear()
            if "\\" not in text:
                known.add((template, text))


def _texts(clause: sa.ColumnElement[Any]) -> Iterator[tuple[str, str]]:
    """Return what is to be read: each text that was given as such, and whole an expression that has others within."""
    written, others = written_in(clause)
    for part in written:
        yield _template(part), part.text
    if others:
        yield _template(clause), str(_without_values(clause).compile(dialect=reading()))


def _template(clause: sa.ColumnElement[Any]) -> str:
    return _CONDITION if isinstance(clause.type, sa.Boolean) else _VALUE


def _without_values(clause: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    def null(element: Any, **_: Any) -> Any:
        return sa.literal_column(null_like(element)) if isinstance(element, sa.BindParameter) else None

    replaced: sa.ColumnElement[Any] = visitors.replacement_traverse(clause, {}, null)
    return replaced


def _reading(source: sa.FromClause, text: str, template: str) -> sa.Select[Any]:
    rows = str(sa.select(sa.literal_column("1")).select_from(source).compile(dialect=reading()))
    statements = [rows + template.replace("{}", around.replace("{}", text)) for around in _AROUND]
    return sa.select(sa.func.neural.unreadable(sa.literal(statements, ARRAY(sa.Text)), type_=sa.Text))


def _refused(what: str, message: str, source: sa.FromClause) -> InvalidFilter:
    if placeholder := re.search(r"\$\d+$", message):
        return InvalidFilter(f"the {what} has a placeholder {placeholder[0]}; write :name, and give its value")
    names = ", ".join(str(getattr(table, "name", table)) for table in tables_of(source))
    return InvalidFilter(f"the {what} does not work: {message.splitlines()[0]}; it may use the columns of {names}")
