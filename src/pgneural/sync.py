"""Bringing the vectors and words of a source up to date with its rows: read what is pending, encode it, store it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from pgneural.chunk import chunk
from pgneural.store import lexical
from pgneural.store.pending import Changed, Kept, Made
from pgneural.types import Chunk, Encoder, Record, Vector, fingerprint

BATCH_ROWS = 512
"""Enough for batches of texts of like length, few enough to lose little when stopped."""

WORTH_ANALYZING = 2000
"""Rows after which the server's statistics are made anew, so that a search of a table that has just grown is planned
for what is there; autovacuum comes a minute later."""


@dataclass
class Synced:
    """What a run did.

    Attributes:
        rows: How many rows are up to date now that were not.
        chunks_encoded: How many chunks got a new vector.
        chunks_reused: How many kept the vector that they had.
    """

    rows: int = 0
    chunks_encoded: int = 0
    chunks_reused: int = 0


class Syncing:
    """One run over one search; a batch is read, encoded and stored at a time.

    Args:
        kept: The tables of the search.
        encoder: Makes its encoder; called when the first text needs a vector.
    """

    def __init__(self, kept: Kept, encoder: Callable[[], Encoder]) -> None:
        self._kept, self._encoder = kept, encoder
        self.report = Synced()

    def within(self, connection: sa.Connection, *, own: bool = False) -> Synced:
        """Bring all rows, or only those that the transaction itself has changed, up to date in it."""
        while batch := self._kept.read(connection, BATCH_ROWS, own=own):
            made = self._made(batch, self._known(connection, batch))
            if not self._store(connection, made):
                break  # all that is left is changed by others just now
        if not own:  # which would lock the words of rows that others are writing
            self._finish(connection)
        return self.report

    def by(self, engine: sa.Engine) -> Synced:
        """Bring all rows up to date, each batch in a transaction of its own; nothing is encoded inside of one."""
        while True:
            with engine.begin() as connection:
                batch = self._kept.read(connection, BATCH_ROWS)
                known = self._known(connection, batch)
            if not batch:
                break
            made = self._made(batch, known)
            with engine.begin() as connection:
                if not self._store(connection, made):
                    break
        with engine.begin() as connection:
            self._finish(connection)
        return self.report

    def _store(self, connection: sa.Connection, made: Sequence[Made]) -> int:
        if any(one.chunks for one in made):
            encoder = self._encoder()
            self._kept.claim(connection, encoder.name, encoder.revision)
        stored = self._kept.store(connection, made)
        self.report.rows += stored
        return stored

    def _finish(self, connection: sa.Connection) -> None:
        lexical.settle(connection, self._kept.space.id, self._kept.sql("{terms}").text, self.report.rows)
        if self.report.rows >= WORTH_ANALYZING:
            self._kept.analyze(connection)

    def _known(self, connection: sa.Connection, batch: Sequence[Changed]) -> Mapping[bytes, Vector]:
        """Return the vectors that rows which were encoded before can keep."""
        before = [row for row in batch if row.source_hash is not None]
        return self._kept.known(connection, before) if before else {}

    def _made(self, batch: Sequence[Changed], known: Mapping[bytes, Vector]) -> list[Made]:
        if self._kept.chunks is None:
            return [Made(row, b"") for row in batch]
        cut = [(row, self._source_hash(row)) for row in batch]
        chunks = [None if row.source_hash == hash_ else self._chunks(row) for row, hash_ in cut]
        every = [piece for pieces in chunks for piece in pieces or ()]
        vectors = self._vectors(every, known)
        made, start = [], 0
        for (row, hash_), pieces in zip(cut, chunks, strict=True):
            stop = start + len(pieces or ())
            made.append(Made(row, hash_, pieces, vectors[start:stop]))
            start = stop
        return made

    def _source_hash(self, row: Changed) -> bytes:
        space = self._kept.space
        return fingerprint(row.title, row.content, f"{space.max_tokens} {space.overlap}")

    def _chunks(self, row: Changed) -> list[Chunk]:
        if not row.title.strip() and not row.content.strip():
            return []
        encoder, space = self._encoder(), self._kept.space
        longest = min(space.max_tokens, encoder.max_tokens or space.max_tokens)
        record = Record(row.key, row.content, row.title)
        overlap = space.overlap * longest // space.max_tokens  # the share of a chunk that was declared
        return chunk(record, encoder.tokenizer, max_tokens=longest, overlap=overlap)

    def _vectors(self, chunks: Sequence[Chunk], known: Mapping[bytes, Vector]) -> Vector:
        """Return a vector for each chunk, shape (n, d); equal chunks are encoded once."""
        wanted = {piece.hash: piece.input for piece in chunks if piece.hash not in known}
        found = dict(known)
        if wanted:
            found |= zip(wanted, self._encoder().encode_documents(list(wanted.values())), strict=True)
        self.report.chunks_encoded += len(wanted)
        self.report.chunks_reused += len(chunks) - len(wanted)
        return np.array([found[piece.hash] for piece in chunks], dtype=np.float32)
