"""Storing extra vectors of chunks: those of a learned sparse encoder, and one for each token.

They are made after the chunks, outside of any transaction. What is stored is of the chunk as it is: who changes a
chunk deletes it with all its vectors and makes another, and a vector whose chunk is gone or another is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import psycopg
import sqlalchemy as sa
from psycopg import sql

from pgneural.store.catalog import chunks_of
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.vectors import sparse_text
from pgneural.types import Vector


class Missing(NamedTuple):
    """A chunk that has no further vector yet."""

    source_id: int
    ordinal: int
    title: str
    text: str
    hash: bytes


def missing(connection: sa.Connection, space: Space, after: tuple[int, int], limit: int) -> list[Missing]:
    """Return chunks without a vector of this space, in the order of their keys, beginning after a key."""
    extra = chunks_of(space)
    chunks = _chunks(extra)
    same = sa.and_(extra.c.source_id == chunks.c.source_id, extra.c.ordinal == chunks.c.ordinal)
    statement = (
        sa.select(chunks.c.source_id, chunks.c.ordinal, DOCUMENTS.c.title, chunks.c.text, chunks.c.hash)
        .join_from(chunks, DOCUMENTS, DOCUMENTS.c.id == chunks.c.source_id)
        .where(sa.tuple_(chunks.c.source_id, chunks.c.ordinal) > after, ~sa.exists().where(same))
        .order_by(chunks.c.source_id, chunks.c.ordinal)
        .limit(limit)
    )
    return [Missing(*row) for row in connection.execute(statement)]


def store(connection: sa.Connection, space: Space, chunks: Sequence[Missing], vectors: Sequence[Vector]) -> int:
    """Store the vectors of chunks that are still the same; the caller commits. Return how many were stored."""
    extra = chunks_of(space)
    type_ = f"sparsevec({space.dimensions})" if space.kind == "sparse" else f"halfvec({space.dimensions})[]"
    names = {
        "further": sql.Identifier(str(extra.schema), extra.name),
        "chunks": sql.Identifier(str(extra.schema), _chunks(extra).name),
        "type": sql.SQL(type_),
    }
    values = [sparse_text(v) if space.kind == "sparse" else tokens_text(v) for v in vectors]
    keys = ([c.source_id for c in chunks], [c.ordinal for c in chunks], [c.hash for c in chunks], values)
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver.execute(sql.SQL(_STORE).format(**names), keys).rowcount


def tokens_text(tokens: Vector) -> str:
    """Return vectors, shape (t, d), as PostgreSQL reads an array of halfvec."""
    rounded = np.asarray(tokens, dtype=np.float16)
    rows = (",".join(f"{number:.4g}" for number in row) for row in rounded.tolist())
    return "{" + ",".join(f'"[{row}]"' for row in rows) + "}"


def _chunks(extra: sa.Table) -> sa.Table:
    (chunks,) = {key.column.table for key in extra.foreign_keys}
    assert isinstance(chunks, sa.Table)
    return chunks


_STORE = """
INSERT INTO {further} (source_id, ordinal, embedding)
SELECT c.source_id, c.ordinal, new.embedding::{type}
  FROM unnest(%s::bigint[], %s::integer[], %s::bytea[], %s::text[]) AS new (source_id, ordinal, hash, embedding)
  JOIN {chunks} c ON c.source_id = new.source_id AND c.ordinal = new.ordinal AND c.hash = new.hash
   FOR KEY SHARE OF c
    ON CONFLICT DO NOTHING"""
