"""Answering the queries of one client: which space, which encoders, which statements, and trying again.

::

    query --> Searcher.encoded --> the space that is active --> its statements --> hits
                    ^                                                              |
                    +--------- Searcher.answer: again, where another serves <------+

Collections (`pgneural.document_searcher`) and mapped classes (`pgneural.orm.searcher`) differ in where the catalog's
row of their search is found, and in their statements; all else is here.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from pgneural import transcribers
from pgneural.active_space import ActiveSpace
from pgneural.errors import InvalidQuery
from pgneural.extra_vectors import EXTRA_VECTORS, ExtraVectors
from pgneural.load import read_question
from pgneural.options import QueryInput, SearchOptions, inputs_of, vector_of, with_vectors
from pgneural.rerank import LateInteraction
from pgneural.search import Hits
from pgneural.statement import Query
from pgneural.store.schema import Space
from pgneural.store.space import extra_spaces
from pgneural.store.vectors import Indexed
from pgneural.transcribers import Transcriber
from pgneural.transcribers.question import in_words
from pgneural.types import Encoder, ExtraEncoder, Mode, Vector

E = TypeVar("E")


class Searcher(abc.ABC):
    """One client of a search; its threads share one.

    Args:
        space: The space that served when the client was opened; None before it has looked.
        ready: Whether the client can search another space now; if not, it prepares for it in the background.
        extra_encoders: The encoders of extra vectors that the program gives, by kind.
        pinned: Whether this very space is searched, whichever serves.
    """

    def __init__(
        self,
        space: Space | None,
        ready: Callable[[Space], bool],
        extra_encoders: Mapping[str, str | Path | ExtraEncoder | None] | None = None,
        *,
        pinned: bool = False,
    ) -> None:
        self._active, self._pinned = ActiveSpace(space, ready), pinned
        self._extra_encoders = extra_encoders or {}
        self._lock = threading.RLock()
        self._extra: tuple[int | None, Mapping[str, ExtraVectors]] = (None, {})

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What is searched, for messages."""

    @property
    @abc.abstractmethod
    def encoder(self) -> Encoder:
        """The encoder of the space that is searched; loading it may take seconds."""

    @property
    @abc.abstractmethod
    def indexed(self) -> Indexed:
        """How the vectors of the space that is searched are kept and indexed."""

    @abc.abstractmethod
    def serving(self, connection: sa.Connection) -> Space:
        """Return the space that serves, as the catalog has it now; an error where the search is gone."""

    @abc.abstractmethod
    def how_to_add(self, kind: str) -> str:
        """Say how the search gets extra vectors of a kind."""

    @abc.abstractmethod
    def forget_statements(self) -> None:
        """Build statements anew from now on."""

    def transcriber(self) -> Transcriber:
        """Return what hears the sounds that texts are asked by."""
        return transcribers.get()

    @property
    def extra(self) -> Mapping[str, ExtraVectors]:
        """The extra vectors of the chunks of the space that is searched, by kind, as they were known a moment ago."""
        return self._extra[1]

    @property
    def identity(self) -> tuple[int | None, frozenset[int]]:
        """The spaces that are searched: what statements are built for."""
        return self._active.state[0], frozenset(each.space.id for each in self._extra[1].values())

    @property
    def state(self) -> Any:
        """What a search must find the same before and after it, else its hits may be of another space."""
        return self.identity, self._active.pending

    def extra_vectors(self, kind: str) -> ExtraVectors:
        """Return the extra vectors of a kind, with their encoder.

        Raises:
            InvalidQuery: The search has none.
        """
        if kind not in self.extra:
            what, _ = EXTRA_VECTORS[kind]
            raise InvalidQuery(f"{self.name} has no {what}; {self.how_to_add(kind)}")
        return self.extra[kind]

    def refresh(self, connection: sa.Connection) -> bool:
        """Look which space serves now; return whether a search has to be made again.

        While the client is not ready for the space that serves, the one that did is searched on, if it is still there:
        it is kept in step with the rows.
        """
        if self._pinned:
            return False
        with self._lock:  # a space and its extra vectors are looked up together
            before = self.identity
            again = self._active.refresh(connection, self.serving(connection))
            self.read_extra(connection)
            if self.identity == before:
                return again
            self.forget_statements()
            return True

    def read_extra(self, connection: sa.Connection) -> None:
        """Look up the extra vectors of the space that is searched; those that are known keep their encoders."""
        with self._lock:
            space, before, encoders = self._active.space, self._extra[1], self._extra_encoders
            assert space is not None
            extra = {
                kind: before[kind]
                if kind in before and _same(before[kind].space, found)
                else ExtraVectors(found, encoders.get(kind))
                for kind, found in self.extra_spaces(connection, space).items()
            }
            self._extra = space.id, extra

    def extra_spaces(self, connection: sa.Connection, space: Space) -> Mapping[str, Space]:
        """Return the extra vectors of the chunks of a space, by kind."""
        return extra_spaces(connection, space)

    def answer(
        self,
        search: Callable[[], Hits[E]],
        refresh: Callable[[], bool],
        retried: tuple[type[Exception], ...] = (),
    ) -> Hits[E]:
        """Search; where another space serves by now, search that one.

        Args:
            search: Searches the space that is active.
            refresh: Looks which space serves; returns whether the search has to be made again.
            retried: Errors that a search may raise because its space is gone.
        """
        while True:
            before = self.state
            try:
                hits = search()
            except retried:
                if not refresh() and self.state == before:  # else another thread has refreshed it
                    raise
                continue
            if (hits or not refresh()) and self.state == before:
                return hits

    def encoded(self, query: Query, question: QueryInput, options: SearchOptions) -> Query:
        """Return a query with what its legs compare.

        Args:
            query: Without vectors.
            question: What all legs are asked.
            options: What single legs are asked instead, and whether vectors of tokens are compared.
        """
        wanted = query.mode is Mode.SPARSE or (query.mode is Mode.HYBRID and "sparse" in self.extra)
        sparse = self.extra_vectors("sparse").encode_query if wanted else None
        return with_vectors(query, question, inputs_of(options), self.vector, sparse)

    def with_tokens(self, query: Query, options: SearchOptions) -> Query:
        """Return a query with the vectors of its tokens, where they rank its hits."""
        if not isinstance(options.get("rerank"), LateInteraction):
            return query
        return replace(query, tokens=self.extra_vectors("tokens").encode_query(query.text or ""))

    def vector(self, question: QueryInput) -> Vector:
        """Return the vector of a question, shape (d,): encoded, or checked where it was made elsewhere."""
        read = in_words(read_question(question), lambda modality: modality in self.encoder.modalities, self.transcriber)
        return vector_of(read, lambda: self.encoder, self.indexed, self.name)


def _same(one: Space, other: Space) -> bool:
    """Whether two rows of the catalog are of one space, and of one revision of its encoder."""
    return (one.id, one.revision) == (other.id, other.revision)
