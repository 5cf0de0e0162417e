"""A space, as the catalog has it, with the tables that are kept of its source as SQLAlchemy knows them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session, defer

from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.tables import chunk_table, extra_table, terms_table
from pgneural.store.vectors import Indexed, Storage, VectorIndex
from pgneural.types import Distance

WITHOUT_TIMES = (defer(Space.created_at), defer(Space.resumes_at), defer(Space.switched_at))
"""For connections of the user's: psycopg reads no times in a DateStyle other than ISO."""


def chunks_of(space: Space, source: sa.Table = DOCUMENTS) -> sa.Table:
    """Return the chunk table of a space, or its table of extra vectors.

    Args:
        space: The space.
        source: The table that it is made of.
    """
    if space.kind == "dense":
        return _dense_chunks(space, source, space.chunk_table, space.dimensions, Storage(space.storage))
    chunks = _dense_chunks(space, source, space.chunk_table.removesuffix(f"_{space.kind}"), 1, Storage.VECTOR)
    return extra_of(space, chunks)


def extra_of(space: Space, chunks: sa.Table) -> sa.Table:
    """Return the table of extra vectors of some chunks."""
    return extra_table(chunks, space.kind, space.dimensions, metadata=sa.MetaData())


def terms_of(space: Space, source: sa.Table = DOCUMENTS) -> sa.Table:
    """Return the terms table of a space."""
    return terms_table(source, space.attribute, metadata=sa.MetaData(), chunks=space.chunk_table)


def indexed_of(space: Space) -> Indexed:
    """Return how the vectors of a space are kept and indexed."""
    index = VectorIndex.of(space.vector_index)
    return Indexed(index, Storage(space.storage), Distance(space.distance), space.dimensions)


def extra_spaces(connection: sa.Connection, space: Space) -> dict[str, Space]:
    """Return the extra vectors of the chunks of a space, by kind: ``sparse`` and ``tokens``."""
    own = sa.select(Space.relation).where(Space.id == space.id).correlate(None).scalar_subquery()
    table = Space.source == space.source, Space.relation.is_not_distinct_from(own)  # not of another of this name
    same = *table, Space.attribute == space.attribute, Space.name == space.name
    with Session(connection, expire_on_commit=False) as session:
        found = session.scalars(sa.select(Space).where(*same, Space.kind != "dense").options(*WITHOUT_TIMES))
        return {extra.kind: extra for extra in found}


def _dense_chunks(space: Space, source: sa.Table, name: str, dimensions: int, storage: Storage) -> sa.Table:
    return chunk_table(source, space.attribute, dimensions, metadata=sa.MetaData(), storage=storage, name=name)
