"""The door for filters, boosts and groupings: whatever a caller gives becomes a SQLAlchemy expression, or is refused.

SQL may be given as text, alone or with parameters: ``("metadata->>'lang' = :lang", {"lang": "en"})``. A value is never
part of the text: it is bound, so that no value can change what the text says, and a new value needs no new statement.

A text becomes a `Written`, which says itself what was written. That it stays in its place is seen to by the server's
own parser before the statement is executed (`pgneural.store.contained`). That is no matter of rights: what a text calls
runs with the rights of who searches. So an application must not pass on a text that its users wrote; it writes the text
itself, with their values as parameters.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement

from pgneural.errors import InvalidFilter

Text: TypeAlias = "str | tuple[str, Mapping[str, Any]]"
Filter: TypeAlias = "sa.ColumnExpressionArgument[bool] | sa.TextClause | bool | Text"
Expression: TypeAlias = "sa.SQLColumnExpression[Any] | sa.TextClause | Text"

OURS = "neural_"
"""How the names of the parameters of our own begin."""

# Only to find the parameters: where it errs about a quotation, a parameter stands in it or is missed, which PostgreSQL
# or the comparison with the values then refuses. What a text says is for the server's parser to tell.
_PARAMETER = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*+' | '(?:[^']|'')*+' | "(?:[^"]|"")*+" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    | --[^\n]*+ | /\*.*?\*/ | ::
    | \\(?P<colon>:)
    | (?<![:\w$]) : (?P<name>[^\W\d]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)
_PARAMETER_OF_SQLALCHEMY = re.compile(r"(?<![:\w\\]):(?P<name>\w+)(?!:)|\\(?P<colon>:)")  # as `sqlalchemy.text` has it


class Written(FunctionElement[Any]):
    """SQL that was given as text: pieces of it, with parameters between them."""

    name = "written"
    inherit_cache = True

    @property
    def parts(self) -> Sequence[sa.ColumnElement[Any]]:
        """The pieces, in order: literal columns and parameters."""
        return list(self.clauses)

    @property
    def text(self) -> str:
        """What was written, with NULL for the parameters, and nothing around it."""
        return "".join(part.name if isinstance(part, sa.ColumnClause) else null_like(part) for part in self.parts)


class WrittenCondition(Written):
    """A predicate that was given as text."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(Written)
def _between_parentheses(written: Written, compiler: Any, **options: Any) -> str:
    def rendered(part: sa.ColumnElement[Any]) -> str:
        piece = str(compiler.process(part, **options))
        alone = isinstance(part, sa.BindParameter) and not part.expanding  # several are between parentheses already
        return f"({piece})" if alone else piece

    pieces = "".join(rendered(part) for part in written.parts)
    return f"({pieces}\n)"  # the line break ends a comment that the text ends with


def null_like(parameter: sa.ColumnElement[Any]) -> str:
    """Return NULL of the type of a parameter, between parentheses as the parameter is."""
    if isinstance(parameter.type, sa.types.NullType):
        return "(NULL)"
    return f"({sa.cast(sa.null(), parameter.type).compile(dialect=reading())})"


def reading() -> sa.Dialect:
    """Return a dialect that renders SQL as the server reads it, without the escapes that drivers want."""
    from sqlalchemy.dialects import postgresql

    dialect: sa.Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    return dialect


def condition(where: Filter | None, what: str = "filter") -> sa.ColumnElement[bool] | None:
    """Return a filter as a SQLAlchemy condition.

    Args:
        where: A condition, SQL as text, or text with its parameters; None for no filter.
        what: How an error calls it.

    Raises:
        InvalidFilter: It is none of these, or text and parameters do not go with each other.
    """
    if where is None:
        return None
    if isinstance(where, bool):
        return sa.true() if where else sa.false()
    return _element(where, what, "a SQLAlchemy condition", WrittenCondition)


def expression(value: Expression, what: str = "expression") -> sa.ColumnElement[Any]:
    """Return a value as a SQLAlchemy expression; text and errors are as of `condition`."""
    return _element(value, what, "a SQLAlchemy expression", Written)


def _element(value: Any, what: str, expected: str, written: type[Written]) -> sa.ColumnElement[Any]:
    if isinstance(value, str):
        return written(sa.literal_column(_readable(value, what)))
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping):
        return _with_values(value[0], value[1], what, written)
    found = value.__clause_element__() if hasattr(value, "__clause_element__") else value
    if isinstance(found, sa.TextClause):
        return _from_text(found, what, written)
    if not isinstance(found, sa.ColumnElement):
        raise InvalidFilter(f"the {what} is {_described(found)}, expected {expected}, SQL as text, or {_EXAMPLE}")
    _require_names(found, what)
    if isinstance(found, sa.ColumnClause) and found.is_literal:
        return written(sa.literal_column(_readable(found.name, what)))
    return found


_EXAMPLE = "text with parameters like (\"lang = :lang\", {'lang': 'en'})"


def _described(value: Any) -> str:
    if isinstance(value, sa.Select | sa.CompoundSelect):
        return "a Select, which may have many rows (its .exists() or .scalar_subquery() is one value)"
    if isinstance(value, sa.FromClause):
        return f"rows and not a value, {type(value).__name__}"
    return f"{reprlib.repr(value)} of type {type(value).__name__}"


def _readable(text: str, what: str) -> str:
    if "\0" in text or (not text.isascii() and text.encode("utf-8", "ignore").decode() != text):
        raise InvalidFilter(f"the {what} has a NUL byte or half of a surrogate pair, which is no text; remove it")
    return text


def _with_values(text: str, values: Mapping[str, Any], what: str, written: type[Written]) -> Written:
    """Take names with a colon for parameters, outside of quotations and comments; a backslash makes it a colon."""
    parameters = {name: _parameter(name, value, what) for name, value in values.items()}
    named = {found["name"] for found in _PARAMETER.finditer(text) if found["name"]}
    for name in sorted(named - parameters.keys()):
        raise InvalidFilter(f"the {what} names :{name} and there is no value for it; give one, or write \\:{name}")
    for name in sorted(parameters.keys() - named):
        listed = ", ".join(f":{name}" for name in sorted(named)) or "none"
        raise InvalidFilter(f"the {what} has a value for {name!r} and does not name it; it names {listed}")
    return written(*_parts(_PARAMETER, _readable(text, what), parameters))


def _from_text(clause: sa.TextClause, what: str, written: type[Written]) -> Written:
    """Take over a ``sqlalchemy.text``, with parameters whose names are those of no other."""
    parameters: dict[str, sa.BindParameter[Any]] = {}
    _require_names(clause, what)
    for bound in clause.get_children():
        assert isinstance(bound, sa.BindParameter)
        if bound.required:
            raise InvalidFilter(f"the {what} has a parameter {bound.key!r} without a value; give it with bindparams()")
        parameters[str(bound.key)] = sa.bindparam(
            str(bound.key),
            bound.value,
            bound.type,
            unique=True,
            callable_=bound.callable,
            expanding=bound.expanding,
        )
    return written(*_parts(_PARAMETER_OF_SQLALCHEMY, _readable(clause.text, what), parameters))


def _parts(
    pattern: re.Pattern[str], text: str, parameters: Mapping[str, sa.BindParameter[Any]]
) -> Iterator[sa.ColumnElement[Any]]:
    """Cut a text at its parameters."""
    piece, at = "", 0
    for found in pattern.finditer(text):
        if not (found["name"] or found["colon"]):
            continue
        piece, at = piece + text[at : found.start()], found.end()
        if found["colon"]:
            piece += ":"
            continue
        yield sa.literal_column(piece)
        yield parameters[found["name"]]
        piece = ""
    yield sa.literal_column(piece + text[at:])


def _parameter(name: Any, value: Any, what: str) -> sa.BindParameter[Any]:
    """Return a parameter whose type is for driver and server to tell: a text is read as what stands beside it wants."""
    if not isinstance(name, str) or name.startswith(OURS):
        raise InvalidFilter(f"the {what} has a parameter {name!r}, expected a name that does not begin with {OURS}")
    refused = isinstance(value, Mapping | set | frozenset) or callable(value) or hasattr(value, "__clause_element__")
    if refused or isinstance(value, sa.ClauseElement):
        raise InvalidFilter(f"the parameter {name} is {_described(value)}, expected a text, a number, a date or a list")
    if isinstance(value, str):
        _readable(value, f"parameter {name}")
    return sa.bindparam(name, value, sa.types.NullType(), unique=True)


def _parameters(clause: sa.ClauseElement) -> list[sa.BindParameter[Any]]:
    return [part for part in visitors.iterate(clause) if isinstance(part, sa.BindParameter)]


def _require_names(clause: sa.ClauseElement, what: str) -> None:
    for parameter in _parameters(clause):
        if not parameter.unique and str(parameter.key).startswith(OURS):
            raise InvalidFilter(f"the {what} has a parameter {parameter.key!r}; names that begin with {OURS} are ours")


def settled(clause: sa.ColumnElement[Any], what: str = "filter") -> sa.ColumnElement[Any]:
    """Return an expression whose parameters are its own: two with one name do not overwrite each other.

    Raises:
        InvalidFilter: One of them has no value.
    """
    parameters = _parameters(clause)
    for parameter in parameters:
        if parameter.required:
            raise InvalidFilter(f"the {what} has a parameter {parameter.key!r} without a value; give it one")
    if all(parameter.unique and not parameter.callable for parameter in parameters):
        return clause
    return visitors.cloned_traverse(clause, {"detect_subquery_cols": True}, {"bindparam": _make_own})


def _make_own(parameter: sa.BindParameter[Any]) -> None:
    """Give a parameter a name of its own, and the value that its function has now.

    SQLAlchemy keeps a statement without saying which values are functions, and would not call them in the next one.
    """
    parameter.value, parameter.callable = parameter.effective_value, None
    parameter._convert_to_unique()  # type: ignore[no-untyped-call]


def require_plain(clause: sa.ColumnElement[Any], what: str = "filter") -> None:
    """Refuse a text of which only a server could tell where it ends, for a statement that others will execute.

    Without a backslash, a dollar sign and a comment there is one way to read quotations, whatever the settings: then
    brackets outside of them that match are enough.

    Raises:
        InvalidFilter: The text is not as plain as that.
    """
    for written in visitors.iterate(clause):
        if isinstance(written, Written) and not _plain(written.text):
            raise InvalidFilter(
                f"the {what} has a bracket or a quotation that is not closed, a comment, a backslash, $ or ;, and "
                "select() cannot ask a server about it; write a SQLAlchemy condition, or use all()"
            )


def _plain(text: str) -> bool:
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", " ", text)
    if re.search(r"[\\$]|--|/\*", text) or re.search(r"['\";]", outside):
        return False
    opened: list[str] = []
    for bracket in re.findall(r"[()\[\]]", outside):
        if bracket in "([":
            opened.append(")" if bracket == "(" else "]")
        elif not opened or opened.pop() != bracket:
            return False
    return not opened


def written_in(clause: sa.ColumnElement[Any]) -> tuple[list[Written], bool]:
    """Return what was given as text in an expression, and whether its author put other SQL as text into it."""
    parts, others = [], False
    texts = {id(piece) for part in visitors.iterate(clause) if isinstance(part, Written) for piece in part.parts}
    for part in visitors.iterate(clause):
        if isinstance(part, Written):
            parts.append(part)
        elif isinstance(part, sa.TextClause) or (isinstance(part, sa.ColumnClause) and part.is_literal):
            text = part.text if isinstance(part, sa.TextClause) else part.name
            others = others or (id(part) not in texts and not re.fullmatch(r"\w+|\*", text))
    return parts, others


def require_over(
    source: sa.FromClause, clause: sa.ColumnElement[Any], what: str = "filter", *, functions: bool = False
) -> None:
    """Refuse an expression over other rows than those of a source: each of its rows would come once with each of them.

    Args:
        source: The rows that it may use.
        clause: The expression.
        what: How an error calls it.
        functions: Whether a function may make rows of each.

    Raises:
        InvalidFilter: With the remedy.
    """
    mine = {getattr(table, "fullname", None) for table in tables_of(source)}
    for table in read_by(clause):
        is_function = functions and isinstance(table, sa.TableValuedAlias)
        if getattr(table, "fullname", None) not in mine and not is_function:
            other = getattr(table, "name", table)
            raise InvalidFilter(
                f"the {what} is over another table, {other}; reach it through a subquery, as in exists()"
            )


def read_by(clause: sa.ColumnElement[Any]) -> list[sa.FromClause]:
    """Return the tables that an expression reads from itself, and not in a subquery."""
    return [table for rows in sa.select(clause).columns_clause_froms for table in tables_of(rows)]


def tables_of(rows: sa.FromClause) -> list[sa.FromClause]:
    """Return what rows are joined of."""
    return [*tables_of(rows.left), *tables_of(rows.right)] if isinstance(rows, sa.Join) else [rows]
