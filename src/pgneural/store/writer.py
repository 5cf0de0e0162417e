"""Storing documents with their chunks, vectors and words, a batch in a transaction.

A document, its chunks with all their vectors, and its words always change together, so at any moment, and after any
kill, a stored document is whole. New documents go by binary COPY straight into their table, others into a staging
table, from where they are upserted; the chunks of those that changed are replaced.

Commits do not wait for the disk, which is safe because a run that is cut off is run again; `Writer.flush`
waits, before the run reports that anything is stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from pgneural.store.catalog import dropped, lock_name
from pgneural.store.extra_vectors import insert
from pgneural.store.failures import cause_of
from pgneural.store.lexical import LanguageFails, Words
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import chunks_of, terms_of
from pgneural.store.space_tables import EncodedRow, ExtraVector, SourceRow, SpaceTables
from pgneural.store.vectors import Storage
from pgneural.types import BadRecord, Chunk, Record, Vector

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(slots=True)
class Encoded:
    """A record on its way into the database.

    Attributes:
        record: The document.
        metadata: Its metadata as JSON.
        source_hash: Of its searchable content and of how it was cut.
        new: Whether the collection had no such document when it was compared.
        chunks: Its chunks, or None where those in the database are still right.
        vectors: One row for each chunk, shape (n, d).
        extra: Extra vectors of the chunks, by kind.
    """

    record: Record
    metadata: str
    source_hash: bytes
    new: bool
    chunks: Sequence[Chunk] | None = None
    vectors: Vector | None = None
    extra: Mapping[str, Sequence[ExtraVector]] = field(default_factory=dict)

    def row(self, id_: int) -> EncodedRow:
        """Return what is kept of it, once it has a key."""
        key, record = f"[{id_}]", self.record
        extra = {kind: [vector._replace(key=key) for vector in vectors] for kind, vectors in self.extra.items()}
        source = SourceRow(key, (id_,), record.title, record.content, None)
        return EncodedRow(source, self.source_hash, self.chunks, self.vectors, extra)


@dataclass(frozen=True)
class Written:
    """How many documents of a batch were new, changed, and as they were; and which the server cannot store."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: tuple[Refused, ...] = ()

    def __add__(self, other: Written) -> Written:
        return Written(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.refused + other.refused,
        )


@dataclass(frozen=True)
class Refused:
    """A document that the server cannot store.

    Attributes:
        bad: Which and why.
        language_error: Why the collection's expression of the language does not work for it, if that is why.
    """

    bad: BadRecord
    language_error: str | None


class ChangedMeanwhile(Exception):
    """Another process changed or deleted documents of a batch after it was compared; compare it again."""


class Writer:
    """Writes into one collection over one connection of its own; use it from one thread at a time."""

    def __init__(self, engine: sa.Engine, space: Space) -> None:
        self._transactions = engine.connect()
        self._connection: Connection = self._transactions.connection.driver_connection  # type: ignore[assignment]
        self._space, self._collection = space, space.attribute
        self._storage = Storage(space.storage)
        chunks = chunks_of(space)
        self._chunks = sql.Identifier(str(chunks.schema), chunks.name)
        self._terms = sql.Identifier(str(chunks.schema), terms_of(space).name)
        self._words = Words(space)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with self._transactions.begin():
            self._connection.execute(_STAGING)
            self._connection.execute("SET synchronous_commit = off")
            self._require_space()
            self._tables = SpaceTables.of(self._transactions, self._space)

    def close(self) -> None:
        """Close the connection, even under a thread that still uses it; what was not committed is gone."""
        self._transactions.invalidate()
        self._transactions.close()

    def flush(self) -> None:
        """Wait until everything that was written is on disk."""
        with self._transactions.begin():
            self._connection.execute("SET LOCAL synchronous_commit = on")
            self._connection.execute("SELECT pg_current_xact_id()")  # a transaction that writes, however little

    def hashes(self, external_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the source hash of each of these documents that has chunks."""
        with self._transactions.begin():
            return self._hashes(external_ids)

    def _hashes(self, external_ids: Sequence[str]) -> dict[str, bytes]:
        rows = self._connection.execute(self._sql(_HASHES), (self._collection, list(external_ids)), binary=True)
        return dict(rows.fetchall())

    def known(self, external_ids: Sequence[str]) -> dict[bytes, Vector]:
        """Return the vectors of these documents' chunks, by the hash of what the encoder read."""
        with self._transactions.begin():
            rows = self._connection.execute(self._sql(_KNOWN), (self._collection, list(external_ids)), binary=True)
            return {hash_: self._storage.from_binary(vector) for hash_, vector in rows}

    def write(self, batch: Sequence[Encoded]) -> Written:
        """Store a batch, whole or not at all; external ids are distinct within it.

        A document that the server cannot store, or cannot make the words of, is left out, and the batch then takes
        several transactions.

        Raises:
            UnknownCollection: The collection was dropped after it was opened.
            ChangedMeanwhile: It has to be compared again; nothing of it is stored.
        """
        return self._write(sorted(batch, key=lambda encoded: encoded.record.external_id))  # writers lock in one order

    def _write(self, batch: Sequence[Encoded]) -> Written:
        """Write a batch; where the server refuses it, its halves, down to the documents that are to blame."""
        try:
            return self._write_all(batch)
        except (LanguageFails, psycopg.Error, DBAPIError) as error:
            cause = cause_of(error)
            if not isinstance(cause, (LanguageFails, psycopg.DataError, psycopg.errors.ProgramLimitExceeded)):
                raise
            if len(batch) == 1:
                return Written(refused=(_refused(batch[0].record, cause, self._space),))
        middle = len(batch) // 2
        return self._write(batch[:middle]) + self._write(batch[middle:])

    def _write_all(self, batch: Sequence[Encoded]) -> Written:
        if all(encoded.new for encoded in batch):
            with contextlib.suppress(psycopg.errors.UniqueViolation):  # somebody stored one of them meanwhile
                return self._insert(batch)
        return self._upsert(batch)

    def _insert(self, batch: Sequence[Encoded]) -> Written:
        with self._transactions.begin():
            mean_length = self._require_space()
            ids = [id_ for (id_,) in self._connection.execute(_NEXT_IDS, (len(batch),))]
            with self._connection.cursor() as cursor, cursor.copy(_COPY_DOCUMENTS) as copy:
                copy.set_types(["int8", "text", *_DOCUMENT_TYPES])
                for id_, encoded in zip(ids, batch, strict=True):
                    copy.write_row((id_, self._collection, *_document(encoded)))
            self._take_off_the_queue()
            rows = [encoded.row(id_) for id_, encoded in zip(ids, batch, strict=True)]
            self._tables.insert(self._transactions, rows)
            self._insert_extra(rows)
            self._words.make(self._connection, ids, mean_length)
        return Written(len(batch))

    def _upsert(self, batch: Sequence[Encoded]) -> Written:
        with self._transactions.begin():
            mean_length = self._require_space()
            self._stage(batch)
            changed = self._connection.execute(_UPSERT, (self._collection,)).fetchall()
            self._require_unchanged([encoded for encoded in batch if encoded.chunks is None])
            self._take_off_the_queue()
            rechunked = [encoded for encoded in batch if encoded.chunks is not None]
            self._replace_chunks(rechunked)
            reread = {encoded.record.external_id for encoded in rechunked}
            if self._space.language_by:  # which may read the metadata
                reread |= {external_id for external_id, _ in changed}
            self._replace_words(sorted(reread), mean_length)
        inserted = {external_id for external_id, new in changed if new}
        touched = {external_id for external_id, _ in changed} | {e.record.external_id for e in rechunked}
        return Written(len(inserted), len(touched) - len(inserted), len(batch) - len(touched))

    def _require_space(self) -> float | None:
        """Make sure that the collection is the one that was opened, and stays until the transaction ends.

        Returns:
            The mean length of its rows in words, None before the first.
        """
        self._connection.execute(_SHARE, (lock_name(self._collection),))
        found = self._connection.execute(_SPACE, (self._space.id,)).fetchone()
        if not found:
            raise dropped(self._space)
        mean_length: float | None = found[0]
        return mean_length

    def _take_off_the_queue(self) -> None:
        """Where the collection has several spaces, workers encode what changed, but for this space."""
        self._connection.execute(_TAKE_OFF, (self._space.id, self._space.id))

    def _require_unchanged(self, batch: Sequence[Encoded]) -> None:
        """Make sure, now that the documents are locked, that the chunks which are kept are still theirs."""
        stored = self._hashes([encoded.record.external_id for encoded in batch]) if batch else {}
        if any(stored.get(encoded.record.external_id) != encoded.source_hash for encoded in batch):
            raise ChangedMeanwhile

    def _stage(self, batch: Sequence[Encoded]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(_COPY_STAGED) as copy:
            copy.set_types(_DOCUMENT_TYPES)
            for encoded in batch:
                copy.write_row(_document(encoded))

    def _replace_chunks(self, batch: Sequence[Encoded]) -> None:
        if not batch:
            return
        external_ids = [encoded.record.external_id for encoded in batch]
        ids = self._ids(external_ids)
        rows = [encoded.row(ids[encoded.record.external_id]) for encoded in batch]
        self._tables.store(self._transactions, rows)
        self._insert_extra(rows)

    def _insert_extra(self, rows: Sequence[EncodedRow]) -> None:
        for kind, space in self._tables.extra.items():
            insert(
                self._transactions, self._tables, space, [vector for row in rows for vector in row.extra.get(kind, ())]
            )

    def _replace_words(self, external_ids: Sequence[str], mean_length: float | None) -> None:
        if external_ids:
            ids = list(self._ids(external_ids).values())
            self._connection.execute(self._sql(_DELETE_TERMS), (ids,))
            self._words.make(self._connection, ids, mean_length)

    def _ids(self, external_ids: Sequence[str]) -> dict[str, int]:
        return dict(self._connection.execute(_IDS, (self._collection, list(external_ids))).fetchall())

    def _sql(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(chunks=self._chunks, terms=self._terms)


def _refused(record: Record, error: Exception, space: Space) -> Refused:
    said = str(error).splitlines()[0]
    wrong = isinstance(error, LanguageFails)
    what = f"language_by {space.language_by} does not work for it" if wrong else "the server cannot store it"
    return Refused(BadRecord(record.origin or record.external_id, f"{what}: {said}"), said if wrong else None)


_DOCUMENT_TYPES = ["text", "text", "text", "bytea", "text", "text"]  # bytea: JSON in the form of `_jsonb`


def _document(encoded: Encoded) -> tuple[Any, ...]:
    record = encoded.record
    modality = record.modality.value
    return record.external_id, record.title, record.content, _jsonb(encoded.metadata), record.uri, modality


def _jsonb(text: str) -> bytes:
    """Return JSON in the binary form of jsonb: a version, then the text."""
    return b"\x01" + text.encode()


def among(column: sa.ColumnElement[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of these values, as one parameter however many they are."""
    return column == sa.any_(sa.literal(list(values), ARRAY(sa.Text)))


def delete(connection: sa.Connection, collection: str, conditions: Sequence[sa.ColumnElement[bool]]) -> int:
    """Delete the documents that meet the conditions, with their chunks, and return how many they were."""
    statement = sa.delete(DOCUMENTS).where(DOCUMENTS.c.collection == collection, *conditions)
    return int(connection.execute(statement).rowcount)


_STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS pgneural_staged (
    external_id text, title text, content text, metadata jsonb, uri text, modality text
) ON COMMIT DELETE ROWS"""

_SHARE = "SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))"

_SPACE = "SELECT mean_length FROM neural.spaces WHERE id = %s"

_TAKE_OFF = """
WITH noted AS (
    DELETE FROM neural.changes
     WHERE space_id = %s AND changed_by = pg_current_xact_id_if_assigned()::text::bigint RETURNING keys
)
DELETE FROM neural.pending p USING noted n, jsonb_array_elements(n.keys) AS k(key)
 WHERE p.space_id = %s AND p.key = k.key"""

_NEXT_IDS = """
SELECT nextval(pg_get_serial_sequence('neural.documents', 'id')) FROM generate_series(1, %s)"""

_COPY_DOCUMENTS = """
COPY neural.documents (id, collection, external_id, title, content, metadata, uri, modality)
FROM STDIN (FORMAT binary)"""

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
RETURNING external_id, xmax = 0"""

_IDS = "SELECT external_id, id FROM neural.documents WHERE collection = %s AND external_id = ANY(%s)"

_HASHES = """
SELECT d.external_id, c.source_hash
  FROM neural.documents d JOIN {chunks} c ON c.source_id = d.id AND c.ordinal = 0
 WHERE d.collection = %s AND d.external_id = ANY(%s)"""

_KNOWN = """
SELECT c.hash, c.embedding
  FROM neural.documents d JOIN {chunks} c ON c.source_id = d.id
 WHERE d.collection = %s AND d.external_id = ANY(%s)"""

_DELETE_TERMS = "DELETE FROM {terms} WHERE source_id = ANY(%s)"
