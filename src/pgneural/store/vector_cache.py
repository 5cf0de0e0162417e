"""Vectors that were made once, by encoder, revision and what was read: nothing is encoded twice.

Not after a row or a document was deleted and inserted again, and not for another table or collection with the same
text, if one role owns both: each role has vectors of its own, so that nobody learns from them what texts others have,
or gives others wrong ones.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa

from pgneural.store.copying import BYTEA, TEXT, commits_at_once, copies, copy
from pgneural.store.schema import VECTORS
from pgneural.store.space_tables import numbers
from pgneural.store.vectors import Storage
from pgneural.types import Encoder, Vector

CACHE_DAYS = 30
"""A vector that nobody asked for in so long is removed. The chunks that have it keep theirs."""


def cached_vectors(connection: sa.Connection, encoder: Encoder, hashes: Sequence[bytes]) -> dict[bytes, Vector]:
    """Return the vectors that this revision of an encoder made before, by the hash of what it read."""
    if not hashes:
        return {}
    values = {"encoder": encoder.name, "revision": encoder.revision, "hashes": list(hashes)}
    rows = connection.execute(_READ, values).all()
    return {bytes(row.hash): Storage.VECTOR.parse(numbers(row.embedding)) for row in rows}


def cache_vectors(connection: sa.Connection, encoder: Encoder, vectors: Mapping[bytes, Vector]) -> None:
    """Keep vectors for the next time; shape (d,) each."""
    if not vectors:
        return
    rows = sorted(vectors.items())
    if copies(connection) and not connection.scalar(_SECURED):  # COPY does not go with row-level security
        try:
            with contextlib.nullcontext() if commits_at_once(connection) else connection.begin_nested():
                _copied(connection, encoder, rows)
        except psycopg.errors.UniqueViolation:  # somebody made one of them just now
            _inserted(connection, encoder, rows)
    else:
        _inserted(connection, encoder, rows)


def _copied(connection: sa.Connection, encoder: Encoder, rows: Sequence[tuple[bytes, Vector]]) -> None:
    binary = Storage.VECTOR.to_binary(np.stack([vector for _, vector in rows]))
    written = [(encoder.name, encoder.revision, hash_, vector) for (hash_, _), vector in zip(rows, binary, strict=True)]
    copy(connection, "neural.vectors (encoder, revision, hash, embedding)", [TEXT, TEXT, BYTEA, BYTEA], written)


def _inserted(connection: sa.Connection, encoder: Encoder, rows: Sequence[tuple[bytes, Vector]]) -> None:
    values: dict[str, Any] = {"encoder": encoder.name, "revision": encoder.revision}
    values |= {"hashes": [hash_ for hash_, _ in rows], "vectors": [_text(vector) for _, vector in rows]}
    connection.execute(_WRITE, values)


def evict(connection: sa.Connection) -> None:
    """Remove what nobody asked for in `CACHE_DAYS`."""
    connection.execute(sa.delete(VECTORS).where(VECTORS.c.used_on < sa.func.current_date() - CACHE_DAYS))


def _text(vector: Vector) -> str:
    return json.dumps(vector.tolist())


_SECURED = sa.text("SELECT row_security_active('neural.vectors')")

_READ = sa.text("""
WITH wanted AS (
    SELECT v.hash, v.embedding, v.used_on FROM neural.vectors v
     WHERE v.owner = CURRENT_USER AND v.encoder = :encoder AND v.revision = :revision
       AND v.hash = ANY(CAST(:hashes AS bytea[]))
), used AS (  -- once a day is enough, and whoever is busy with one lets it be
    UPDATE neural.vectors v SET used_on = current_date
     WHERE (v.owner, v.encoder, v.revision, v.hash) IN (
           SELECT o.owner, o.encoder, o.revision, o.hash FROM neural.vectors o JOIN wanted w USING (hash)
            WHERE o.owner = CURRENT_USER AND o.encoder = :encoder AND o.revision = :revision
              AND w.used_on < current_date - 1
              FOR UPDATE OF o SKIP LOCKED)
)
SELECT hash, embedding FROM wanted""")

_WRITE = sa.text("""
INSERT INTO neural.vectors (encoder, revision, hash, embedding)
SELECT :encoder, :revision, r.hash, r.embedding::vector
  FROM unnest(CAST(:hashes AS bytea[]), CAST(:vectors AS text[])) AS r(hash, embedding)
    ON CONFLICT DO NOTHING""")
