"""Making the extra vectors of a collection's chunks: sparse ones, and those of tokens."""

from __future__ import annotations

import functools
from pathlib import Path

import sqlalchemy as sa

from pgneural.encoders import get_extra
from pgneural.encoders.permitted import permit, permitted_options
from pgneural.store.catalog import require_encoder
from pgneural.store.extra_vectors import missing, store
from pgneural.store.indexes import build
from pgneural.store.schema import Space
from pgneural.types import ExtraEncoder, Vector, below

BATCH_CHUNKS = 64
"""Chunks that are encoded and stored at once: sparse weights are encoded as 30,000 numbers a chunk."""


def made(kind: str, encoder: str | Path | ExtraEncoder) -> ExtraEncoder:
    """Return an encoder of sparse vectors or of tokens: itself, or by its folder or name.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not such a model's.
    """
    if not isinstance(encoder, (str, Path)):
        return encoder
    permit(encoder)
    return get_extra(kind, encoder)


class ExtraVectors:
    """The extra vectors of one kind of a collection.

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
        if self._encoder is None:
            permitted_options(self.space.encoder, self.space.options)
        encoder = made(self.space.kind, self._encoder or self.space.encoder)
        require_encoder(self.space, encoder)
        return encoder

    def encode_query(self, text: str) -> Vector:
        """Return weights, shape (d,), or vectors of tokens, shape (t, d)."""
        return self.encoder.encode_query(text)

    def complete(self, engine: sa.Engine) -> int:
        """Make the vectors of every chunk that has none; return how many. It may be stopped anywhere."""
        completed, after = 0, (0, -1)
        while True:
            with engine.connect() as connection:
                chunks = missing(connection, self.space, after, BATCH_CHUNKS)
            if not chunks:
                break
            vectors = self.encoder.encode_documents([below(chunk.title, chunk.text) for chunk in chunks])
            with engine.begin() as connection:
                completed += store(connection, self.space, chunks, vectors)
            after = (chunks[-1].source_id, chunks[-1].ordinal)
        if self.space.kind == "sparse":
            build(engine, self.space)
        return completed
