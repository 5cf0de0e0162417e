"""Storing documents with their chunks, vectors and words, a batch in a transaction.

A document, its chunks with all their vectors, and its words always change together, so at any moment, and after any
kill, a stored document is whole. New documents go by binary COPY straight into their table, others into a staging
table, from where they are upserted; the chunks of those that changed are replaced.

Commits do not wait for the disk, which is safe because a run that is cut off is run again; `Writer.flush`
waits, before the run reports that anything is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from pgneural.report import Report
from pgneural.store.catalog import dropped, lock_name
from pgneural.store.extra_vectors import insert_of, store_rows
from pgneural.store.failures import cause_of
from pgneural.store.lexical import LanguageFails, Words
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import chunks_of, terms_of
from pgneural.store.space_tables import EncodedRow, SpaceTables
from pgneural.types import BadRecord, Modality, Record

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(slots=True)
class IncomingDocument:
    """A record on its way into the database.

    Attributes:
        record: The document.
        metadata: Its metadata as JSON.
        new: Whether the collection had no such document when it was compared.
        row: What is made of it, with the key that it has or will have.
    """

    record: Record
    metadata: str
    new: bool
    row: EncodedRow

    @property
    def id(self) -> int:
        """Its key."""
        (id_,) = self.row.source.values or ()
        return int(id_)


@dataclass(frozen=True, slots=True)
class WithoutLanguage(BadRecord):
    """A document for which the collection's expression of the language does not work.

    Attributes:
        error: What PostgreSQL says of it.
    """

    error: str


class ChangedMeanwhile(Exception):
    """Another process changed or deleted documents after they were compared; nothing of the transaction is stored."""


class Stored(NamedTuple):
    """What is stored of a document.

    Attributes:
        key: Its key; that of a new one is its own from now on.
        new: Whether nothing is.
        hash: The source hash of its chunks, None if there are none.
        seconds: When each line of it was spoken, as JSON; None where it does not say so.
    """

    key: int
    new: bool
    hash: bytes | None = None
    seconds: str | None = None


class Writer:
    """Writes into one collection over one connection of its own; use it from one thread at a time.

    Attributes:
        tables: The tables that it writes into.
    """

    def __init__(self, engine: sa.Engine, space: Space) -> None:
        self._transactions = engine.connect()
        self._connection: Connection = self._transactions.connection.driver_connection  # type: ignore[assignment]
        self._space, self._collection = space, space.attribute
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
            self.tables = SpaceTables.of(self._transactions, self._space)

    def close(self) -> None:
        """Close the connection, even under a thread that still uses it; what was not committed is gone."""
        self._transactions.invalidate()
        self._transactions.close()

    def flush(self) -> None:
        """Wait until everything that was written is on disk."""
        with self._transactions.begin():
            self._connection.execute("SET LOCAL synchronous_commit = on")
            self._connection.execute("SELECT pg_current_xact_id()")  # a transaction that writes, however little

    def compared(self, external_ids: Sequence[str]) -> dict[str, Stored]:
        """Return what is stored of each of these documents.

        The key of a new one is its own from now on; if it is never stored, nobody gets it.
        """
        with self._transactions.begin():
            stored = self._stored(external_ids)
            missing = [id_ for id_ in external_ids if id_ not in stored]
            keys = self._connection.execute(_NEXT_IDS, (len(missing),)) if missing else ()
            new = {id_: Stored(key, True) for id_, (key,) in zip(missing, keys, strict=True)}
        return new | stored

    def _stored(self, external_ids: Sequence[str]) -> dict[str, Stored]:
        found = self._connection.execute(self._sql(_STORED), (self._collection, list(external_ids)), binary=True)
        return {external_id: Stored(key, False, hash_, seconds) for external_id, key, hash_, seconds in found}

    def write(self, batch: Sequence[IncomingDocument]) -> tuple[Report, list[IncomingDocument]]:
        """Store a batch, whole or not at all; external ids are distinct within it.

        A document that the server cannot store, or cannot make the words of, is left out, and the batch then takes
        several transactions.

        Returns:
            What was done, and the documents that have to be compared again, because another process was quicker:
            nothing of these is stored.

        Raises:
            UnknownCollection: The collection was dropped after it was opened.
        """
        return self._write(sorted(batch, key=lambda document: document.record.external_id))  # writers lock in one order

    def _write(self, batch: Sequence[IncomingDocument]) -> tuple[Report, list[IncomingDocument]]:
        """Write a batch; where the server refuses it, its halves, down to the documents that are to blame."""
        try:
            return self._write_all(batch), []
        except ChangedMeanwhile:
            return Report(), list(batch)
        except (LanguageFails, psycopg.Error, DBAPIError) as error:
            cause = cause_of(error)
            if not isinstance(cause, (LanguageFails, psycopg.DataError, psycopg.errors.ProgramLimitExceeded)):
                raise
            if len(batch) == 1:
                return Report(rejected=1, bad=[_refused(batch[0].record, cause, self._space)]), []
        middle = len(batch) // 2
        report, changed = self._write(batch[:middle])
        others, changed_too = self._write(batch[middle:])
        report.add(others)
        return report, changed + changed_too

    def _write_all(self, batch: Sequence[IncomingDocument]) -> Report:
        try:
            return self._insert(batch) if all(document.new for document in batch) else self._upsert(batch)
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name != _SAME_ID:
                raise  # of the key, or of an index of the user's
            raise ChangedMeanwhile from error  # somebody stored one of them meanwhile

    def _insert(self, batch: Sequence[IncomingDocument]) -> Report:
        with self._transactions.begin():
            mean_length = self._require_space()
            with self._connection.cursor() as cursor, cursor.copy(_COPY_DOCUMENTS) as copy:
                copy.set_types(["text", *_DOCUMENT_TYPES])
                for document in batch:
                    copy.write_row((self._collection, *_document(document)))
            self._take_off_the_queue()
            rows = [document.row for document in batch]
            self.tables.insert(self._transactions, rows)
            insert_of(self._transactions, self.tables, rows)
            self._words.make(self._connection, [document.id for document in batch], mean_length)
        return Report(rows=len(batch), inserted=len(batch))

    def _upsert(self, batch: Sequence[IncomingDocument]) -> Report:
        with self._transactions.begin():
            mean_length = self._require_space()
            self._stage(batch)
            changed: dict[int, int] = dict(self._connection.execute(_UPSERT, (self._collection,)).fetchall())
            self._require_as_compared(batch)
            self._take_off_the_queue()
            rows = [document.row for document in batch if document.row.chunks is not None]
            store_rows(self._transactions, self.tables, rows)
            rechunked = {document.id for document in batch if document.row.chunks is not None}
            rechunked |= {each.id for each in batch if each.id in changed and each.record.modality is not Modality.TEXT}
            touched = rechunked | changed.keys()
            reread = touched if self._space.language_by else rechunked  # the language may be in the metadata
            self._replace_words(sorted(reread), mean_length)
        inserted, stored = sum(changed.values()), len(touched)
        return Report(stored, inserted, stored - inserted, len(batch) - stored)

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

    def _require_as_compared(self, batch: Sequence[IncomingDocument]) -> None:
        """Make sure, now that the documents are locked, that keys and chunks which are kept are still theirs."""
        stored = self._stored([document.record.external_id for document in batch])
        for document in batch:
            known = stored.get(document.record.external_id)
            reused = document.row.chunks is None
            if known is None or known.key != document.id or (reused and known.hash != document.row.source_hash):
                raise ChangedMeanwhile

    def _stage(self, batch: Sequence[IncomingDocument]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(_COPY_STAGED) as copy:
            copy.set_types(_DOCUMENT_TYPES)
            for document in batch:
                copy.write_row(_document(document))

    def _replace_words(self, ids: Sequence[int], mean_length: float | None) -> None:
        if ids:
            self._connection.execute(self._sql(_DELETE_TERMS), (ids,))
            self._words.make(self._connection, ids, mean_length)

    def _sql(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(chunks=self._chunks, terms=self._terms)


def _refused(record: Record, error: Exception, space: Space) -> BadRecord:
    message, origin = str(error).splitlines()[0], record.origin or record.external_id
    if isinstance(error, LanguageFails):
        return WithoutLanguage(origin, f"language_by {space.language_by} does not work for it: {message}", message)
    return BadRecord(origin, f"the server cannot store it: {message}")


_DOCUMENT_TYPES = ["int8", "text", "text", "text", "bytea", "text", "text"]  # bytea: JSON in the form of `_jsonb`


def _document(document: IncomingDocument) -> tuple[Any, ...]:
    record = document.record
    values = record.title, record.content, _jsonb(document.metadata), record.uri, record.modality.value
    return document.id, record.external_id, *values


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


_SAME_ID = "documents_collection_external_id_key"

_STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS pgneural_staged (
    id bigint, external_id text, title text, content text, metadata jsonb, uri text, modality text
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
COPY neural.documents (collection, id, external_id, title, content, metadata, uri, modality)
FROM STDIN (FORMAT binary)"""

_COPY_STAGED = """
COPY pgneural_staged (id, external_id, title, content, metadata, uri, modality) FROM STDIN (FORMAT binary)"""

# ordered by external_id, so that two writers of the same documents lock them in the same order
_UPSERT = """
INSERT INTO neural.documents AS d (collection, id, external_id, title, content, metadata, uri, modality)
OVERRIDING SYSTEM VALUE
SELECT %s, id, external_id, title, content, metadata, uri, modality FROM pgneural_staged ORDER BY external_id
ON CONFLICT (collection, external_id) DO UPDATE
   SET title = excluded.title, content = excluded.content, metadata = excluded.metadata,
       uri = excluded.uri, modality = excluded.modality, updated_at = now()
 WHERE (d.title, d.content, d.metadata, d.uri, d.modality)
       IS DISTINCT FROM (excluded.title, excluded.content, excluded.metadata, excluded.uri, excluded.modality)
RETURNING id, (xmax = 0)::integer"""

_STORED = """
SELECT d.external_id, d.id, c.source_hash, CAST(d.metadata -> 'seconds' AS text)
  FROM neural.documents d LEFT JOIN {chunks} c ON c.source_id = d.id AND c.ordinal = 0
 WHERE d.collection = %s AND d.external_id = ANY(%s)"""

_DELETE_TERMS = "DELETE FROM {terms} WHERE source_id = ANY(%s)"
