"""Making the extra vectors of chunks: sparse ones, and those of tokens."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from pgneural.encoders import get_extra
from pgneural.encoders.permitted import permit, permitted_options
from pgneural.store.catalog import require_encoder
from pgneural.store.extra_vectors import Lacking, insert, lacking_after, lacking_of, written
from pgneural.store.indexes import build
from pgneural.store.owner import Transactions
from pgneural.store.schema import Space
from pgneural.store.space_tables import EncodedRow, ExtraVector, SpaceTables, claim_revision
from pgneural.types import Chunk, ExtraEncoder, Vector

BATCH_CHUNKS = 64
"""Chunks that are encoded and stored at once: sparse weights are encoded as 30,000 numbers a chunk."""

EXTRA_VECTORS = {"sparse": ("sparse vectors", "sparse"), "tokens": ("vectors of tokens", "late")}
"""What the kinds are called, and the options that give a search such vectors: ``sparse=``, ``--sparse-encoder``."""


def encoder_of(kind: str, encoder: str | Path | ExtraEncoder) -> ExtraEncoder:
    """Return an encoder of sparse vectors or of tokens: itself, or by its folder or name.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not such a model's.
    """
    if not isinstance(encoder, (str, Path)):
        return encoder
    permit(encoder)
    return get_extra(kind, encoder)


class ExtraVectors:
    """The extra vectors of one kind of a search.

    Attributes:
        space: Their space.
        encoder: What makes them; loaded when it is first needed.
    """

    def __init__(self, space: Space, encoder: str | Path | ExtraEncoder | None = None) -> None:
        self.space, self._encoder = space, encoder

    @functools.cached_property
    def encoder(self) -> ExtraEncoder:
        """The encoder, made sure to be the one that made the stored vectors.

        Raises:
            EncoderMismatch: The model's files have changed.
            UnpermittedModel: Only the database names it, and this host does not permit it.
        """
        space = self.space
        if self._encoder is None:
            encoder = get_extra(space.kind, space.encoder, **permitted_options(space.encoder, space.options))
        else:
            encoder = encoder_of(space.kind, self._encoder)
        if space.revision:
            require_encoder(space, encoder)
        return encoder

    def load(self) -> None:
        """Load the encoder; errors are those of `encoder`."""
        _ = self.encoder

    def claim(self, connection: sa.Connection) -> None:
        """Make sure that the stored vectors are of one revision of the encoder, before any are stored.

        Raises:
            EncoderMismatch: Another revision made those that are there.
        """
        claim_revision(connection, self.space, self.encoder.name, self.encoder.revision)

    def encode_query(self, text: str) -> Vector:
        """Return weights, shape (d,), or vectors of tokens, shape (t, d)."""
        return self.encoder.encode_query(text)

    def complete(self, engine: sa.Engine, chunks: Space) -> int:
        """Make the vectors of every chunk of a collection that has none; it may be stopped anywhere.

        Args:
            engine: Where.
            chunks: The space whose chunks they are of.

        Returns:
            How many were made.
        """
        with engine.connect() as connection:
            tables = SpaceTables.of(connection, chunks)
        completed, after = 0, (0, -1)
        while True:
            with engine.connect() as connection:
                lacking = lacking_after(connection, tables, self.space, after, BATCH_CHUNKS)
            if not lacking:
                break
            vectors = list(self.encode([chunk for _, chunk in lacking]))
            with engine.begin() as connection:
                self.claim(connection)
                completed += insert(connection, tables, self.space, vectors)
            after = lacking[-1][0], lacking[-1][1].ordinal
        if self.space.kind == "sparse":
            build(engine, self.space)
        return completed

    def add(self, where: Transactions, tables: SpaceTables, rows: Sequence[EncodedRow]) -> None:
        """Encode the chunks of rows that are about to be stored, and those that are stored already and lack a vector.

        Args:
            where: Begins the transactions that read.
            tables: The tables of the space.
            rows: Each gets its vectors.
        """
        by_key = {row.source.key: row for row in rows if row.source.values is not None}
        stored = [key for key, row in by_key.items() if row.chunks is None]
        with where.begin() as connection:
            lacking = lacking_of(connection, tables, self.space, stored) if stored else []
        titled = [chunk._replace(title=by_key[chunk.key].source.body.title) for chunk in lacking]
        new = [chunk for key, row in by_key.items() for chunk in unstored(key, row.source.body.title, row.chunks or ())]
        for vector in self.encode(new + titled):
            by_key[vector.key].extra.setdefault(self.space.kind, []).append(vector)

    def encode(self, chunks: Sequence[Lacking]) -> Iterator[ExtraVector]:
        """Return the vectors of chunks, some encoded at a time."""
        for begin in range(0, len(chunks), BATCH_CHUNKS):
            some = chunks[begin : begin + BATCH_CHUNKS]
            vectors = self.encoder.encode_documents([chunk.read for chunk in some])
            for chunk, vector in zip(some, vectors, strict=True):
                yield ExtraVector(chunk.key, chunk.ordinal, chunk.hash, written(self.space, vector))


def extra_vectors_of(tables: SpaceTables) -> list[ExtraVectors]:
    """Return the extra vectors of the chunks of a space, with the encoders that the catalog names."""
    return [ExtraVectors(space) for space in tables.extra.values()]


def unstored(key: str, title: str, chunks: Sequence[Chunk]) -> list[Lacking]:
    """Return the chunks of a row that is about to be stored, as such that lack a vector; what is no text gets none."""
    return [
        Lacking(key, ordinal, chunk.hash, chunk.text, "content" in chunk.locator, title)
        for ordinal, chunk in enumerate(chunks)
        if isinstance(chunk.input, str)
    ]
