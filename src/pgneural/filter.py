"""A filter that was written as SQL text: taken as it is, once it is sure to stay inside its parentheses.

The text stands in our statement as a predicate between parentheses. Whoever may search may read, so this is
no matter of rights; but a text like ``false) OR (true`` would escape the collection by accident.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from pgneural.errors import InvalidFilter

_TOKEN = re.compile(
    r"""
      (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*+' | '(?:[^']|'')*+' | "(?:[^"]|"")*+" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
                  | --[^\n]*+ | /\*.*?\*/ )
    | (?P<open> ' | " | /\* | \$\w*\$ )
    | (?P<placeholder> (?<![\w$]) \$\d+ )
    | (?P<parenthesis> [()] )
    """,
    re.VERBOSE | re.DOTALL,
)


def condition(where: sa.ColumnElement[bool] | str | None) -> sa.ColumnElement[bool] | None:
    """Return a filter as a SQLAlchemy condition.

    Raises:
        InvalidFilter: The text has parentheses that do not match, an open quotation or a placeholder.
    """
    if not isinstance(where, str):
        return where
    _require_closed(where)
    # the line break keeps a comment at the end from swallowing what follows
    return sa.literal_column(f"({where}\n)", sa.Boolean)


def expression(value: sa.SQLColumnExpression[Any] | str) -> sa.SQLColumnExpression[Any]:
    """Return a value as a SQLAlchemy expression; a text is taken as a filter's is.

    Raises:
        InvalidFilter: As of `condition`.
    """
    if not isinstance(value, str):
        return value
    _require_closed(value)
    return sa.literal_column(f"({value}\n)")


def _require_closed(where: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(where):
        if token["open"]:
            raise InvalidFilter(f"the filter has an open {token['open']} at character {token.start()}; close it")
        if token["placeholder"]:
            raise InvalidFilter(f"the filter has a placeholder {token['placeholder']}; write the value itself")
        depth += {"(": 1, ")": -1}.get(token["parenthesis"] or "", 0)
        if depth < 0:
            break
    if depth:
        raise InvalidFilter("the filter has parentheses that do not match; close each that is opened")
