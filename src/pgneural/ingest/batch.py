"""Rows on their way into a space: cut into chunks, given the vectors that are known, and the others encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import sqlalchemy as sa

from pgneural import chunkers, encoders
from pgneural.extra_vectors import ExtraVectors, extra_vectors_of
from pgneural.load.permitted_files import with_data
from pgneural.report import Report
from pgneural.store.owner import Transactions
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space_tables import EncodedRow, SourceRow, SpaceTables
from pgneural.store.vector_cache import cached_vectors
from pgneural.types import Chunk, Content, Encoder, Modality, Vector, fingerprint

BATCH_ROWS = 512
"""Texts that are encoded at a time: enough for batches of like length, few enough to lose little when stopped."""


BATCH_BYTES = 2**25
"""Of what is no text: some forty of the largest pictures."""


@dataclass
class Batch:
    """Rows of one space.

    Attributes:
        tables: The tables of the space.
        rows: What is made of them.
        extra: The extra vectors that their chunks get.
        known: Vectors that are stored for them already, by the hash of what was read.
    """

    tables: SpaceTables
    rows: list[EncodedRow]
    extra: Sequence[ExtraVectors]
    known: dict[bytes, Vector] = field(default_factory=dict)

    @classmethod
    def read(
        cls, where: Transactions, tables: SpaceTables, keys: Sequence[str], encoder: Callable[[], Encoder]
    ) -> Batch:
        """Read the first of these rows, as many as memory allows; cut those that changed outside of a transaction."""
        with where.begin() as connection:
            changed = tables.read(connection, keys)
        batch = cls(tables, list(_cut_in_bounds(tables.space, changed, encoder)), extra_vectors_of(tables))
        batch.look_up(where)
        return batch

    def only(self, row: EncodedRow) -> Batch:
        """Return a batch of one of its rows."""
        return replace(self, rows=[row])

    def look_up(self, where: Transactions) -> None:
        """Look up the vectors that are stored for the rows whose chunks have changed."""
        before = [row.source for row in self.rows if row.chunks and row.source.source_hash is not None]
        if before:
            with where.begin() as connection:
                self.known |= self.tables.known(connection, before)

    @property
    def chunks(self) -> Iterator[Chunk]:
        """All chunks that need a vector."""
        return (chunk for row in self.rows if not row.precomputed for chunk in row.chunks or ())

    def give(self, vectors: Mapping[bytes, Vector]) -> None:
        """Give each row the vectors of its chunks, shape (n, d)."""
        for row in self.rows:
            if row.chunks and not row.precomputed:
                row.vectors = np.array([vectors[chunk.hash] for chunk in row.chunks], dtype=np.float32)

    def add_extra(self, where: Transactions) -> None:
        """Make the extra vectors of its chunks, where the search has any."""
        for extra in self.extra:
            extra.add(where, self.tables, self.rows)

    def claim(self, connection: sa.Connection, encoder: Callable[[], Encoder]) -> None:
        """Make sure that all vectors of the space are of one revision of their encoders, before more are stored.

        Raises:
            EncoderMismatch: They are of another.
        """
        if any(self.chunks):
            self.tables.claim_revision(connection, encoder().name, encoder().revision)
        for extra in self.extra:
            if any(row.extra.get(extra.space.kind) for row in self.rows):
                extra.claim(connection)

    def count(self, new: Mapping[bytes, Vector]) -> Report:
        """Return how many of its chunks got a new vector, and how many did not need one."""
        every = [chunk.hash for chunk in self.chunks]
        encoded = len(new.keys() & every)
        return Report(chunks_encoded=encoded, chunks_reused=len(every) - encoded)


def body_for(space: Space, body: Content, encoder: Callable[[], Encoder]) -> Content:
    """Return what of a content the encoder of a space reads; for a text, the encoder is not loaded."""
    if body.modality is Modality.TEXT:
        return body
    accepted = encoders.modalities(space.encoder)
    return chunkers.read_by(body, encoder().modalities if accepted is None else accepted)


def cut(space: Space, row: SourceRow, encoder: Callable[[], Encoder]) -> EncodedRow:
    """Cut a row; one whose stored chunks are right has none."""
    hash_ = source_hash(space, row, revision=_revision(space, row, encoder))
    if row.values is None or hash_ == row.source_hash:
        return EncodedRow(row, hash_)
    if row.body.empty:
        return EncodedRow(row, hash_, [])
    loaded = encoder()
    longest = min(space.max_tokens, loaded.max_tokens or space.max_tokens)
    overlap = space.overlap * longest // space.max_tokens  # the share of a chunk that was declared
    return EncodedRow(row, hash_, chunkers.cut(row.body, loaded, chunkers.Lengths(longest, overlap)))


def _cut_in_bounds(space: Space, rows: Sequence[SourceRow], encoder: Callable[[], Encoder]) -> Iterator[EncodedRow]:
    """Cut the first rows, as many as memory allows; of what is no text, the file is read."""
    read = 0
    for row in rows:
        row = replace(row, body=body_for(space, row.body, encoder))
        if row.values is not None and row.body.modality is not Modality.TEXT:
            chunkers.require_accepted(row.body.modality, encoder())
            row = replace(row, body=with_data(row.body))
            read += row.body.size
        yield cut(space, row, encoder)
        if read >= BATCH_BYTES:
            return


def _revision(space: Space, row: SourceRow, encoder: Callable[[], Encoder]) -> str:
    """Return the revision that the vectors of a row are of: of the first of a space, what the space will have."""
    made_here = row.values is not None and space.source == DOCUMENTS.fullname
    return space.revision or (encoder().revision if made_here else "")


def source_hash(space: Space, row: SourceRow, vector: bytes = b"", revision: str | None = None) -> bytes:
    """Return what tells whether a row has to be cut anew.

    Args:
        space: Whose rules it is cut by.
        row: The row.
        vector: Of a document that brings its own.
        revision: Of the encoder; by default that of the space.
    """
    how, body = f"{space.max_tokens} {space.overlap}", row.body
    read = (body.title, body.data) if isinstance(body.data, str) else (body.digest,)
    if space.source == DOCUMENTS.fullname:
        return fingerprint(*read, vector, f"{space.revision if revision is None else revision} {how}")
    return fingerprint(*read, how)


def cached_or_known(
    connection: sa.Connection, encoder: Callable[[], Encoder], batches: Sequence[Batch]
) -> dict[bytes, Vector]:
    """Return the vectors that are there already for chunks of some batches, by their hash."""
    wanted = {chunk.hash for batch in batches for chunk in batch.chunks}
    if not wanted:
        return {}
    found = {hash_: vector for batch in batches for hash_, vector in batch.known.items() if hash_ in wanted}
    return found | cached_vectors(connection, encoder(), sorted(wanted - found.keys()))


def encoded(
    encoder: Callable[[], Encoder], batches: Sequence[Batch], found: Mapping[bytes, Vector]
) -> dict[bytes, Vector]:
    """Encode, in one call, the chunks that have no vector yet; equal ones once."""
    missing = {chunk.hash: chunk.input for batch in batches for chunk in batch.chunks if chunk.hash not in found}
    if not missing:
        return {}
    return dict(zip(missing, encoder().encode_documents(list(missing.values())), strict=True))
