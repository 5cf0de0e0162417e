"""Cutting content into chunks: a chunker for each modality.

Who adds a modality adds its chunker here, an encoder that accepts it, and what reads its files (`pgneural.load`);
nothing else asks of which kind a content is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pgneural.chunk import chunk
from pgneural.errors import UnsupportedContent
from pgneural.types import Chunk, Content, Encoder, Modality


@dataclass(frozen=True)
class Lengths:
    """How long chunks are, in the tokens of the encoder.

    Attributes:
        max_tokens: The most tokens of a chunk with its heading, at least 1.
        overlap: The most tokens that two neighbouring chunks share.
    """

    max_tokens: int
    overlap: int


Chunker = Callable[[Content, Encoder, Lengths], list[Chunk]]
"""Cuts a content for an encoder; a chunk says by its locator which piece it is."""


def text_chunks(content: Content, encoder: Encoder, lengths: Lengths) -> list[Chunk]:
    """Cut a text at the ends of sentences."""
    return chunk(content, encoder.tokenizer, max_tokens=lengths.max_tokens, overlap=lengths.overlap)


def picture_chunks(content: Content, _: Encoder, __: Lengths) -> list[Chunk]:
    """Return the one chunk of a picture.

    Raises:
        UnsupportedContent: The picture itself is not at hand.
    """
    if not isinstance(content.data, np.ndarray):
        raise UnsupportedContent(
            f"the picture {content.uri or content.title!r} is stored with its vector alone; index its file again"
        )
    return [Chunk("", {}, content.data, content.digest)]


CHUNKERS: dict[Modality, Chunker] = {Modality.TEXT: text_chunks, Modality.IMAGE: picture_chunks}
"""The chunkers by modality."""


BY_DATA = frozenset({Modality.IMAGE})
"""What is cut by its data alone, which the database does not have."""


def cut(content: Content, encoder: Encoder, lengths: Lengths) -> list[Chunk]:
    """Cut a content into chunks by the chunker of its modality.

    Raises:
        UnsupportedContent: There is no chunker for it, or the encoder does not accept it.
    """
    require_chunker(content.modality)
    if content.modality not in encoder.modalities:
        accepted = ", ".join(sorted(encoder.modalities))
        raise UnsupportedContent(f"{encoder.name} does not accept {content.modality}; it accepts {accepted}")
    return CHUNKERS[content.modality](content, encoder, lengths)


def require_chunker(modality: Modality) -> None:
    """Refuse what nothing can cut.

    Raises:
        UnsupportedContent: There is no chunker for it.
    """
    if modality not in CHUNKERS:
        known = ", ".join(sorted(CHUNKERS))
        raise UnsupportedContent(f"modality {modality} cannot be encoded here, expected {known}; give a vector instead")
