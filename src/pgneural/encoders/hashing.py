"""An encoder without a model: for examples, tests and measuring everything but the model."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pgneural.encoders.info import EncoderInfo
from pgneural.encoders.word_tokenizer import WordTokenizer
from pgneural.types import Distance, EncoderInput, Kind, Modality, Tokenizer, Vector


@dataclass(frozen=True)
class HashEncoder:
    """Signed feature hashing of words and their letter trigrams (Weinberger et al. 2009).

    Deterministic on every machine; texts that share words or word parts are near each other.
    """

    dimensions: int = 256
    name: str = "hash"
    kind: Kind = Kind.DENSE
    distance: Distance = Distance.COSINE
    max_tokens: int | None = 256
    modalities: frozenset[Modality] = frozenset({Modality.TEXT})
    tokenizer: Tokenizer = field(default_factory=WordTokenizer)

    @property
    def revision(self) -> str:
        """Changes with the dimensions and with the hashing."""
        return f"1-{self.dimensions}"

    @classmethod
    def describe(cls) -> EncoderInfo:
        """Describe it for `pgneural.encoders.available`."""
        own = cls()
        return EncoderInfo(own.name, own.dimensions, own.max_tokens, note="no model: words and letter trigrams")

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return one unit vector for each text, shape (n, dimensions)."""
        return np.array([self.encode_query(item) for item in items], dtype=np.float32).reshape(-1, self.dimensions)

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return the unit vector of a text, shape (dimensions,)."""
        vector = np.zeros(self.dimensions, dtype=np.float32)
        for feature, count in Counter(_features(str(item).lower())).items():
            code = zlib.crc32(feature.encode("utf-8", "replace"))
            vector[code % self.dimensions] += count if code & 0x8000_0000 else -count
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            vector[0] = norm = 1.0  # cosine distance is not defined for the zero vector
        return vector / np.float32(norm)


def _features(text: str) -> list[str]:
    words = [text[start:stop] for start, stop in WordTokenizer().spans(text)]
    trigrams = [f"<{word}>"[at : at + 3] for word in words for at in range(len(word))]
    return [*(f"={word}" for word in words), *trigrams]
