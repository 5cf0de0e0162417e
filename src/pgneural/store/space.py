"""A space, as the catalog has it, with the tables that are kept of its source as SQLAlchemy knows them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.tables import chunk_table, extra_table, terms_table
from pgneural.store.vectors import Indexed, Storage, VectorIndex
from pgneural.types import Distance


def read_spaces(connection: sa.Connection, *wanted: sa.ColumnElement[bool]) -> list[Space]:
    """Return the spaces of the catalog that meet some conditions: the one that serves first, then by their ids.

    They are as the catalog has them now, and of no session: nothing that is done to them is written.
    """
    order = (Space.state != "serving", Space.id)
    with Session(connection, expire_on_commit=False) as session:
        return list(session.scalars(sa.select(Space).where(*wanted).order_by(*order)))


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
    return {extra.kind: extra for extra in read_spaces(connection, *same, Space.kind != "dense")}


def _dense_chunks(space: Space, source: sa.Table, name: str, dimensions: int, storage: Storage) -> sa.Table:
    return chunk_table(source, space.attribute, dimensions, metadata=sa.MetaData(), storage=storage, name=name)
