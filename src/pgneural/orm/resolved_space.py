"""Which space of a search answers, with its tables: as the class declares it, or as the catalog says."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from pgneural.extra_vectors import ExtraVectors
from pgneural.store.definition import SearchDefinition
from pgneural.store.schema import Space
from pgneural.store.space import chunks_of, indexed_of, terms_of
from pgneural.store.vectors import Indexed


@dataclass(frozen=True)
class ResolvedSpace:
    """A space that answers.

    Attributes:
        definition: What the class declares.
        model_chunks: The chunk table of the models.
        model_terms: The terms table of the models.
        space: The space, as the catalog has it; None before anybody has looked.
        extra: The extra vectors of its chunks, by kind.
        source: The table of the class.
        waiting: Whether another space serves already, but its encoder is not loaded yet.
    """

    definition: SearchDefinition
    model_chunks: sa.Table | None
    model_terms: sa.Table | None
    space: Space | None = None
    extra: Mapping[str, ExtraVectors] = field(default_factory=dict)
    source: sa.FromClause | None = None
    waiting: bool = False

    @property
    def name(self) -> str:
        """The name of the chunk table."""
        return self.definition.name if self.space is None else self.space.chunk_table

    @property
    def extra_spaces(self) -> dict[str, Space]:
        """The spaces of the extra vectors, by kind."""
        return {kind: each.space for kind, each in self.extra.items()}

    @property
    def state(self) -> tuple[tuple[int, str] | None, str, bool, frozenset[int]]:
        """What statements are built for."""
        extra = frozenset(each.space.id for each in self.extra.values())
        known = None if self.space is None else (self.space.id, str(self.space.vector_index))
        return known, self.name, self.waiting, extra

    def fits(self, space: Space) -> bool:
        """Whether a space has vectors like those of the models' tables."""
        definition = self.definition
        return (space.dimensions, space.storage) == (definition.dimensions, definition.storage.value)

    @functools.cached_property
    def chunks(self) -> sa.Table | None:
        """The chunk table; None where the vectors are in a column of the source."""
        if self.model_chunks is None or self.as_in_models or not isinstance(self.source, sa.Table):
            return self.model_chunks
        assert self.space is not None
        return chunks_of(self.space, self.source)

    @functools.cached_property
    def terms(self) -> sa.Table | None:
        """The terms table; None where the search has no words."""
        if self.model_terms is None or self.as_in_models or not isinstance(self.source, sa.Table):
            return self.model_terms
        assert self.space is not None
        return terms_of(self.space, self.source)

    @functools.cached_property
    def indexed(self) -> Indexed:
        """How its vectors are kept and indexed."""
        return self.definition.indexed if self.space is None else indexed_of(self.space)

    @property
    def is_usual(self) -> bool:
        """Whether its tables have the usual names, and there are no others."""
        return self.name == self.definition.name and not self.extra

    @property
    def as_in_models(self) -> bool:
        """Whether its tables are those of the models."""
        return self.space is None or (self.space.chunk_table == self.definition.name and self.fits(self.space))
