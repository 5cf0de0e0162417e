"""Bringing the vectors and words of a source up to date with its rows: take what changed, encode it, store it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa

from pgneural import chunkers
from pgneural.errors import InvalidQuery
from pgneural.extra_vectors import ExtraVectors, extra_vectors_of
from pgneural.store import lexical, queue
from pgneural.store.copying import commits_at_once
from pgneural.store.owner import Nested, Transactions, Within
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space_tables import EncodedRow, SourceRow, SpaceTables
from pgneural.store.vector_cache import cache_vectors, cached_vectors
from pgneural.types import Chunk, Content, Encoder, Modality, Vector, fingerprint

BATCH_ROWS = 512
"""Enough for batches of texts of like length, few enough to lose little when stopped."""

WORTH_ANALYZING = 2000
"""Rows after which the server's statistics are made anew, so that a search of a table that has just grown is planned
for what is there; autovacuum comes a minute later."""


@dataclass
class SyncReport:
    """What a run did.

    Attributes:
        rows: How many rows are up to date now that were not.
        chunks_encoded: How many chunks got a new vector.
        chunks_reused: How many kept the vector that they had.
    """

    rows: int = 0
    chunks_encoded: int = 0
    chunks_reused: int = 0


@dataclass
class Batch:
    """Rows of one space on their way: read, cut, and given their vectors.

    Attributes:
        tables: The tables of the space.
        rows: What is made of them.
        known: Vectors that are there already, by the hash of what was read.
    """

    tables: SpaceTables
    rows: list[EncodedRow]
    known: dict[bytes, Vector] = field(default_factory=dict)

    @classmethod
    def read(
        cls, where: Transactions, tables: SpaceTables, keys: Sequence[str], encoder: Callable[[], Encoder]
    ) -> Batch:
        """Read the first of these rows, as many as memory allows; cut those that changed outside of a transaction."""
        with where.begin() as connection:
            changed = tables.read(connection, keys)
        rows = [cut(tables.space, row, encoder) for row in changed]
        before = [row.source for row in rows if row.chunks and row.source.source_hash is not None]
        if not before:
            return cls(tables, rows)
        with where.begin() as connection:
            return cls(tables, rows, tables.known(connection, before))

    def add_extra(self, where: Transactions) -> None:
        """Make the extra vectors of its chunks, where the search has any."""
        for extra in self.extra:
            extra.add(where, self.tables, self.rows)

    def store(self, connection: sa.Connection, rows: Sequence[EncodedRow]) -> None:
        """Store all that was made of some of its rows; the caller commits."""
        self.tables.store(connection, rows)
        for extra in self.extra:
            extra.store(connection, self.tables, rows)

    @functools.cached_property
    def extra(self) -> Sequence[ExtraVectors]:
        """The extra vectors of its chunks."""
        return extra_vectors_of(self.tables)

    @property
    def chunks(self) -> Iterator[Chunk]:
        """All chunks that need a vector."""
        return (piece for row in self.rows for piece in row.chunks or ())

    def give(self, vectors: Mapping[bytes, Vector]) -> None:
        """Give each row the vectors of its chunks, shape (n, d)."""
        for row in self.rows:
            if row.chunks:
                row.vectors = np.array([vectors[piece.hash] for piece in row.chunks], dtype=np.float32)


def cut(space: Space, row: SourceRow, encoder: Callable[[], Encoder]) -> EncodedRow:
    """Cut a row; one whose stored chunks are right has none."""
    hash_ = _source_hash(space, row)
    if row.values is None or hash_ == row.source_hash:
        return EncodedRow(row, hash_)
    if not row.title.strip() and not row.content.strip():
        return EncodedRow(row, hash_, [])
    loaded = encoder()
    longest = min(space.max_tokens, loaded.max_tokens or space.max_tokens)
    overlap = space.overlap * longest // space.max_tokens  # the share of a chunk that was declared
    content = Content(Modality.TEXT, row.content, row.title)
    return EncodedRow(row, hash_, chunkers.cut(content, loaded, chunkers.Lengths(longest, overlap)))


def _source_hash(space: Space, row: SourceRow) -> bytes:
    """Return what tells whether a row has to be cut anew; for documents, as `pipeline` does."""
    how = f"{space.max_tokens} {space.overlap}"
    if space.source == DOCUMENTS.fullname:
        return fingerprint(row.title, row.content, b"", f"{space.revision} {how}")
    return fingerprint(row.title, row.content, how)


def cached_or_known(connection: sa.Connection, encoder: Encoder, batches: Sequence[Batch]) -> dict[bytes, Vector]:
    """Return the vectors that are there already for chunks of some batches, by their hash."""
    wanted = {piece.hash for batch in batches for piece in batch.chunks}
    found = {hash_: vector for batch in batches for hash_, vector in batch.known.items() if hash_ in wanted}
    return found | cached_vectors(connection, encoder, sorted(wanted - found.keys()))


def encoded(encoder: Encoder, batches: Sequence[Batch], found: Mapping[bytes, Vector]) -> dict[bytes, Vector]:
    """Encode, in one call, the chunks that have no vector yet; equal ones once."""
    missing = {piece.hash: piece.input for batch in batches for piece in batch.chunks if piece.hash not in found}
    if not missing:
        return {}
    return dict(zip(missing, encoder.encode_documents(list(missing.values())), strict=True))


class TransactionalSync:
    """One run over one space, for who waits for it; a batch is taken, encoded and stored at a time.

    Args:
        tables: The tables of the space.
        encoder: Makes its encoder; called when the first text needs a vector.
    """

    def __init__(self, tables: SpaceTables, encoder: Callable[[], Encoder]) -> None:
        self._tables, self._encoder = tables, encoder
        self.report = SyncReport()

    def within(self, connection: sa.Connection, *, own: bool = False) -> SyncReport:
        """Bring all rows, or only those that the transaction itself has changed, up to date in it.

        Rows leave the queue together with what is made of them: where that fails, all of a batch is as it was before.

        Raises:
            InvalidQuery: Each statement of the connection is a transaction.
        """
        if commits_at_once(connection):
            raise InvalidQuery(
                "the connection is in AUTOCOMMIT, where rows could leave the queue before they are encoded; "
                "give sync() a transaction, or the engine"
            )
        while self._batch(connection, own):
            pass
        if not own:  # which would lock the words of rows that others are writing
            lexical.refresh_all(Nested(connection), self._tables.space.id)
            lexical.settle(connection, self._tables.space.id, self._tables.terms, self.report.rows)
            if self.report.rows >= WORTH_ANALYZING:
                self._tables.analyze(connection)
        return self.report

    def _batch(self, connection: sa.Connection, own: bool) -> int:
        """Take rows off the queue and store what is made of them; return how many."""
        with connection.begin_nested():
            keys = queue.take(connection, self._tables.space.id, BATCH_ROWS, own=own)
            left = keys if self._tables.chunks is not None else []
            if left:
                self._tables.look_again(connection)
            while left:
                left = left[self._stored(connection, left) :]
        self.report.rows += len(keys)
        return len(keys)

    def _stored(self, connection: sa.Connection, keys: Sequence[str]) -> int:
        """Encode and store the first of these rows; return how many."""
        batch = Batch.read(Within(connection), self._tables, keys, self._encoder)
        if any(batch.chunks):
            encoder = self._encoder()
            self._tables.claim_revision(connection, encoder.name, encoder.revision)
            found = cached_or_known(connection, encoder, [batch])
            new = encoded(encoder, [batch], found)
            cache_vectors(connection, encoder, new)
            batch.give(found | new)
            self.report.chunks_encoded += len(new)
            self.report.chunks_reused += sum(1 for _ in batch.chunks) - len(new)
        batch.add_extra(Within(connection))
        batch.store(connection, batch.rows)
        return len(batch.rows)
