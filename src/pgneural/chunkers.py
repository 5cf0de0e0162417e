"""Cutting content into chunks: a chunker for each modality.

Who adds a modality adds its chunker here, an encoder that accepts it, and what reads its files (`pgneural.load`);
nothing else asks of which kind a content is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgneural.chunk import chunk
from pgneural.errors import UnsupportedContent
from pgneural.types import SAMPLING_RATE, SOUND_SECONDS, Chunk, Content, Encoder, Modality, Samples, fingerprint


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


def whole(content: Content, _: Encoder, __: Lengths) -> list[Chunk]:
    """Return the one chunk of a picture or a mesh."""
    return [Chunk("", {}, _array_of(content), content.digest)]


def sound_chunks(content: Content, encoder: Encoder, _: Lengths) -> list[Chunk]:
    """Cut a sound into pieces as long as the encoder hears at a time; neighbours share half, the last ends with it."""
    return sound_pieces(_array_of(content), encoder)


def sound_pieces(samples: Samples, encoder: Encoder) -> list[Chunk]:
    """Cut a sound by its samples."""
    length = round(getattr(encoder, "max_seconds", SOUND_SECONDS) * SAMPLING_RATE)
    starts = [*range(0, max(1, len(samples) - length), max(1, length // 2))]
    if len(samples) > length:
        starts.append(len(samples) - length)
    return [_piece(samples, start, min(start + length, len(samples))) for start in starts]


def _piece(samples: Samples, start: int, stop: int) -> Chunk:
    piece = samples[start:stop]
    seconds = [round(start / SAMPLING_RATE, 2), round(stop / SAMPLING_RATE, 2)]
    return Chunk("", {"seconds": seconds}, piece, fingerprint(Modality.AUDIO, piece.tobytes()))


def _array_of(content: Content) -> np.ndarray[Any, Any]:
    """Return what is cut.

    Raises:
        UnsupportedContent: It is not at hand.
    """
    if not isinstance(content.data, np.ndarray):
        raise UnsupportedContent(
            f"the {content.modality} {content.uri or content.title!r} is stored with its vectors alone; "
            "index its file again"
        )
    return content.data


CHUNKERS: dict[Modality, Chunker] = {
    Modality.TEXT: text_chunks,
    Modality.IMAGE: whole,
    Modality.MESH: whole,
    Modality.AUDIO: sound_chunks,
}
"""The chunkers by modality."""


BY_DATA = frozenset({Modality.IMAGE, Modality.MESH, Modality.AUDIO})
"""What is cut by its data alone, which the database does not have."""


def read_by(content: Content, accepted: Collection[Modality]) -> Content:
    """Return what of a content an encoder reads that accepts these: itself, or else what is told of it in words."""
    if content.modality in accepted or Modality.TEXT not in accepted or not content.words.strip():
        return content
    return content.in_words


def cut(content: Content, encoder: Encoder, lengths: Lengths) -> list[Chunk]:
    """Cut a content into chunks by the chunker of its modality.

    Raises:
        UnsupportedContent: There is no chunker for it, or the encoder does not accept it.
    """
    require_chunker(content.modality)
    require_accepted(content.modality, encoder)
    return CHUNKERS[content.modality](content, encoder, lengths)


def require_accepted(modality: Modality, encoder: Encoder) -> None:
    """Refuse what an encoder does not accept.

    Raises:
        UnsupportedContent: It does not.
    """
    if modality not in encoder.modalities:
        accepted = ", ".join(sorted(encoder.modalities))
        raise UnsupportedContent(f"{encoder.name} does not accept {modality}; it accepts {accepted}")


def require_chunker(modality: Modality) -> None:
    """Refuse what nothing can cut.

    Raises:
        UnsupportedContent: There is no chunker for it.
    """
    if modality not in CHUNKERS:
        known = ", ".join(sorted(CHUNKERS))
        raise UnsupportedContent(f"modality {modality} cannot be encoded here, expected {known}; give a vector instead")
