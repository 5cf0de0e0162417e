"""From a class and its `Searchable` to a value that says what the database has to hold, checked."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute, MappedColumn, Mapper, RelationshipProperty
from sqlalchemy.sql import visitors

from pgneural import encoders
from pgneural.chunk import OVERLAP_SHARE
from pgneural.encoders.permitted import permit
from pgneural.errors import InvalidDeclaration, PgneuralError
from pgneural.store.definition import SearchDefinition
from pgneural.store.tables import NAME_BYTES
from pgneural.store.vectors import Indexed, Method, Precision, Storage, VectorIndex, chosen, required_storage
from pgneural.types import Distance, Encoder

Field = str | sa.ColumnElement[Any] | InstrumentedAttribute[Any] | MappedColumn[Any] | Callable[[Any], Any]
"""The name of an attribute, a column, or a function from the class to an expression over its row."""

_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


class Content:
    """What is searchable of a class, as expressions over the tables that it is mapped to.

    Attributes:
        title: What is put before every chunk; None if there is one field only.
        content: What is cut into chunks.
        language: What gives the language of a row; None where all have one.
    """

    def __init__(self, mapper: Mapper[Any], attribute: str, fields: Sequence[Field], language: Field | None) -> None:
        self.mapper, self._where = mapper, f"{mapper.class_.__name__}.{attribute}"
        expressions = [_text(self._expression(field)) for field in fields]
        heading, rest = (expressions[:1], expressions[1:]) if len(expressions) > 1 else ([], expressions)
        self.title = heading[0] if heading else None
        between = sa.literal_column(r"E'\n\n'", sa.Text)
        self.content = rest[0] if len(rest) == 1 else sa.func.pg_catalog.concat_ws(between, *rest)
        self.language = None if language is None else self._expression(language)

    def select(self) -> sa.Select[Any]:
        """Return the SELECT of the key, the title, the content and the language of every row."""
        nothing = sa.cast(sa.null(), sa.Text)
        parts = {"title": self.title, "content": self.content, "language": self.language}
        columns = [(nothing if part is None else part).label(name) for name, part in parts.items()]
        keys = [column.label(f"source_{column.name}") for column in _key(self.mapper)]
        selected = sa.select(*keys, *columns).select_from(self.mapper.persist_selectable)
        condition = single_table_condition(self.mapper)
        return selected if condition is None else selected.where(condition)

    def text(self) -> str:
        """Return the same as SQL."""
        try:
            compiled = self.select().compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
        except sa.exc.CompileError as error:
            raise InvalidDeclaration(
                f"{self._where}: the content cannot be written as SQL: {error}; use values that have a literal"
            ) from error
        return re.sub(r" ?\n(FROM|WHERE|JOIN) ", r" \1 ", str(compiled))

    def watched(self) -> dict[str, list[str]]:
        """Return the tables, and of each the columns, that the content depends on.

        Raises:
            InvalidDeclaration: It depends on a table that the class is not mapped to.
        """
        mine = {table.fullname: table for table in self.mapper.tables}
        found: dict[str, list[str]] = defaultdict(list)
        for column in self._columns():
            table = column.table.fullname
            if table not in mine:
                raise InvalidDeclaration(
                    f"{self._where} reads table {table}, whose changes would go unnoticed; "
                    "search what stands in the row itself, or keep a copy there"
                )
            if column.table.schema != self.mapper.local_table.schema:
                raise InvalidDeclaration(f"{self._where} reads table {table} of another schema; keep a copy in the row")
            if column.computed is not None and not column.computed.persisted:
                raise InvalidDeclaration(
                    f"{self._where} reads {column.name!r}, which is computed when it is read, so that no trigger sees "
                    "it change; declare it Computed(..., persisted=True), or search what it is made of"
                )
            if column.name not in found[table]:
                found[table].append(column.name)
        if not found:
            raise InvalidDeclaration(
                f"{self._where} names no column, so changes would go unnoticed; write the class's attributes, not text"
            )
        return dict(found)

    def _columns(self) -> Iterator[sa.Column[Any]]:
        condition = single_table_condition(self.mapper)
        for part in (self.title, self.content, self.language, condition):
            if part is not None:
                for element in visitors.iterate(part):
                    if isinstance(element, sa.Column) and isinstance(element.table, sa.Table):
                        yield element

    def _expression(self, field: Field) -> sa.ColumnElement[Any]:
        """Return a field as an expression over the tables of the class."""
        if isinstance(field, str):
            field = self._attribute(field)
        elif callable(field) and not isinstance(field, (sa.ClauseElement, InstrumentedAttribute, MappedColumn)):
            field = field(self.mapper.class_)
        if isinstance(field, MappedColumn):
            field = self._attribute_of(field)
        expression = field.__clause_element__() if hasattr(field, "__clause_element__") else field
        if not isinstance(expression, sa.ColumnElement):
            raise InvalidDeclaration(
                f"{self._where} reads {field!r}, which is no column or expression; name an attribute of the class"
            )
        found: sa.ColumnElement[Any] = expression._deannotate() if hasattr(expression, "_deannotate") else expression
        return found

    def _attribute_of(self, column: MappedColumn[Any]) -> Any:
        """Return the attribute that a column of the class's body, or of a mixin's, has become."""
        for base in self.mapper.class_.__mro__:
            for name, value in vars(base).items():
                if value is column:
                    return self._attribute(name)
        return column.column

    def _attribute(self, name: str) -> Any:
        found = getattr(self.mapper.class_, name, None)  # and nothing that would configure mappers already
        if found is None or not (hasattr(found, "__clause_element__") or isinstance(found, sa.ClauseElement)):
            known = ", ".join(sorted(self.mapper.all_orm_descriptors.keys()))
            raise InvalidDeclaration(
                f"{self._where} reads {name!r}, but the class has no such attribute; it has {known}"
            )
        if isinstance(getattr(found, "prop", None), RelationshipProperty):
            raise InvalidDeclaration(f"{self._where} reads {name!r}, a relationship; search columns of the row itself")
        return found


def definition_of(mapper: Mapper[Any], attribute: str, options: Mapping[str, Any]) -> SearchDefinition:
    """Return what a `Searchable` of a class says; ``options`` are its arguments.

    Raises:
        InvalidDeclaration: It cannot be, with the remedy.
    """
    where = f"{mapper.class_.__name__}.{attribute}"
    source = mapper.local_table
    if not isinstance(source, sa.Table):
        raise InvalidDeclaration(f"{where}: the class is mapped to {source}, which is no table; map it to a table")
    _require_name(where, source, attribute)
    try:
        return _defined(mapper, attribute, source, options)
    except InvalidDeclaration:
        raise
    except (PgneuralError, ValueError) as error:
        raise InvalidDeclaration(f"{where}: {error}") from error


def _defined(mapper: Mapper[Any], attribute: str, source: sa.Table, options: Mapping[str, Any]) -> SearchDefinition:
    where = f"{mapper.class_.__name__}.{attribute}"
    name, dimensions, distance = _vectors(where, options)
    if options["distance"] is not None:
        distance = Distance(options["distance"])
    storage = options["storage"]
    column = options["column"] and _vector_column(where, mapper, options["column"])
    if column is not None:
        storage = _storage_of(where, column, dimensions)
    stored = required_storage(distance, dimensions, storage)
    index: VectorIndex = options["index"] or chosen(stored, distance, dimensions)
    if column is not None and options["index"] is None:
        index, found = _index_of(column, index)
        distance = found if options["distance"] is None and found is not None else distance
    Indexed(index, stored, distance, dimensions).check()
    fields: Sequence[Field] = options["fields"]
    if not fields and column is None:
        raise InvalidDeclaration(f'{where} reads nothing; name attributes of the class: Searchable("title", "body")')
    content = Content(mapper, attribute, fields, options["language_by"]) if fields else None
    overlap = options["max_tokens"] // OVERLAP_SHARE if options["overlap"] is None else options["overlap"]
    if not 0 <= overlap < options["max_tokens"]:
        raise InvalidDeclaration(f"{where}: overlap is {overlap}, expected 0 to less than max_tokens")
    return SearchDefinition(
        source=source.name,
        schema=source.schema,
        attribute=attribute,
        key=tuple(source.c[column.name] for column in source.primary_key),
        reads=content.text() if content else None,
        watched=content.watched() if content else {},
        encoder=name,
        options=options["encoder_options"],
        dimensions=dimensions,
        distance=distance,
        storage=stored,
        index=index,
        max_tokens=options["max_tokens"],
        overlap=overlap,
        language=options["language"],
        title_boost=options["title_boost"],
        sync=options["sync"],
        column=column.name if column is not None else None,
    )


def single_table_condition(mapper: Mapper[Any]) -> sa.ColumnElement[bool] | None:
    """Return the condition that a row is of a class which shares the table of its parent; None for other classes."""
    if not mapper.single or mapper.polymorphic_on is None:
        return None
    return mapper.polymorphic_on.in_([each.polymorphic_identity for each in mapper.self_and_descendants])


def _key(mapper: Mapper[Any]) -> list[sa.Column[Any]]:
    assert isinstance(mapper.local_table, sa.Table)
    return list(mapper.local_table.primary_key)


def _text(expression: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return expression if isinstance(expression.type, sa.String) else sa.cast(expression, sa.Text)


def _require_name(where: str, source: sa.Table, attribute: str) -> None:
    name = f"{source.name}_{attribute}"
    if len(name.encode()) > NAME_BYTES:
        raise InvalidDeclaration(
            f"{where}: the name of its chunk table, {name!r}, has {len(name.encode())} bytes, expected at most "
            f"{NAME_BYTES}; give the attribute a shorter name"
        )
    if not source.primary_key.columns:
        raise InvalidDeclaration(f"{where}: table {source.fullname} has no primary key; give it one")


def _vectors(where: str, options: Mapping[str, Any]) -> tuple[str, int, Distance]:
    """Return the name, the dimensions and the distance of the encoder, without loading it."""
    encoder: Any = options["encoder"]
    if not isinstance(encoder, str) and hasattr(encoder, "encode_query"):
        instance: Encoder = encoder
        return instance.name, instance.dimensions, instance.distance
    name, encoder_options = encoders.canonical(encoder), options["encoder_options"]
    permit(name)  # the program names it
    dimensions, distance = encoders.described(name, encoder_options)
    if dimensions is None:
        raise InvalidDeclaration(f"{where}: how many dimensions {name!r} has is not known here; say dimensions=")
    return name, dimensions, distance


def _vector_column(where: str, mapper: Mapper[Any], name: str) -> sa.Column[Any]:
    if name not in mapper.columns:
        raise InvalidDeclaration(f"{where}: the class has no column {name!r} with vectors; map it first")
    found = mapper.columns[name]
    if found.table is not mapper.local_table:
        raise InvalidDeclaration(f"{where}: column {name!r} is of another table; declare the search on its class")
    return found


def _index_of(column: sa.Column[Any], usual: VectorIndex) -> tuple[VectorIndex, Distance | None]:
    """Return how a column is indexed, and by what distance, as the index of it in the models says."""
    for index in column.table.indexes:
        options = index.dialect_options["postgresql"]
        method = str(options["using"]).lower()
        if [*index.expressions] == [column] and method in ("hnsw", "ivfflat"):
            index_options = {name: int(value) for name, value in (options["with"] or {}).items()}
            found = VectorIndex(Method(method), Precision.FULL, options=index_options)
            operators = str(next(iter((options["ops"] or {}).values()), "vector_l2_ops"))
            kind = operators.removesuffix("_ops").partition("_")[2].replace("ip", "inner_product")
            return found, Distance(kind)
    whole = usual if usual.method is Method.NONE else replace(usual, precision=Precision.FULL)
    return whole, None


def _storage_of(where: str, column: sa.Column[Any], dimensions: int) -> Storage:
    """Return the type of a column of vectors."""
    kind = type(column.type).__name__.lower()
    if kind not in tuple(Storage) or kind == Storage.SPARSEVEC:
        raise InvalidDeclaration(
            f"{where}: column {column.name!r} has type {column.type}, expected a vector type of pgvector"
        )
    length = getattr(column.type, "dim", None) or getattr(column.type, "length", None)
    if length is not None and length != dimensions:
        raise InvalidDeclaration(
            f"{where}: column {column.name!r} has {length} dimensions, but the encoder {dimensions}"
        )
    return Storage(kind)
