"""The one line in a mapped class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, deferred, foreign, relationship, remote

from pgneural.chunk import CHUNK_TOKENS
from pgneural.errors import InvalidDeclaration, InvalidQuery, SchemaNotInstalled
from pgneural.orm.binding import SearchBinding
from pgneural.orm.declaration import Field, definition_of
from pgneural.orm.inline import encode_inline
from pgneural.orm.rows import refuse_translated_schemas
from pgneural.store.catalog import require_title_boost
from pgneural.store.definition import SearchDefinition, attach_statements, detach_statements, searches_of
from pgneural.store.vectors import Storage, VectorIndex, register
from pgneural.types import Distance, Encoder, Sync

E = TypeVar("E")


class Searchable:
    """Makes the rows of a mapped class searchable by meaning and by words.

    The vectors lie in a chunk table ``<table>_<attribute>`` beside the class's own, in the same MetaData and schema,
    the words in ``<table>_<attribute>_terms``; both go with their row. Migrations make them (`pgneural.migrate`).

    Args:
        *fields: What is searched: attributes of the class by name, columns, or functions from the class to an SQL
            expression over its row. Of several, the first is the title: it is put before every chunk of the others.
        encoder: A registered name, a sentence-transformers model (folder or hub name), ``vectors:768`` for vectors
            made elsewhere, or an encoder.
        column: An attribute of the class that has vectors already; there is then no chunk table.
        sync: ``manual`` (`SearchBinding.sync`), ``inline`` (in the flush that changes the row) or ``queue`` (a worker).
        language: The text search configuration of the words, one of ``pg_ts_config``.
        language_by: What gives the language of a row, as a configuration or an ISO 639-1 code: as a field.
        title_boost: How often a word of the title counts, against one of the content.
        storage: The type of the vectors' column: ``vector``, ``halfvec`` or ``bit``.
        index: How the vectors are indexed.
        distance: How they are compared; by default as the encoder says.
        max_tokens: The longest chunk; shorter where the encoder reads less.
        overlap: How many tokens neighbouring chunks may share, half a chunk at most; by default an eighth.
        **encoder_options: What the encoder is made with, for example ``dimensions=256``.

    Raises:
        InvalidDeclaration: When the class is mapped, if it cannot be so; the message says what to do.

    Example:
        >>> class Article(Base):
        ...     __tablename__ = "articles"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     title: Mapped[str]
        ...     body: Mapped[str]
        ...     search = Searchable("title", "body", encoder="minilm")
        >>> Article.search("how do vaccines work").where(Article.title != "").limit(3).all(session)
        []
    """

    def __init__(
        self,
        *fields: Field,
        encoder: str | Path | Encoder = "minilm",
        column: str | None = None,
        sync: Sync | str = Sync.QUEUE,
        language: str = "english",
        language_by: Field | None = None,
        title_boost: float = 1.0,
        storage: Storage | str | None = None,
        index: VectorIndex | None = None,
        distance: Distance | str | None = None,
        max_tokens: int = CHUNK_TOKENS,
        overlap: int | None = None,
        **encoder_options: Any,
    ) -> None:
        if sync not in tuple(Sync):
            raise InvalidDeclaration(f"sync is {sync!r}, expected {', '.join(Sync)}")
        if distance is not None and distance not in tuple(Distance):
            raise InvalidDeclaration(f"distance is {distance!r}, expected {', '.join(Distance)}")
        try:
            require_title_boost(title_boost)
        except InvalidQuery as error:
            raise InvalidDeclaration(str(error)) from None
        if max_tokens < 1:
            raise InvalidDeclaration(f"max_tokens is {max_tokens}, expected at least 1")
        self._options: dict[str, Any] = {
            "fields": fields,
            "encoder": encoder,
            "column": column,
            "sync": Sync(sync),
            "language": language,
            "language_by": language_by,
            "title_boost": title_boost,
            "storage": storage,
            "index": index,
            "distance": distance,
            "max_tokens": max_tokens,
            "overlap": overlap,
            "encoder_options": encoder_options,
        }
        self._name = ""
        if not sa.event.contains(Mapper, "after_mapper_constructed", _constructed):
            sa.event.listen(Mapper, "after_mapper_constructed", _constructed)

    def __set_name__(self, owner: type, name: str) -> None:
        del owner
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[E]) -> SearchBinding[E]: ...
    @overload
    def __get__(self, instance: E, owner: type[E]) -> SearchBinding[E]: ...
    def __get__(self, instance: E | None, owner: type[E]) -> SearchBinding[E]:
        """Return the search of the class.

        Raises:
            AttributeError: The class is not mapped.
        """
        found: SearchBinding[E] | None = vars(owner).get(_BOUND, {}).get(self._name)
        if found is None:
            if not self._name:
                raise AttributeError(f"a Searchable of {owner.__name__} is to be written in the body of a class")
            raise AttributeError(f"{owner.__name__}.{self._name}: the class is not mapped yet, or to no table; map it")
        return found

    def bind(self, mapper: Mapper[Any], class_: type) -> None:
        """Join the search to a class when it is mapped: a child has that of its parent."""
        source = mapper.local_table
        if not isinstance(source, sa.Table):
            return  # an abstract base of concrete classes: each of them has a search of its own
        bound = vars(class_).get(_BOUND, {})
        type.__setattr__(class_, _BOUND, bound)
        if mapper.inherits and not mapper.concrete and getattr(mapper.inherits.class_, self._name, None):
            bound[self._name] = getattr(mapper.inherits.class_, self._name).of(mapper)
            return
        register()
        definition = definition_of(mapper, self._name, self._options)
        chunks, terms = definition.tables(source, source.metadata)
        first, *more = self._options["fields"] or [None]
        title = first if more and isinstance(first, str) else None
        bound[self._name] = SearchBinding(mapper, definition, chunks, terms, self._options["encoder"], title=title)
        _follow(definition, source, [table for table in (chunks, terms) if table is not None])
        if chunks is not None:
            _relate(mapper, definition, chunks)
        if definition.sync is Sync.INLINE:
            encode_inline(bound[self._name])


_BOUND = "_pgneural_searches"
"""Where a mapped class keeps its searches: in itself, so that they go when it goes."""


def _constructed(mapper: Mapper[Any], class_: type) -> None:
    """Join the searches in the body of a class, or of its bases, to it."""
    attributes: dict[str, Any] = {}
    for base in reversed(class_.__mro__):
        attributes |= vars(base)
    for name, value in attributes.items():
        if isinstance(value, Searchable) and value._name == name:
            value.bind(mapper, class_)


def _follow(definition: SearchDefinition, source: sa.Table, tables: Sequence[sa.Table]) -> None:
    """Let ``create_all`` and ``drop_all`` do what a migration does."""
    searches_of(source)[definition.attribute] = definition
    last = tables[-1] if tables else source

    def creating(_: sa.Table, connection: sa.Connection, **__: Any) -> None:
        refuse_translated_schemas(connection)
        _require_schema(connection)

    def created(_: sa.Table, connection: sa.Connection, **__: Any) -> None:
        for statement in attach_statements(definition):
            connection.execute(statement)

    def dropped(_: sa.Table, connection: sa.Connection, **__: Any) -> None:
        if connection.scalar(sa.text("SELECT to_regclass('neural.spaces')")) is not None:
            for statement in detach_statements(definition):
                connection.execute(statement)

    sa.event.listen(tables[0] if tables else source, "before_create", creating)
    sa.event.listen(last, "after_create", created)
    sa.event.listen(last, "before_drop", dropped)


def _require_schema(connection: sa.Connection) -> None:
    if connection.scalar(sa.text("SELECT to_regclass('neural.changes')")) is None:
        raise SchemaNotInstalled("the database has no schema neural, or an old one; run: pgneural db upgrade")


def _relate(mapper: Mapper[Any], definition: SearchDefinition, chunks: sa.Table) -> None:
    """Give the class a relationship to its chunks, named ``<attribute>_chunks``."""
    attribute = definition.attribute
    entity = type(f"{mapper.class_.__name__}{attribute.title().replace('_', '')}Chunk", (), {})
    entity.__doc__ = f"A chunk of {mapper.class_.__name__}.{attribute}."
    unread = {name: deferred(chunks.c[name]) for name in ("embedding", "hash", "source_hash")}
    mapper.registry.map_imperatively(entity, chunks, properties=unread)
    same_row = sa.and_(*(remote(foreign(chunks.c[f"source_{key.name}"])) == key for key in definition.key))
    chunked = relationship(entity, primaryjoin=same_row, viewonly=True, order_by=chunks.c.ordinal, uselist=True)
    mapper.add_property(f"{attribute}_chunks", chunked)
