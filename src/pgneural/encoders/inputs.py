"""What an encoder was given, as the kind of content that it expects."""

from __future__ import annotations

import numpy as np

from pgneural.types import EncoderInput, Pixels, Samples, Vector


def pixels_of(item: EncoderInput) -> Pixels:
    """Return what an encoder of pictures was given.

    Raises:
        TypeError: It is no picture.
    """
    if not isinstance(item, np.ndarray) or item.ndim != 3:
        raise TypeError(f"an encoder of pictures got {type(item).__name__}, expected an array (height, width, 3)")
    return item


def are_views(item: EncoderInput) -> bool:
    """Whether an item is a mesh, by pictures of it."""
    return isinstance(item, np.ndarray) and item.ndim == 4


def mean_of_views(vectors: Vector) -> Vector:
    """Return the vector of a mesh, shape (d,), of unit length: the mean of those of its views, shape (n, d)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    mean = unit.mean(axis=0)
    vector: Vector = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return vector


def samples_of(item: EncoderInput) -> Samples:
    """Return what an encoder of sounds was given.

    Raises:
        TypeError: It is no sound.
    """
    if not isinstance(item, np.ndarray) or item.ndim != 1:
        raise TypeError(f"an encoder of sounds got {type(item).__name__}, expected an array (n,)")
    return item
