"""Storing documents with their chunks, a batch in a transaction.

A document and its chunks always change together, so at any moment, and after any kill, a stored document
is whole. Documents go by binary COPY into a staging table and are upserted from there; the chunks of the
documents that changed are replaced, by binary COPY straight into the chunk table.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.types.json import Jsonb

from pgneural.store.catalog import chunks_of
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.types import Chunk, Record, Vector

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Encoded:
    """A record on its way into the database.

    Attributes:
        record: The document.
        source_hash: Of its searchable content and of how it was cut.
        chunks: Its chunks, or None where those in the database are still right.
        vectors: One row for each chunk, shape (n, d).
    """

    record: Record
    source_hash: bytes
    chunks: Sequence[Chunk] | None = None
    vectors: Vector | None = None


@dataclass(frozen=True)
class Written:
    """How many documents of a batch were new, changed, and as they were."""

    inserted: int
    updated: int
    unchanged: int


class Writer:
    """Writes into one collection over one connection of its own; use it from one thread at a time."""

    def __init__(self, engine: sa.Engine, space: Space) -> None:
        self._pooled = engine.raw_connection()
        self._connection: Connection = self._pooled.driver_connection  # type: ignore[assignment]
        self._collection = space.attribute
        chunks = chunks_of(space)
        self._chunks = sql.Identifier(str(chunks.schema), chunks.name)
        self._connection.execute(_STAGING)
        self._connection.commit()

    def close(self) -> None:
        """Close the connection, even under a thread that still uses it; what was not committed is gone."""
        self._pooled.invalidate()

    def hashes(self, external_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the source hash of each of these documents that has chunks."""
        with self._connection.transaction():
            rows = self._connection.execute(self._sql(_HASHES), (self._collection, list(external_ids)), binary=True)
            return dict(rows.fetchall())

    def known(self, external_ids: Sequence[str]) -> dict[bytes, Vector]:
        """Return the vectors of these documents' chunks, by the hash of what the encoder read."""
        with self._connection.transaction():
            rows = self._connection.execute(self._sql(_KNOWN), (self._collection, list(external_ids)), binary=True)
            return {hash_: np.frombuffer(vector, dtype=">f4", offset=4).astype(np.float32) for hash_, vector in rows}

    def write(self, batch: Sequence[Encoded]) -> Written:
        """Store a batch, whole or not at all; external ids are distinct within it."""
        with self._connection.transaction():
            self._stage([encoded.record for encoded in batch])
            changed = self._connection.execute(self._sql(_UPSERT), (self._collection,)).fetchall()
            inserted = {external_id: id_ for external_id, id_, new in changed if new}
            rechunked = [encoded for encoded in batch if encoded.chunks is not None]
            self._replace_chunks(rechunked, inserted)
        touched = {external_id for external_id, _, _ in changed} | {e.record.external_id for e in rechunked}
        return Written(len(inserted), len(touched) - len(inserted), len(batch) - len(touched))

    def _stage(self, records: Sequence[Record]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(_COPY_STAGED) as copy:
            copy.set_types(["text", "text", "text", "jsonb", "text", "text"])
            for record in records:
                metadata = Jsonb(dict(record.metadata))
                copy.write_row(
                    (record.external_id, record.title, record.content, metadata, record.uri, str(record.modality))
                )

    def _replace_chunks(self, batch: Sequence[Encoded], inserted: Mapping[str, int]) -> None:
        old = [encoded.record.external_id for encoded in batch if encoded.record.external_id not in inserted]
        ids = dict(inserted)
        if old:
            ids |= self._connection.execute(_IDS, (self._collection, old)).fetchall()
            self._connection.execute(self._sql(_DELETE), ([ids[external_id] for external_id in old],))
        with self._connection.cursor() as cursor, cursor.copy(self._sql(_COPY_CHUNKS)) as copy:
            copy.set_types(["int8", "int4", "text", "jsonb", "bytea", "bytea", "bytea"])
            for encoded in batch:
                self._copy_chunks(copy, ids[encoded.record.external_id], encoded)

    def _copy_chunks(self, copy: psycopg.Copy, id_: int, encoded: Encoded) -> None:
        assert encoded.chunks is not None
        assert encoded.vectors is not None
        for ordinal, (chunk, vector) in enumerate(zip(encoded.chunks, _binary(encoded.vectors), strict=True)):
            locator = Jsonb(dict(chunk.locator))
            copy.write_row((id_, ordinal, chunk.text, locator, chunk.hash, encoded.source_hash, vector))

    def _sql(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(chunks=self._chunks)


def _binary(vectors: Vector) -> list[bytes]:
    """Return each row in pgvector's binary form: the length, two bytes of zero, big-endian floats."""
    header = struct.pack(">HH", vectors.shape[1], 0)
    return [header + row.tobytes() for row in vectors.astype(">f4")]


def delete(connection: sa.Connection, collection: str, conditions: Sequence[sa.ColumnElement[bool]]) -> int:
    """Delete the documents that meet the conditions, with their chunks, and return how many they were."""
    statement = sa.delete(DOCUMENTS).where(DOCUMENTS.c.collection == collection, *conditions)
    return int(connection.execute(statement).rowcount)


_STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS pgneural_staged (
    external_id text, title text, content text, metadata jsonb, uri text, modality text
) ON COMMIT DELETE ROWS"""

_COPY_STAGED = """
COPY pgneural_staged (external_id, title, content, metadata, uri, modality) FROM STDIN (FORMAT binary)"""

# ordered by external_id, so that two writers of the same documents lock them in the same order
_UPSERT = """
INSERT INTO neural.documents AS d (collection, external_id, title, content, metadata, uri, modality)
SELECT %s, external_id, title, content, metadata, uri, modality FROM pgneural_staged ORDER BY external_id
ON CONFLICT (collection, external_id) DO UPDATE
   SET title = excluded.title, content = excluded.content, metadata = excluded.metadata,
       uri = excluded.uri, modality = excluded.modality, updated_at = now()
 WHERE (d.title, d.content, d.metadata, d.uri, d.modality)
       IS DISTINCT FROM (excluded.title, excluded.content, excluded.metadata, excluded.uri, excluded.modality)
RETURNING external_id, id, xmax = 0"""

_IDS = "SELECT external_id, id FROM neural.documents WHERE collection = %s AND external_id = ANY(%s)"

_HASHES = """
SELECT d.external_id, c.source_hash
  FROM neural.documents d JOIN {chunks} c ON c.source_id = d.id AND c.ordinal = 0
 WHERE d.collection = %s AND d.external_id = ANY(%s)"""

_KNOWN = """
SELECT c.hash, c.embedding
  FROM neural.documents d JOIN {chunks} c ON c.source_id = d.id
 WHERE d.collection = %s AND d.external_id = ANY(%s)"""

_DELETE = "DELETE FROM {chunks} WHERE source_id = ANY(%s)"

_COPY_CHUNKS = """
COPY {chunks} (source_id, ordinal, text, locator, hash, source_hash, embedding) FROM STDIN (FORMAT binary)"""
