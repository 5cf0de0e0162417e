"""Which space of a search answers, with its tables: as the class declares it, or as the catalog says."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import sqlalchemy as sa

from pgneural.store.definition import SearchDefinition
from pgneural.store.schema import Space
from pgneural.store.tables import chunk_table, terms_table
from pgneural.store.vectors import Indexed, Storage, VectorIndex
from pgneural.types import Distance


@dataclass(frozen=True)
class ResolvedSpace:
    """A space that answers.

    Attributes:
        declared: What the class declares.
        declared_chunks: The chunk table of the models.
        declared_terms: The terms table of the models.
        space: The space, as the catalog has it; None before anybody has looked.
        source: The table of the class.
        waiting: Whether another space serves already, but its encoder is not loaded yet.
    """

    definition: SearchDefinition
    model_chunks: sa.Table | None
    model_terms: sa.Table | None
    space: Space | None = None
    source: sa.FromClause | None = None
    waiting: bool = False

    @property
    def name(self) -> str:
        """The name of the chunk table."""
        return self.definition.name if self.space is None else self.space.chunk_table

    @property
    def state(self) -> tuple[int | None, str, bool]:
        """What statements are built for."""
        return (None if self.space is None else self.space.id), self.name, self.waiting

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
        return chunk_table(
            self.source,
            self.definition.attribute,
            self.space.dimensions,
            metadata=sa.MetaData(),
            storage=Storage(self.space.storage),
            name=self.space.chunk_table,
        )

    @functools.cached_property
    def terms(self) -> sa.Table | None:
        """The terms table; None where the search has no words."""
        if self.model_terms is None or self.as_in_models or not isinstance(self.source, sa.Table):
            return self.model_terms
        assert self.space is not None
        name = self.space.chunk_table
        return terms_table(self.source, self.definition.attribute, metadata=sa.MetaData(), chunks=name)

    @functools.cached_property
    def indexed(self) -> Indexed:
        """How its vectors are kept and indexed."""
        if self.space is None:
            return self.definition.indexed
        index = VectorIndex.of(self.space.vector_index)
        return Indexed(index, Storage(self.space.storage), Distance(self.space.distance), self.space.dimensions)

    @property
    def as_in_models(self) -> bool:
        """Whether its tables are those of the models."""
        return self.space is None or (self.space.chunk_table == self.definition.name and self.fits(self.space))
