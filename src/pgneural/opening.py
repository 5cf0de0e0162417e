"""What a collection is opened with: its encoder, and whether all that is said of it is as it was made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgneural import encoders
from pgneural.chunk import CHUNK_TOKENS, OVERLAP_SHARE
from pgneural.encoders.permitted import permit, permitted_options
from pgneural.errors import EncoderMismatch, InvalidIndex, UnknownLanguage
from pgneural.store import catalog
from pgneural.store.definition import SearchDefinition
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.vectors import Storage, VectorIndex, chosen, reason, required_storage
from pgneural.types import Encoder, Sync


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


def definition_of(
    name: str,
    encoder: Encoder,
    options: Mapping[str, Any],
    *,
    language: str = "english",
    title_boost: float = 1.0,
    language_by: str | None = None,
    storage: Storage | str | None = None,
    index: VectorIndex | None = None,
) -> SearchDefinition:
    """Return the search that a new collection is; the arguments are those of `Database.collection`.

    Raises:
        InvalidIndex: pgvector does not store or index these vectors in this way.
        InvalidQuery: The language is no name, or the title boost no number that will do.
    """
    catalog.require_wording(language, title_boost)
    tokens = min(encoder.max_tokens or CHUNK_TOKENS, CHUNK_TOKENS)
    stored = required_storage(encoder.distance, encoder.dimensions, storage)
    if index is None and (unusual := reason(stored, encoder.dimensions)):
        warnings.warn(unusual, stacklevel=3)
    definition = SearchDefinition(
        source=DOCUMENTS.name,
        schema=DOCUMENTS.schema,
        attribute=name,
        key=tuple(DOCUMENTS.primary_key),
        reads=None,
        encoder=encoder.name,
        dimensions=encoder.dimensions,
        options={name: options[name] for name in encoders.IDENTITY if name in options},
        distance=encoder.distance,
        storage=stored,
        index=index or chosen(stored, encoder.distance, encoder.dimensions),
        max_tokens=tokens,
        overlap=tokens // OVERLAP_SHARE,
        language=language,
        title_boost=title_boost,
        language_by=language_by,
        sync=Sync.MANUAL,
    )
    definition.indexed.check()
    return definition


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


def require_same_wording(
    space: Space, language: str | None, title_boost: float | None, language_by: str | None
) -> None:
    """Refuse another reading of words than that of the collection; what is None is not asked for.

    Raises:
        InvalidQuery: The language is no name, or the title boost no number that will do.
        UnknownLanguage: It is another.
    """
    has = (space.language, space.title_boost, space.language_by)
    wanted = (
        space.language if language is None else language,
        space.title_boost if title_boost is None else title_boost,
        language_by or space.language_by,
    )
    catalog.require_wording(*wanted[:2])
    if wanted != has:
        raise UnknownLanguage(
            f"collection {space.attribute!r} reads words as {_in_words(*has)}, not as {_in_words(*wanted)}; "
            "index into a new collection"
        )


def _in_words(language: str, title_boost: float, language_by: str | None) -> str:
    by = f", language by {language_by}" if language_by else ""
    return f"language {language}, title boost {title_boost:g}{by}"
