"""Answering the queries of one client of a collection: which space, which encoder, which statements, and trying again.

::

    query --> Searcher.answer --> the space that is active --> its statements --> hits
                    ^                                            |
                    +---- again, where another space serves <----+
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.active_space import ActiveSpace, Preparation
from pgneural.documents import DocumentRows, DocumentStatements, target_of
from pgneural.encoders.permitted import permitted
from pgneural.errors import DatabaseError, InvalidFilter, PgneuralError
from pgneural.extra_vectors import ExtraVectors
from pgneural.search import Hits, RefinedSearch, Refinement, run
from pgneural.statement import Query, Target
from pgneural.store.catalog import (
    STATISTICS_SECONDS,
    dropped,
    find_space,
    require_encoder,
    space_of,
)
from pgneural.store.engine import translated
from pgneural.store.schema import Space
from pgneural.store.space import chunks_of, extra_spaces
from pgneural.types import Encoder, ExtraEncoder


class Searcher:
    """One client of a collection; its threads share one.

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
        self.engine, self._extra_encoders, self._pinned = engine, extra or {}, pinned
        self._extra: dict[int, dict[str, ExtraVectors]] = {}
        self._name, self._first, self._make = space.attribute, space.id, encoder
        self._own: Encoder | None = None
        self._preparation = Preparation(self._prepared_by)
        self._active = ActiveSpace(space, self._preparation)
        self._chunks: dict[int, sa.Table] = {}
        self._statements: DocumentStatements | None = None
        self._prepared: DocumentStatements | None = None
        self._believed = 0.0

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

    @property
    def extra(self) -> Mapping[str, ExtraVectors]:
        """The extra vectors of the chunks of the space that is searched, by kind."""
        return self._extra_of(self.space)

    @property
    def chunks(self) -> sa.Table:
        """The chunk table of the space that is searched."""
        return self._chunks_of(self.space)

    def answer(self, search: Callable[[], Hits]) -> Hits:
        """Search; where another space serves by now, search that one."""
        if self._active.pending and self._preparation.done:
            self._refreshed()
        while True:
            before = self._active.state
            try:
                hits = search()
            except (DBAPIError, psycopg.Error, PgneuralError):
                if not self._refreshed() and self._active.state == before:  # else another thread has refreshed it
                    raise
                continue
            if (hits or not self._refreshed()) and self._active.state == before:
                return hits

    def hits(self, query: Query, refinement: Refinement | None = None) -> Hits:
        """Run the statement of a query on the space that is active, and refine what it finds."""
        with self.existing(), self.engine.connect() as connection:
            # one statement is its own transaction: without BEGIN and COMMIT it is one round trip
            connection.execution_options(isolation_level="AUTOCOMMIT")
            rows = DocumentRows(self.statements(connection), connection)
            return RefinedSearch(rows, query, refinement).hits() if refinement else run(rows, query)

    def refresh(self, connection: sa.Connection) -> bool:
        """Look which space serves now; return whether a search has to be made again.

        Raises:
            UnknownCollection: The collection was dropped, or dropped and made anew.
        """
        refreshed = not self._pinned and self._active.refresh(connection, self._serving(connection))
        prepared = self._prepared
        if prepared is not None and prepared.target.space == self.space.id:
            self._statements, self._prepared = prepared, None
        before = {extra.space.id for extra in self._extra.get(self.space.id, {}).values()}
        self._read_extra(connection, self.space)
        if before == {extra.space.id for extra in self.extra.values()}:
            return refreshed
        self.forget_statements()
        return True

    def reopen(self) -> None:
        """Take the collection as it is now: who writes to it writes to the space that serves."""
        with self.engine.begin() as connection:
            self._active.activate(self._serving(connection))
            self._read_extra(connection, self.space)

    def target(self, connection: sa.Connection) -> Target:
        """Return what is searched."""
        return self.statements(connection).target

    def statements(self, connection: sa.Connection) -> DocumentStatements:
        """Return the statements over what is searched; from time to time they are built for new statistics."""
        found = self._statements
        if found is None or found.target.space != self.space.id or time.monotonic() > self._believed:
            self._active.update(space_of(connection, self.space.id))
            target = self._target(connection, self.space)
            if found is None or not found.serves(target):
                found = DocumentStatements(target)
            self._statements, self._believed = found, time.monotonic() + STATISTICS_SECONDS
        found.states = ["serving", "standby"] if self._active.pending else ["serving"]
        if self._pinned:
            found.states.append(self.space.state)
        return found

    def forget_statements(self) -> None:
        """Build statements anew from now on."""
        self._statements = None

    @contextlib.contextmanager
    def existing(self) -> Iterator[None]:
        """Say so where something fails because the collection was dropped."""
        try:
            with translated():
                yield
        except (DBAPIError, psycopg.Error, InvalidFilter, DatabaseError):
            with translated(), self.engine.begin() as connection:
                self._serving(connection)
            raise

    def _serving(self, connection: sa.Connection) -> Space:
        serving = find_space(connection, self._name)
        if serving is None:
            raise dropped(self.space)
        there = serving.id == self.space.id or space_of(connection, self.space.id) is not None
        if not there and not serving.switched:
            raise dropped(self.space)
        return serving

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

    def _chunks_of(self, space: Space) -> sa.Table:
        if space.id not in self._chunks:
            self._chunks[space.id] = chunks_of(space)
        return self._chunks[space.id]

    def _target(self, connection: sa.Connection, space: Space) -> Target:
        if space.id not in self._extra:  # over the connection that is in use
            self._read_extra(connection, space)
        extra = {kind: each.space for kind, each in self._extra[space.id].items()}
        return target_of(connection, space, self._chunks_of(space), extra)

    def _extra_of(self, space: Space) -> Mapping[str, ExtraVectors]:
        if space.id not in self._extra:
            with translated(), self.engine.begin() as connection:
                self._read_extra(connection, space)
        return self._extra[space.id]

    def _read_extra(self, connection: sa.Connection, space: Space) -> None:
        """Look up the extra vectors of a space; those that are known keep their encoders."""
        before, encoders = self._extra.get(space.id, {}), self._extra_encoders
        self._extra[space.id] = {
            kind: before[kind]
            if kind in before and _same(before[kind].space, found)
            else ExtraVectors(found, encoders.get(kind))
            for kind, found in extra_spaces(connection, space).items()
        }

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
                self._prepared = before.moved_to(self._target(connection, space), connection)
            finally:
                if self.engine.pool is not pool:
                    connection.detach()  # the database was closed meanwhile, and this connection is to be, too


def _same(one: Space, other: Space) -> bool:
    """Whether two rows of the catalog are of one space, and of one revision of its encoder."""
    return (one.id, one.revision) == (other.id, other.revision)
