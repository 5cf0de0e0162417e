"""The searcher of a collection: over an engine, with the space and the encoder that it was opened with."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural import encoders, transcribers
from pgneural.active_space import Preparation
from pgneural.documents import DocumentRows, DocumentStatements, target_of
from pgneural.encoders.permitted import permitted
from pgneural.errors import DatabaseError, EncoderUnavailable, InvalidFilter, MissingExtra, PgneuralError
from pgneural.extra_vectors import EXTRA_VECTORS, ExtraVectors
from pgneural.search import Hits, RefinedSearch, Refinement, run
from pgneural.searcher import Searcher
from pgneural.statement import Query, Target
from pgneural.store.catalog import (
    STATISTICS_SECONDS,
    dropped,
    find_space,
    require_encoder,
    space_of,
)
from pgneural.store.engine import translated
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import chunks_of, extra_spaces, indexed_of
from pgneural.store.vectors import Indexed
from pgneural.transcribers import Transcriber
from pgneural.types import SECONDS_FIELD, TRANSCRIBER_FIELD, Encoder, ExtraEncoder, Modality

RETRIED = (DBAPIError, psycopg.Error, PgneuralError)
"""Errors that a search may raise because its space is gone."""


class DocumentSearcher(Searcher):
    """One client of a collection.

    Attributes:
        engine: Where the collection is.

    Args:
        engine: Where the collection is.
        space: The space that served when the client was opened.
        encoder: Gives the encoder of that space.
        extra: The encoders of extra vectors that the program gives, by kind.
        pinned: Whether this very space is searched, whichever serves.
    """

    def __init__(
        self,
        engine: sa.Engine,
        space: Space,
        encoder: Callable[[], Encoder],
        extra: Mapping[str, str | Path | ExtraEncoder | None] | None = None,
        *,
        pinned: bool = False,
    ) -> None:
        self._preparation = Preparation(self._prepared_by)
        super().__init__(space, self._preparation, extra, pinned=pinned)
        self.engine, self._collection, self._first, self._make = engine, space.attribute, space.id, encoder
        self._own: Encoder | None = None
        self._chunks: dict[int, sa.Table] = {}
        self._statements: DocumentStatements | None = None
        self._prepared: DocumentStatements | None = None
        self._believed = 0.0

    @property
    def name(self) -> str:
        """What is searched, for messages."""
        return f"collection {self._collection!r}"

    @property
    def space(self) -> Space:
        """The space that is searched."""
        space = self._active.space
        assert space is not None
        return space

    @property
    def encoder(self) -> Encoder:
        """The encoder of the space that is searched; loading it may take seconds.

        Raises:
            EncoderMismatch: The encoder of this name has another revision here.
        """
        return self._encoder_of(self.space)

    def accepts(self, modality: Modality) -> bool:
        """Whether the encoder accepts a kind of content; for texts, which nearly all accept, it is not loaded."""
        described = encoders.modalities(self.space.encoder)
        if modality is Modality.TEXT:
            return described is None or modality in described
        try:
            return modality in self.encoder.modalities
        except (EncoderUnavailable, MissingExtra):  # a run that finds nothing new needs no model
            return modality in (described or ())

    def known_transcriber(self) -> str:
        """Return the name of what has transcribed the recordings of the collection; empty where nothing has."""
        name, about = DOCUMENTS.c.metadata[TRANSCRIBER_FIELD].astext, DOCUMENTS.c.metadata
        heard = DOCUMENTS.c.modality == Modality.AUDIO.value, name.is_not(None), about.has_key(SECONDS_FIELD)
        with translated(), self.engine.connect() as connection:
            found = sa.select(name).where(DOCUMENTS.c.collection == self._collection, *heard).limit(1)
            return connection.scalar(found) or ""

    def transcriber(self) -> Transcriber:
        """Return what hears the sounds that texts are asked by: what has heard those of the collection."""
        return transcribers.again(self.known_transcriber())

    @property
    def indexed(self) -> Indexed:
        """How the vectors of the space that is searched are kept and indexed."""
        return indexed_of(self.space)

    @property
    def chunks(self) -> sa.Table:
        """The chunk table of the space that is searched."""
        return self._chunks_of(self.space)

    @property
    def extra(self) -> Mapping[str, ExtraVectors]:
        """The extra vectors of the chunks of the space that is searched, by kind."""
        if self._extra[0] != self.space.id:
            with translated(), self.engine.begin() as connection:
                self.read_extra(connection)
        return self._extra[1]

    def how_to_add(self, kind: str) -> str:
        """Say how the collection gets extra vectors of a kind."""
        return f"open it with {EXTRA_VECTORS[kind][1]}=, the folder of an encoder, and index"

    def search(self, search: Callable[[], Hits]) -> Hits:
        """Search; where another space serves by now, search that one."""
        _ = self.extra  # looked up before the search, which would be made again for what is new
        if self._active.pending and self._preparation.done:
            self._refreshed()
        return self.answer(search, self._refreshed, RETRIED)

    def hits(self, query: Query, refinement: Refinement | None = None) -> Hits:
        """Run the statement of a query on the space that is active, and refine what it finds."""
        with self.existing(), self.engine.connect() as connection:
            # one statement is its own transaction: without BEGIN and COMMIT it is one round trip
            connection.execution_options(isolation_level="AUTOCOMMIT")
            rows = DocumentRows(self.statements(connection), connection)
            return RefinedSearch(rows, query, refinement).hits() if refinement else run(rows, query)

    def serving(self, connection: sa.Connection) -> Space:
        """Return the space that serves.

        Raises:
            UnknownCollection: The collection was dropped, or dropped and made anew.
        """
        serving = find_space(connection, self._collection)
        if serving is None:
            raise dropped(self.space)
        there = serving.id == self.space.id or space_of(connection, self.space.id) is not None
        if not there and not serving.switched:
            raise dropped(self.space)
        return serving

    def reopen(self) -> None:
        """Take the collection as it is now: who writes to it writes to the space that serves."""
        with self.engine.begin() as connection, self._lock:
            self._active.activate(self.serving(connection))
            self.read_extra(connection)

    def target(self, connection: sa.Connection) -> Target:
        """Return what is searched."""
        return self.statements(connection).target

    def statements(self, connection: sa.Connection) -> DocumentStatements:
        """Return the statements over what is searched; from time to time they are built for new statistics."""
        found = self._statements
        if found is None or found.target.space != self.space.id or time.monotonic() > self._believed:
            self._active.update(space_of(connection, self.space.id))
            if self._extra[0] != self.space.id:  # over the connection that is in use
                self.read_extra(connection)
            target = self._target(connection, self.space, {kind: each.space for kind, each in self._extra[1].items()})
            if found is None or not found.serves(target):
                found = DocumentStatements(target)
            self._statements, self._believed = found, time.monotonic() + STATISTICS_SECONDS
        found.states = ["serving", "standby"] if self._active.pending else ["serving"]
        if self._pinned:
            found.states.append(self.space.state)
        return found

    def forget_statements(self) -> None:
        """Build statements anew from now on, but for those that were prepared for the space that is searched."""
        prepared, self._statements, self._believed = self._prepared, None, 0.0
        if prepared is not None and prepared.target.space == self.space.id:
            self._statements, self._prepared = prepared, None

    @contextlib.contextmanager
    def existing(self) -> Iterator[None]:
        """Say so where something fails because the collection was dropped."""
        try:
            with translated():
                yield
        except (DBAPIError, psycopg.Error, InvalidFilter, DatabaseError):
            with translated(), self.engine.begin() as connection:
                self.serving(connection)
            raise

    def _refreshed(self) -> bool:
        with translated(), self.engine.begin() as connection:
            return self.refresh(connection)

    def _encoder_of(self, space: Space) -> Encoder:
        if space.id == self._first:
            self._own = self._own or self._make()
            encoder = self._own
        else:
            encoder = permitted(space.encoder, **space.options)
        if space.revision:
            require_encoder(space, encoder)
        return encoder

    def _target(self, connection: sa.Connection, space: Space, extra: Mapping[str, Space]) -> Target:
        return target_of(connection, space, self._chunks_of(space), extra)

    def _chunks_of(self, space: Space) -> sa.Table:
        if space.id not in self._chunks:
            self._chunks[space.id] = chunks_of(space)
        return self._chunks[space.id]

    def _prepared_by(self, space: Space) -> Callable[[], None]:
        """Return what gets the encoder and the statements for another space ready."""
        return functools.partial(self._prepare, space, self.engine.pool)

    def _prepare(self, space: Space, pool: sa.Pool) -> None:
        self._encoder_of(space)
        before = self._statements
        if before is None or self.engine.pool is not pool:
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                target = self._target(connection, space, extra_spaces(connection, space))
                self._prepared = before.moved_to(target, connection)
            finally:
                if self.engine.pool is not pool:
                    connection.detach()  # the database was closed meanwhile, and this connection is to be, too
