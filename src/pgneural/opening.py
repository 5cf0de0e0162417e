"""What a collection is opened with: its encoder, and whether all that is said of it is as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgneural import encoders
from pgneural.chunk import CHUNK_TOKENS, OVERLAP_SHARE
from pgneural.encoders.permitted import permit, permitted_options
from pgneural.errors import EncoderMismatch, InvalidIndex, UnknownLanguage
from pgneural.store import catalog
from pgneural.store.schema import Space
from pgneural.store.vectors import Storage, VectorIndex
from pgneural.types import Encoder


def encoder_of(encoder: str | Path | Encoder, options: dict[str, Any]) -> Encoder:
    """Return an encoder, by its name or itself; the program names it, so it is permitted."""
    if not isinstance(encoder, (str, Path)):
        return encoder
    permit(encoder)  # the program names it
    return encoders.get(encoder, **options)


def encoder_of_space(space: Space, encoder: str | Path | Encoder | None, options: dict[str, Any]) -> Encoder:
    """Return the encoder of a collection: the one that is given, or, where the host permits it, that of its row."""
    if encoder is not None:
        return encoder_of(encoder, {**space.options, **options})
    return encoders.get(space.encoder, **permitted_options(space.encoder, space.options), **options)


def usual_chunking(encoder: Encoder) -> catalog.Chunking:
    """Return how documents are cut for an encoder."""
    tokens = min(encoder.max_tokens or CHUNK_TOKENS, CHUNK_TOKENS)
    return catalog.Chunking(tokens, tokens // OVERLAP_SHARE)


def require_same_encoder(space: Space, encoder: str | Path | Encoder | None, options: Mapping[str, Any]) -> None:
    """Refuse another encoder, or other options, than those of the collection.

    Raises:
        EncoderMismatch: They are others.
    """
    if isinstance(encoder, (str, Path)) and encoders.canonical(encoder) != space.encoder:
        raise EncoderMismatch(
            f"collection {space.attribute!r} was encoded by {space.encoder}, not by {encoder}; "
            "leave the encoder out, or index into a new collection"
        )
    for name in encoders.IDENTITY:
        if name in options and options[name] != space.options.get(name):
            raise EncoderMismatch(
                f"collection {space.attribute!r} was made with {name} {space.options.get(name)}, not "
                f"{options[name]}; leave it out, or index into a new collection"
            )


def require_same_keeping(space: Space, storage: Storage | str | None, index: VectorIndex | None) -> None:
    """Refuse another type of vectors or another index than the collection has.

    Raises:
        InvalidIndex: It is another.
    """
    if storage is not None and storage != space.storage:
        raise InvalidIndex(f"collection {space.attribute!r} has {space.storage} columns; index into a new collection")
    has = VectorIndex.of(space.vector_index)
    if index is not None and (index.method, index.precision, index.dimensions) != (
        has.method, has.precision, has.dimensions
    ):  # fmt: skip
        raise InvalidIndex(f"collection {space.attribute!r} is indexed in another way; call its reindex")


def require_same_wording(space: Space, wording: catalog.Wording) -> None:
    """Refuse another reading of words than that of the collection.

    Raises:
        UnknownLanguage: It is another.
    """
    has = catalog.Wording(space.language, space.title_boost, space.language_by)
    if wording != has:
        raise UnknownLanguage(
            f"collection {space.attribute!r} reads words as {_in_words(has)}, not as {_in_words(wording)}; "
            "index into a new collection"
        )


def _in_words(wording: catalog.Wording) -> str:
    by = f", language by {wording.language_by}" if wording.language_by else ""
    return f"language {wording.language}, title boost {wording.title_boost:g}{by}"
