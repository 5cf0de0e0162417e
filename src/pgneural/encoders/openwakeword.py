"""Short sounds, above all spoken words, by the speech embedding of Google (Lin et al. 2020).

The networks are those of package ``pyopen-wakeword``, which runs them by TensorFlow Lite; its wake words are not used.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgneural.encoders.info import EncoderInfo
from pgneural.encoders.inputs import samples_of
from pgneural.encoders.word_tokenizer import WordTokenizer
from pgneural.extras import needed
from pgneural.types import Distance, EncoderInput, Kind, Modality, Samples, Vector

NAME = "openwakeword"

WINDOW = 13_280
"""Samples that the network hears at a time (.83 s); a vector for each 80 ms."""

BLOCK = 12_800
"""Samples that are given at a time."""


class OpenWakeWordEncoder:
    """The mean of the vectors of all windows of a sound, of unit length.

    Half a window of silence goes before and after it, so that each part of it stands in the middle of a window once.

    Raises:
        MissingExtra: The packages of extra ``audio`` are not installed.
    """

    name = NAME
    kind = Kind.DENSE
    distance = Distance.COSINE
    dimensions = 96
    max_tokens = None
    max_seconds = 2.0
    modalities = frozenset({Modality.AUDIO})

    def __init__(self) -> None:
        self._features = _features()
        self.tokenizer = WordTokenizer()
        networks = [Path(path).read_bytes() for path in (self._features.mel_path, self._features.emb_path)]
        self.revision = hashlib.sha256(b"".join(networks)).hexdigest()[:16]
        self._lock = threading.Lock()  # it has one window at a time

    @classmethod
    def describe(cls) -> EncoderInfo:
        """Describe it for `pgneural.encoders.available`."""
        with needed(f"encoder {NAME!r}", "audio"):
            import pyopen_wakeword  # noqa: F401
        return EncoderInfo(NAME, cls.dimensions, None, (Modality.AUDIO,), note="sounds that are alike, as spoken words")

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, 96), of sounds: int16, shape (n,), 16,000 a second."""
        vectors = [self._vector(samples_of(item)) for item in items]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dimensions)

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (96,)."""
        return self._vector(samples_of(item))

    def _vector(self, samples: Samples) -> Vector:
        padded = np.pad(samples, WINDOW // 2)
        with self._lock:
            self._features.reset()
            self._features.new_audio_samples = 0  # else it begins with eight seconds of silence
            blocks = (padded[at : at + BLOCK].tobytes() for at in range(0, len(padded), BLOCK))
            windows = [window.ravel() for block in blocks for window in self._features.process_streaming(block)]
        mean = np.mean(windows, axis=0)
        unit: Vector = (mean / np.linalg.norm(mean)).astype(np.float32)
        return unit


def _features() -> Any:
    with needed(f"encoder {NAME!r}", "audio"):
        from pyopen_wakeword import OpenWakeWordFeatures
    return OpenWakeWordFeatures.from_builtin()
