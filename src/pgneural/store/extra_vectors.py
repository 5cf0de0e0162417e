"""Storing extra vectors of chunks: those of a learned sparse encoder, and one for each token.

What is stored is of the chunk as it is: who changes a chunk deletes it with all its vectors and makes another, and a
vector whose chunk is gone or another is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from pgneural.store.engine import quoted_table
from pgneural.store.schema import Space
from pgneural.store.space_tables import EncodedRow, ExtraVector, SpaceTables, as_json, planned_anew
from pgneural.store.vectors import sparse_text
from pgneural.types import Vector, below


class Lacking(NamedTuple):
    """A chunk that has no extra vector yet.

    Attributes:
        key: The key of its row, as JSON.
        ordinal: Its place in the row.
        hash: Of what the encoder read for it.
        text: Its own.
        headed: Whether it was read below the title of its row: a piece of a title that is too long is not.
        title: That of the row, where it is known here.
    """

    key: str
    ordinal: int
    hash: bytes
    text: str
    headed: bool
    title: str = ""

    @property
    def read(self) -> str:
        """What an encoder reads for it."""
        return below(self.title if self.headed else "", self.text)


def lacking_of(connection: sa.Connection, tables: SpaceTables, extra: Space, keys: Sequence[str]) -> list[Lacking]:
    """Return the chunks of some rows that have no vector of this kind."""
    with planned_anew(connection, tables.space.source):
        return [Lacking(*row) for row in connection.execute(_sql(tables, extra, _LACKING), {"keys": as_json(keys)})]


def lacking_after(
    connection: sa.Connection, tables: SpaceTables, extra: Space, after: tuple[int, int], limit: int
) -> list[tuple[int, Lacking]]:
    """Return chunks of documents that have no vector of this kind, each with the key of its document.

    Args:
        connection: Where.
        tables: The tables of the space of a collection.
        extra: The space of the extra vectors.
        after: The document and the ordinal after which to begin; the order is that of these.
        limit: How many.
    """
    values = {"id": after[0], "ordinal": after[1], "limit": limit}
    return [(row[0], Lacking(*row[1:])) for row in connection.execute(_sql(tables, extra, _LACKING_AFTER), values)]


def insert(connection: sa.Connection, tables: SpaceTables, extra: Space, vectors: Sequence[ExtraVector]) -> int:
    """Store the vectors of chunks that are still the same; the caller commits. Return how many were stored."""
    if not vectors:
        return 0
    names = ("row_keys", "ordinals", "hashes", "vectors")
    values = dict(zip(names, map(list, zip(*vectors, strict=True)), strict=True))
    with planned_anew(connection, tables.space.source):
        return connection.execute(_sql(tables, extra, _INSERT), values).rowcount


def insert_of(connection: sa.Connection, tables: SpaceTables, rows: Sequence[EncodedRow]) -> None:
    """Store the extra vectors of rows whose chunks are stored; the caller commits."""
    for kind, space in tables.extra.items():
        insert(connection, tables, space, [vector for row in rows for vector in row.extra.get(kind, ())])


def store_rows(connection: sa.Connection, tables: SpaceTables, rows: Sequence[EncodedRow]) -> None:
    """Store the chunks of rows with all their vectors, in place of those that they had; the caller commits."""
    tables.store(connection, rows)
    insert_of(connection, tables, rows)


def written(extra: Space, vector: Vector) -> str:
    """Return an extra vector as PostgreSQL reads it."""
    return sparse_text(vector) if extra.kind == "sparse" else tokens_text(vector)


def tokens_text(tokens: Vector) -> str:
    """Return vectors, shape (t, d), as PostgreSQL reads an array of halfvec."""
    rounded = np.asarray(tokens, dtype=np.float16)
    rows = (",".join(f"{number:.4g}" for number in row) for row in rounded.tolist())
    return "{" + ",".join(f'"[{row}]"' for row in rows) + "}"


def _sql(tables: SpaceTables, extra: Space, statement: str) -> sa.TextClause:
    type_ = f"sparsevec({extra.dimensions})" if extra.kind == "sparse" else f"halfvec({extra.dimensions})[]"
    same = " AND ".join(f"e.{name} = t.{name}" for name in [*tables.quoted_keys, "ordinal"])
    inserted = ", ".join(f"t.{name}" for name in tables.quoted_keys)
    return tables.sql(
        statement, extra=quoted_table(extra.chunk_table, tables.schema), type=type_, same=same, inserted=inserted
    )


_LACKING = """
SELECT k.key::text, t.ordinal, t.hash, t.text, jsonb_exists(t.locator, 'content')
  FROM jsonb_array_elements((:keys)::jsonb) AS k(key) JOIN {chunks} t ON {of_kept}
 WHERE t.text <> '' AND NOT EXISTS (SELECT FROM {extra} e WHERE {same})"""

_LACKING_AFTER = """
SELECT t.source_id, jsonb_build_array(t.source_id)::text, t.ordinal, t.hash, t.text,
       jsonb_exists(t.locator, 'content'), d.title
  FROM {chunks} t JOIN neural.documents d ON d.id = t.source_id
 WHERE (t.source_id, t.ordinal) > (:id, :ordinal) AND t.text <> '' AND NOT EXISTS (SELECT FROM {extra} e WHERE {same})
 ORDER BY t.source_id, t.ordinal LIMIT :limit"""

_INSERT = """
INSERT INTO {extra} ({keys}, ordinal, embedding)
SELECT {inserted}, t.ordinal, r.embedding::{type}
  FROM unnest(CAST(:row_keys AS text[]), CAST(:ordinals AS integer[]), CAST(:hashes AS bytea[]),
              CAST(:vectors AS text[])) AS r(key, ordinal, hash, embedding)
 CROSS JOIN LATERAL (SELECT r.key::jsonb AS key OFFSET 0) k
  JOIN {chunks} t ON {of_kept} AND t.ordinal = r.ordinal AND t.hash = r.hash
    ON CONFLICT DO NOTHING"""
