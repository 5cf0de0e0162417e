"""What a program knows of the search of a class in one database: which space answers, and its statements."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.orm import Mapper

from pgneural.encoders.permitted import permitted, ready
from pgneural.errors import EncoderMismatch
from pgneural.extra_vectors import EXTRA_VECTORS, ExtraVectors
from pgneural.orm.entities import with_entities
from pgneural.orm.resolved_space import ResolvedSpace
from pgneural.searcher import Searcher
from pgneural.space_target import legs_of, tokens_of
from pgneural.statement import StatementCache, Target, about_as_many
from pgneural.store.catalog import STATISTICS_SECONDS, rows_per_key
from pgneural.store.engine import literal, quoted_table
from pgneural.store.vectors import Indexed

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


class ClassSearcher(Searcher):
    """The search of a class in one database.

    Attributes:
        resolved: The space that is searched, with its tables, as it was known a moment ago.

    Args:
        search: The search of the class.
        pinned: The space that is searched, whichever serves; by default that which serves.
    """

    def __init__(self, search: MappedSearch, pinned: tuple[Space, dict[str, Space]] | None = None) -> None:
        space, extra = pinned or (None, {})
        super().__init__(space, self._ready, pinned=pinned is not None)
        self._search = search
        self._extra = space.id if space else None, {kind: ExtraVectors(each) for kind, each in extra.items()}
        self._statements: dict[str, StatementCache] = {}
        self._believed, self._per_row, self._looked = 0.0, 1.0, 0.0
        self.resolved = self._resolve()

    @property
    def name(self) -> str:
        """What is searched, for messages."""
        return repr(self._search)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the space that is searched, whatever the class says; loading it may take seconds."""
        space = self.resolved.space
        return self._search.encoder if space is None else self.encoder_of(space)

    @property
    def extra(self) -> Mapping[str, ExtraVectors]:
        """The extra vectors of the chunks of the space that is searched, by kind, as they were known a moment ago."""
        return self.resolved.extra

    @property
    def state(self) -> Any:
        """What a search must find the same before and after it, else its hits may be of another space."""
        return self.resolved.state

    @property
    def indexed(self) -> Indexed:
        """How the vectors of the space that is searched are kept and indexed."""
        return self.resolved.indexed

    def encoder_of(self, space: Space) -> Encoder:
        """Return the encoder of a space of the search."""
        if self._is_as_defined(space):
            return self._search.encoder
        return permitted(space.encoder, **space.options)

    def how_to_add(self, kind: str) -> str:
        """Say how the search gets extra vectors of a kind."""
        definition = self._search.definition
        name = ".".join(filter(None, (definition.schema, definition.source, definition.attribute)))
        return f"give it some: pgneural space add-vectors {name} --{EXTRA_VECTORS[kind][1]}-encoder FOLDER"

    def look(self, connection: sa.Connection) -> None:
        """See from time to time which space serves; while another is waited for, always."""
        if self._active.pending or time.monotonic() > self._looked + LOOK_SECONDS:
            self.refresh(connection)

    def forget_statements(self) -> None:
        """Build statements anew from now on."""
        self._statements, self._believed = {}, 0.0

    def forget(self) -> None:
        """Look before the next search: a statement has not found what was known."""
        self._looked = 0.0

    def refresh(self, connection: sa.Connection) -> bool:
        """Look which space serves now; see `pgneural.searcher.Searcher.refresh`.

        Raises:
            SchemaNotInstalled: The database has no such search.
            EncoderMismatch: The encoder of the space has another revision here.
        """
        self._looked = time.monotonic()
        with self._lock:
            before = self.resolved
            again = super().refresh(connection)
            now = self._resolve()
            if now.state != before.state:
                self.resolved = now
                self.forget_statements()  # they are those of another space, or do not let it wait
            return not now.as_in_models if before.space is None else again

    def serving(self, connection: sa.Connection) -> Space:
        """Return the space that serves.

        Raises:
            SchemaNotInstalled: The database has no such search.
            EncoderMismatch: The encoder of the space that is searched has another revision here.
        """
        serving = self._search.space(connection)
        if self.resolved.space is not None and self.resolved.space.id == serving.id:
            self._require_revision(serving)
        return serving

    def extra_spaces(self, connection: sa.Connection, space: Space) -> Mapping[str, Space]:
        """Return the extra vectors of the chunks of a space, by kind; vectors in a column have none."""
        return {} if self._search.model_chunks is None else super().extra_spaces(connection, space)

    def statements(self, revision: str, connection: sa.Connection) -> StatementCache:
        """Return the statements for queries by an encoder of this revision, built for the table as it is about now."""
        if time.monotonic() > self._believed:
            chunks = self.resolved.chunks
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
        definition, resolved, mapper = self._search.definition, self.resolved, self._search.mapper
        vectors = self._vectors()
        return Target(
            mapper.persist_selectable,
            legs_of(vectors, resolved.indexed, self._per_row, resolved.extra_spaces),
            resolved.terms,
            self._space(revision, strict=not (composed or resolved.waiting)),
            self._search.scope,
            tokens_of(vectors, resolved.extra_spaces),
            keys={f"source_{column.name}": column for column in definition.key},
            entity=mapper.class_,
            composed=composed,
            reads=definition.reads,
        )

    def _space(self, revision: str, *, strict: bool) -> int | sa.ColumnElement[int]:
        """Return the id of the space that answers, as an expression that finds out whether it still does."""
        if self._pinned and self.resolved.space is not None:
            return self.resolved.space.id
        definition = self._search.definition
        relation = sa.cast(sa.literal_column(literal(quoted_table(definition.source, definition.schema))), REGCLASS)
        names: list[Any] = [
            sa.literal_column(literal(text)) for text in (definition.attribute, self.resolved.name, revision)
        ]
        answering = sa.func.neural.active_space(relation, *names, sa.true() if strict else sa.false())
        return sa.select(answering).scalar_subquery()

    def _vectors(self) -> sa.FromClause:
        """Return the chunk table, or the rows themselves in the same form."""
        if self.resolved.chunks is not None:
            return self.resolved.chunks
        definition = self._search.definition
        own = definition.key[0].table.alias()
        keys = [own.c[column.name].label(f"source_{column.name}") for column in definition.key]
        vector = own.c[definition.column or ""]
        ordinal = sa.literal_column("0", sa.Integer).label("ordinal")
        text = sa.literal_column("''", sa.Text).label("text")
        return sa.select(*keys, ordinal, text, vector.label("embedding")).where(vector.is_not(None)).subquery("vectors")

    def _resolve(self) -> ResolvedSpace:
        search, active = self._search, self._active
        models = search.definition, search.model_chunks, search.terms
        return ResolvedSpace(*models, active.space, self._extra[1], search.mapper.local_table, active.pending)

    def _ready(self, serving: Space) -> bool:
        """Whether the encoder of another space is loaded; if not, a thread loads it from now on."""
        return self._is_as_defined(serving) or ready(serving.encoder, serving.options)

    def _is_as_defined(self, space: Space) -> bool:
        definition = self._search.definition
        return (space.encoder, space.options) == (definition.encoder, dict(definition.options))

    def _require_revision(self, space: Space) -> None:
        if not space.revision or not self._search.encoder_is_loaded:
            return
        encoder = self.encoder
        if (encoder.name, encoder.revision) != (space.encoder, space.revision):
            raise EncoderMismatch(
                f"the vectors of {self._search!r} were made by {space.encoder} revision {space.revision}, but this is "
                f"{encoder.name} revision {encoder.revision}; use the same model files, or make another space"
            )
