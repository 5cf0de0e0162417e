"""Writing the operations down as Python, with the imports that they need."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.render import _repr_type, renderers

from pgneural.migrate.operations import (
    ChangeSearchOp,
    CreateSearchOp,
    CreateVectorIndexOp,
    DropSearchOp,
    DropVectorIndexOp,
    VectorIndexDefinition,
    changes,
    plain,
    unusual,
)
from pgneural.store.definition import SearchDefinition

LINE = 90
"""How long a text may be before it is written on several lines."""

_VECTOR_TYPES = ("vector", "halfvec", "sparsevec")
_registered: list[bool] = []


def register() -> None:
    """Have Alembic write our operations down."""
    if _registered:
        return
    _registered.append(True)
    renderers.dispatch_for(CreateSearchOp)(_create_search)
    renderers.dispatch_for(DropSearchOp)(_drop_search)
    renderers.dispatch_for(ChangeSearchOp)(_change_search)
    renderers.dispatch_for(CreateVectorIndexOp)(_create_vector_index)
    renderers.dispatch_for(DropVectorIndexOp)(_drop_vector_index)


def import_vector_types(context: Any) -> None:
    """Write pgvector's types with their import, unless the user's ``render_item`` has something to say."""
    theirs = context.opts.get("render_item")
    if getattr(theirs, "of_pgneural", False):
        return

    def render_item(kind: str, item: Any, inner: Any) -> Any:
        rendered = theirs(kind, item, inner) if theirs else False
        vectors = any(base.__module__.startswith("pgvector.") for base in type(item).__mro__)
        if rendered is False and kind == "type" and vectors:
            inner.imports.add("import pgvector.sqlalchemy")
            return f"pgvector.sqlalchemy.{item!r}"
        return rendered

    render_item.of_pgneural = True  # type: ignore[attr-defined]
    context.opts["render_item"] = render_item


def know_vector_types(context: Any) -> None:
    """Have reflection know the types where the extension lies in a schema off the search path."""
    where = sa.text(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    )
    schema, dialect = context.connection.scalar(where), context.connection.dialect
    names = {f"{schema}.{name}": dialect.ischema_names[name] for name in _VECTOR_TYPES if name in dialect.ischema_names}
    dialect.ischema_names = {**dialect.ischema_names, **names}


def _create_search(context: Any, operation: CreateSearchOp) -> str:
    return _search(context, "create_search", operation.definition)


def _drop_search(context: Any, operation: DropSearchOp) -> str:
    return _search(context, "drop_search", operation.definition)


def _change_search(context: Any, operation: ChangeSearchOp) -> str:
    before, after = operation.before, operation.after
    existing = {name: plain(before)[name] for name in changes(before, after)}
    return _search(context, "change_search", after, existing=existing)


def _search(context: Any, name: str, definition: SearchDefinition, **more: Any) -> str:
    context.imports.add("import pgneural.migrate.operations")
    arguments = [f"{definition.source!r}, {definition.attribute!r}"]
    columns = ", ".join(f"sa.Column({column.name!r}, {_repr_type(column.type, context)})" for column in definition.key)
    arguments.append(f"key=[{columns}]")
    arguments += [f"{key}={_written(value)}" for key, value in {**unusual(definition), **more}.items()]
    return _call(context, name, arguments)


def _written(value: Any) -> str:
    """Return a value as Python; a long text on several lines."""
    if not isinstance(value, str) or len(value) <= LINE:
        return repr(value)
    pieces = re.findall(rf".{{1,{LINE}}}(?: |$)|\S+ ?", value, re.DOTALL)
    return "\n        ".join(["", *map(repr, pieces)]) if "".join(pieces) == value else repr(value)


def _create_vector_index(context: Any, operation: CreateVectorIndexOp) -> list[str]:
    return _vector_index(context, "create_vector_index", operation.index, operation.concurrently)


def _drop_vector_index(context: Any, operation: DropVectorIndexOp) -> list[str]:
    return _vector_index(context, "drop_vector_index", operation.index, operation.concurrently)


def _vector_index(context: Any, name: str, index: VectorIndexDefinition, concurrently: bool) -> list[str]:
    context.imports.add("import pgneural.migrate.operations")
    arguments = [
        f"{index.name!r}, {index.table!r}, {index.expression!r}",
        f"operator_class={index.operator_class!r}, method={index.method!r}, options={dict(index.options)!r}",
    ]
    arguments += [f"{key}={value!r}" for key, value in (("where", index.where), ("schema", index.schema)) if value]
    if not concurrently:
        return [_call(context, name, arguments)]
    lines = _call(context, name, [*arguments, "concurrently=True"])
    return ["with op.get_context().autocommit_block():\n" + _indented(lines)]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _call(context: Any, name: str, arguments: list[str]) -> str:
    prefix = context.opts["alembic_module_prefix"]
    return f"{prefix}{name}(\n    " + ",\n    ".join(arguments) + "\n)"
