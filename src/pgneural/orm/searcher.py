"""What a program knows of the search of a class in one database: which space answers, and its statements."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.orm import Mapper

from pgneural.active_space import ActiveSpace
from pgneural.encoders.permitted import permitted, ready
from pgneural.errors import EncoderMismatch, InvalidQuery
from pgneural.extra_vectors import EXTRA_VECTORS, ExtraVectors
from pgneural.orm.entities import with_entities
from pgneural.orm.resolved_space import ResolvedSpace
from pgneural.space_target import legs_of, tokens_of
from pgneural.statement import StatementCache, Target, about_as_many
from pgneural.store.catalog import STATISTICS_SECONDS, rows_per_key
from pgneural.store.engine import literal, quoted_table
from pgneural.store.space import extra_spaces

if TYPE_CHECKING:
    from pgneural.store.definition import SearchDefinition
    from pgneural.store.schema import Space
    from pgneural.types import Encoder

LOOK_SECONDS = 10
"""So often a search looks which space serves, besides when a statement finds that its own does not."""


class MappedSearch(Protocol):
    """What a `ClassSearcher` has to know of the search of a class, whatever the database.

    Attributes:
        mapper: The mapper of the class.
        definition: What its `Searchable` says.
        model_chunks: The chunk table of the models; None where the vectors are in a column.
        terms: The terms table of the models; None for a search without words.
    """

    mapper: Mapper[Any]
    definition: SearchDefinition
    model_chunks: sa.Table | None
    terms: sa.Table | None

    @property
    def encoder(self) -> Encoder:
        """The encoder that the class says; loading it may take seconds."""

    @property
    def encoder_is_loaded(self) -> bool:
        """Whether it was needed already."""

    @property
    def scope(self) -> sa.ColumnElement[bool] | None:
        """A condition that every row of the search meets, whichever class it is of."""

    def space(self, connection: sa.Connection) -> Space:
        """Return the row of the search in the catalog."""


class ClassSearcher:
    """The search of a class in one database; its threads share one.

    Attributes:
        answer: The space that answers, with its tables, as it was known a moment ago.

    Args:
        search: The search of the class.
        pinned: The space that is searched, whichever serves; by default that which serves.
    """

    def __init__(self, search: MappedSearch, pinned: tuple[Space, dict[str, Space]] | None = None) -> None:
        self._search, self._pinned = search, pinned
        self._models = search.definition, search.model_chunks, search.terms
        self._statements: dict[str, StatementCache] = {}
        self._extra: dict[int, ExtraVectors] = {}
        self._believed, self._per_row, self._looked = 0.0, 1.0, 0.0
        self._active = ActiveSpace(None, self._ready)
        space, extra = pinned or (None, {})
        self.answer = ResolvedSpace(*self._models, space, extra, search.mapper.local_table)

    @property
    def query_encoder(self) -> Encoder:
        """The encoder of the space that answers, whatever the class says."""
        space = self.answer.space
        return self._search.encoder if space is None else self.encoder_of(space)

    def encoder_of(self, space: Space) -> Encoder:
        """Return the encoder of a space of the search."""
        if self._is_as_defined(space):
            return self._search.encoder
        return permitted(space.encoder, **space.options)

    def extra_vectors(self, kind: str) -> ExtraVectors:
        """Return the extra vectors of a kind, with their encoder.

        Raises:
            InvalidQuery: The search has none.
        """
        space = self.answer.extra.get(kind)
        if space is None:
            definition = self._search.definition
            what, option = EXTRA_VECTORS[kind]
            name = ".".join(filter(None, (definition.schema, definition.source, definition.attribute)))
            command = f"pgneural space add-vectors {name} --{option}-encoder FOLDER"
            raise InvalidQuery(f"{self._search!r} has no {what}; give it some: {command}")
        if space.id not in self._extra:
            self._extra[space.id] = ExtraVectors(space)
        return self._extra[space.id]

    def look(self, connection: sa.Connection) -> None:
        """See from time to time which space serves; while another is waited for, always."""
        if self._active.pending or time.monotonic() > self._looked + LOOK_SECONDS:
            self.moved(connection)

    def forget_statements(self) -> None:
        """Build statements anew from now on."""
        self._statements = {}

    def forget(self) -> None:
        """Look before the next search: a statement has not found what was known."""
        self._looked = 0.0

    def moved(self, connection: sa.Connection) -> bool:
        """Whether another space serves by now than the one that was searched, which is then to be done again.

        While its encoder is being loaded the space that served is searched on, if it is still there: it is kept in
        step with the rows.

        Raises:
            SchemaNotInstalled: The database has no such search.
            EncoderMismatch: The encoder of the space has another revision here.
        """
        self._looked = time.monotonic()
        if self._pinned:
            return False
        before, serving = self.answer, self._search.space(connection)
        if before.space is not None and before.space.id == serving.id:
            self._require_revision(serving)
        again = self._active.refresh(connection, serving)
        now = self._resolved(connection)
        if now.state == before.state:
            return again
        self.answer, self._statements, self._believed = now, {}, 0.0  # the statements are those of another
        if before.space is None:
            return not now.as_in_models
        return again or (now.state != before.state and now.waiting == before.waiting)

    def statements(self, revision: str, connection: sa.Connection) -> StatementCache:
        """Return the statements for queries by an encoder of this revision, built for the table as it is about now."""
        if time.monotonic() > self._believed:
            chunks = self.answer.chunks
            if chunks is not None:
                per_row = rows_per_key(connection, quoted_table(chunks.name, chunks.schema))
                if not about_as_many(per_row, self._per_row):
                    self._per_row, self._statements = per_row, {}
            self._believed = time.monotonic() + STATISTICS_SECONDS
        known, mapper = self._statements, self._search.mapper  # another thread may put a new one in its place
        if revision not in known:
            known[revision] = StatementCache(
                self.target(revision), lambda target, query: with_entities(mapper, target, query, whole=True)
            )
        return known[revision]

    def target(self, revision: str = "", *, composed: bool = False) -> Target:
        """Return what is searched.

        Args:
            revision: Of the encoder of the query; empty where a query has no vector of ours.
            composed: Whether the statement becomes part of others.
        """
        definition, answer, mapper = self._search.definition, self.answer, self._search.mapper
        vectors = self._vectors()
        return Target(
            mapper.persist_selectable,
            legs_of(vectors, answer.indexed, self._per_row, answer.extra),
            answer.terms,
            self._space(revision, strict=not (composed or answer.waiting)),
            self._search.scope,
            tokens_of(vectors, answer.extra),
            keys={f"source_{column.name}": column for column in definition.key},
            entity=mapper.class_,
            composed=composed,
            reads=definition.reads,
        )

    def _space(self, revision: str, *, strict: bool) -> int | sa.ColumnElement[int]:
        """Return the id of the space that answers, as an expression that finds out whether it still does."""
        if self._pinned:
            return self._pinned[0].id
        definition = self._search.definition
        relation = sa.cast(sa.literal_column(literal(quoted_table(definition.source, definition.schema))), REGCLASS)
        names: list[Any] = [
            sa.literal_column(literal(text)) for text in (definition.attribute, self.answer.name, revision)
        ]
        answering = sa.func.neural.active_space(relation, *names, sa.true() if strict else sa.false())
        return sa.select(answering).scalar_subquery()

    def _vectors(self) -> sa.FromClause:
        """Return the chunk table, or the rows themselves in the same form."""
        if self.answer.chunks is not None:
            return self.answer.chunks
        definition = self._search.definition
        own = definition.key[0].table.alias()
        keys = [own.c[column.name].label(f"source_{column.name}") for column in definition.key]
        vector = own.c[definition.column or ""]
        ordinal = sa.literal_column("0", sa.Integer).label("ordinal")
        text = sa.literal_column("''", sa.Text).label("text")
        return sa.select(*keys, ordinal, text, vector.label("embedding")).where(vector.is_not(None)).subquery("vectors")

    def _resolved(self, connection: sa.Connection) -> ResolvedSpace:
        space = self._active.space
        assert space is not None
        extra = {} if self._search.model_chunks is None else extra_spaces(connection, space)
        return ResolvedSpace(*self._models, space, extra, self._search.mapper.local_table, self._active.pending)

    def _ready(self, serving: Space) -> bool:
        """Whether the encoder of another space is loaded; if not, a thread loads it from now on."""
        return self._is_as_defined(serving) or ready(serving.encoder, serving.options)

    def _is_as_defined(self, space: Space) -> bool:
        definition = self._search.definition
        return (space.encoder, space.options) == (definition.encoder, dict(definition.options))

    def _require_revision(self, space: Space) -> None:
        if not space.revision or not self._search.encoder_is_loaded:
            return
        encoder = self.query_encoder
        if (encoder.name, encoder.revision) != (space.encoder, space.revision):
            raise EncoderMismatch(
                f"the vectors of {self._search!r} were made by {space.encoder} revision {space.revision}, but this is "
                f"{encoder.name} revision {encoder.revision}; use the same model files, or make another space"
            )
