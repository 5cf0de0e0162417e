"""The operations of a migration: each can be written by hand, and each has a reverse.

::

    op.create_search("articles", "search", key=[sa.Column("id", sa.Integer())], reads="SELECT …", encoder="minilm", …)
    op.change_search(…)     another content, language, chunking: the tables stay, every row becomes pending
    op.drop_search("articles", "search", …)
    op.create_vector_index("articles_search_embedding_idx", "articles_search", "embedding", …)
    op.drop_vector_index("articles_search_embedding_idx", "articles_search", …)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations, ops

from pgneural.errors import InvalidIndex, SchemaNotInstalled
from pgneural.store.definition import SearchDefinition, change_statements, create_statements, drop_statements
from pgneural.store.engine import quoted, quoted_table
from pgneural.store.vectors import Storage, VectorIndex
from pgneural.types import Distance, Sync

VECTOR_METHODS = ("hnsw", "ivfflat")


def definition(source: str, attribute: str, **options: Any) -> SearchDefinition:
    """Return a search as it is written in a migration: names and plain values.

    Args:
        source: The table.
        attribute: The name of the search.
        **options: As of `SearchDefinition`; ``key`` as columns of the table, ``index`` as a mapping.
    """
    index = options.pop("index", None)
    kinds = {"distance": Distance, "storage": Storage, "sync": Sync, "key": tuple}
    values = {name: kinds[name](value) if name in kinds else value for name, value in options.items()}
    if index is not None:
        values["index"] = VectorIndex(**index)
    return SearchDefinition(source=source, attribute=attribute, **values)


class CreateSearchOp(ops.MigrateOperation):
    """Make a search of a table: its chunk table, its words, its triggers, its space in the catalog."""

    def __init__(self, definition: SearchDefinition) -> None:
        self.definition = definition

    @classmethod
    def create_search(cls, operations: Operations, source: str, attribute: str, **options: Any) -> None:
        """Make a search of a table; every row of it becomes pending.

        The vector index is an operation of its own, `create_vector_index`.

        Args:
            operations: Of Alembic.
            source: The table.
            attribute: The name of the search; its chunk table is ``<source>_<attribute>``.
            **options: As of `pgneural.store.definition.SearchDefinition`: ``key`` (its primary key, as columns),
                ``reads`` (the SELECT of what is searchable), ``watched`` (the tables and columns that it depends on),
                ``encoder``, ``dimensions``, ``options``, ``distance``, ``storage``, ``index``, ``max_tokens``,
                ``overlap``, ``language``, ``title_boost``, ``sync``, ``column``, ``schema``.

        Raises:
            SchemaNotInstalled: The database has no schema ``neural``; run ``pgneural db upgrade`` first.
        """
        operations.invoke(cls(definition(source, attribute, **options)))

    def reverse(self) -> DropSearchOp:
        """Return the operation that drops it."""
        return DropSearchOp(self.definition)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return it for ``compare_metadata``."""
        return "create_search", self.definition.source, self.definition.attribute


class DropSearchOp(ops.MigrateOperation):
    """Drop a search; the table itself stays as it is."""

    def __init__(self, definition: SearchDefinition) -> None:
        self.definition = definition

    @classmethod
    def drop_search(cls, operations: Operations, source: str, attribute: str, **options: Any) -> None:
        """Drop a search; arguments are those of `create_search`, so that it can be made again."""
        operations.invoke(cls(definition(source, attribute, **options)))

    def reverse(self) -> CreateSearchOp:
        """Return the operation that makes it again; its vectors are encoded anew."""
        return CreateSearchOp(self.definition)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return it for ``compare_metadata``."""
        return "drop_search", self.definition.source, self.definition.attribute


class ChangeSearchOp(ops.MigrateOperation):
    """Let a search read, cut or sync otherwise; its tables stay."""

    def __init__(self, before: SearchDefinition, after: SearchDefinition) -> None:
        self.before, self.after = before, after

    @classmethod
    def change_search(
        cls,
        operations: Operations,
        source: str,
        attribute: str,
        *,
        existing: Mapping[str, Any],
        **options: Any,
    ) -> None:
        """Change a search; what depends on the change is encoded anew.

        Args:
            operations: Of Alembic.
            source: The table.
            attribute: The name of the search.
            existing: What is changed, as it was.
            **options: As of `create_search`.
        """
        after = definition(source, attribute, **options)
        operations.invoke(cls(replace(after, **_plain(existing)), after))

    def reverse(self) -> ChangeSearchOp:
        """Return the operation that changes it back."""
        return ChangeSearchOp(self.after, self.before)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return it for ``compare_metadata``."""
        return "change_search", self.after.source, self.after.attribute


def _plain(existing: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(existing)
    if "index" in values:
        values["index"] = VectorIndex(**values["index"])
    if "sync" in values:
        values["sync"] = Sync(values["sync"])
    return values


@dataclass(frozen=True)
class VectorIndexDefinition:
    """An index of pgvector.

    Attributes:
        name: Its name.
        table: The table.
        expression: The column, or the expression in parentheses, as SQL.
        operator_class: For example ``halfvec_cosine_ops``; empty where the expression ends with it.
        method: ``hnsw`` or ``ivfflat``.
        options: ``m`` and ``ef_construction``, or ``lists``.
        where: The condition of a partial index, as SQL.
        schema: Of the table.
    """

    name: str
    table: str
    expression: str
    operator_class: str
    method: str = "hnsw"
    options: Mapping[str, int] = field(default_factory=dict)
    where: str | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        """Refuse an index that is not of pgvector."""
        if self.method not in VECTOR_METHODS:
            raise InvalidIndex(f"method is {self.method!r}, expected {' or '.join(VECTOR_METHODS)}")

    def create(self, *, concurrently: bool = False, table: str | None = None) -> str:
        """Return the statement that makes it."""
        options = ", ".join(f"{key} = {value}" for key, value in sorted(self.options.items()))
        return (
            f"CREATE INDEX {'CONCURRENTLY ' * concurrently}{quoted(self.name)} "
            f"ON {table or quoted_table(self.table, self.schema)} "
            f"USING {self.method} ({f'{self.expression} {self.operator_class}'.strip()})"
            + (f" WITH ({options})" if options else "")
            + (f" WHERE {self.where}" if self.where else "")
        )


class CreateVectorIndexOp(ops.MigrateOperation):
    """Make an index of pgvector."""

    def __init__(self, index: VectorIndexDefinition, *, concurrently: bool = False) -> None:
        self.index, self.concurrently = index, concurrently

    @classmethod
    def create_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        expression: str,
        *,
        concurrently: bool = False,
        **options: Any,
    ) -> None:
        """Make an index of pgvector.

        Args:
            operations: Of Alembic.
            index_name: Its name.
            table_name: The table.
            expression: The column, or an expression in parentheses, as SQL.
            concurrently: Without keeping writers waiting; within ``op.get_context().autocommit_block()``. What an
                interrupted build of this name has left is removed first.
            **options: ``operator_class`` (for example ``vector_cosine_ops``), ``method``, ``options`` (``m`` and
                ``ef_construction``, or ``lists``), ``where`` and ``schema``, as of `VectorIndexDefinition`.

        Raises:
            InvalidIndex: pgvector has no such method.
        """
        index = VectorIndexDefinition(index_name, table_name, expression, **options)
        operations.invoke(cls(index, concurrently=concurrently))

    def reverse(self) -> DropVectorIndexOp:
        """Return the operation that drops it."""
        return DropVectorIndexOp(self.index, concurrently=self.concurrently)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return it for ``compare_metadata``."""
        return "create_vector_index", self.index.table, self.index.name


class DropVectorIndexOp(ops.MigrateOperation):
    """Drop an index of pgvector."""

    def __init__(self, index: VectorIndexDefinition, *, concurrently: bool = False) -> None:
        self.index, self.concurrently = index, concurrently

    @classmethod
    def drop_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        expression: str,
        *,
        concurrently: bool = False,
        **options: Any,
    ) -> None:
        """Drop an index of pgvector; arguments are those of `create_vector_index`, so that it can be made again."""
        index = VectorIndexDefinition(index_name, table_name, expression, **options)
        operations.invoke(cls(index, concurrently=concurrently))

    def reverse(self) -> CreateVectorIndexOp:
        """Return the operation that makes it again."""
        return CreateVectorIndexOp(self.index, concurrently=self.concurrently)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return it for ``compare_metadata``."""
        return "drop_vector_index", self.index.table, self.index.name


_OPERATIONS: Mapping[str, type[ops.MigrateOperation]] = {
    "create_search": CreateSearchOp,
    "drop_search": DropSearchOp,
    "change_search": ChangeSearchOp,
    "create_vector_index": CreateVectorIndexOp,
    "drop_vector_index": DropVectorIndexOp,
}


def _register() -> None:
    """Give ``alembic.op`` the operations."""
    for name, operation in _OPERATIONS.items():
        Operations.register_operation(name)(operation)
    Operations.implementation_for(CreateSearchOp)(_create_search)
    Operations.implementation_for(DropSearchOp)(_drop_search)
    Operations.implementation_for(ChangeSearchOp)(_change_search)
    Operations.implementation_for(CreateVectorIndexOp)(_create_vector_index)
    Operations.implementation_for(DropVectorIndexOp)(_drop_vector_index)


def _create_search(operations: Operations, operation: CreateSearchOp) -> None:
    _require_schema(operations)
    for statement in create_statements(operation.definition):
        operations.execute(statement)


def _drop_search(operations: Operations, operation: DropSearchOp) -> None:
    _require_schema(operations)
    for statement in drop_statements(operation.definition):
        operations.execute(statement)


def _change_search(operations: Operations, operation: ChangeSearchOp) -> None:
    _require_schema(operations)
    for statement in change_statements(operation.before, operation.after):
        operations.execute(statement)


def _create_vector_index(operations: Operations, operation: CreateVectorIndexOp) -> None:
    index = operation.index
    if operation.concurrently and _invalid(operations, index):
        operations.execute(f"DROP INDEX CONCURRENTLY {quoted_table(index.name, index.schema)}")
    operations.execute(_text(index.create(concurrently=operation.concurrently)))


def _drop_vector_index(operations: Operations, operation: DropVectorIndexOp) -> None:
    index = operation.index
    how = "CONCURRENTLY IF EXISTS " if operation.concurrently else ""
    operations.execute(_text(f"DROP INDEX {how}{quoted_table(index.name, index.schema)}"))


def _text(statement: str) -> sa.TextClause:
    return sa.text(statement.replace(":", "\\:"))


def _invalid(operations: Operations, index: VectorIndexDefinition) -> bool:
    """Whether an interrupted build has left an index of this name."""
    if operations.get_context().as_sql:
        return False
    invalid = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(operations.get_bind().scalar(invalid, {"name": quoted_table(index.name, index.schema)}))


def _require_schema(operations: Operations) -> None:
    if operations.get_context().as_sql:
        return
    if operations.get_bind().scalar(sa.text("SELECT to_regclass('neural.changes')")) is None:
        raise SchemaNotInstalled(
            "the database has no schema neural, or an old one; run: pgneural db upgrade, then this migration again"
        )


def plain(definition: SearchDefinition) -> dict[str, Any]:
    """Return a search as `declared` takes it: the key left out, the rest as plain values."""
    return {
        "reads": definition.reads,
        "watched": {table: list(columns) for table, columns in definition.watched.items()},
        "encoder": definition.encoder,
        "dimensions": definition.dimensions,
        "options": dict(definition.options),
        "distance": str(definition.distance),
        "storage": str(definition.storage),
        "max_tokens": definition.max_tokens,
        "overlap": definition.overlap,
        "language": definition.language,
        "title_boost": definition.title_boost,
        "sync": str(definition.sync),
        "column": definition.column,
        "schema": definition.schema,
        "index": {name: str(v) if isinstance(v, str) else v for name, v in definition.index.as_json().items()},
    }


def unusual(definition: SearchDefinition) -> dict[str, Any]:
    """Return the same without what it says by default."""
    default = plain(
        SearchDefinition(definition.source, definition.attribute, (), "", definition.encoder, definition.dimensions)
    )
    values = {name: value for name, value in plain(definition).items() if name in _ALWAYS or value != default[name]}
    if "index" in values:
        values["index"] = {name: value for name, value in values["index"].items() if value != default["index"][name]}
    return values


_ALWAYS = ("reads", "watched", "encoder", "dimensions")


def changes(before: SearchDefinition, after: SearchDefinition) -> Sequence[str]:
    """Return the names of what differs between two searches of one table, as `declared` takes it."""
    return [name for name in _CHANGEABLE if getattr(before, name) != getattr(after, name)]


_CHANGEABLE = ("reads", "watched", "max_tokens", "overlap", "language", "title_boost", "sync", "index")


_register()
