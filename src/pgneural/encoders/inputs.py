"""What an encoder was given, as the kind of content that it expects."""

from __future__ import annotations

import numpy as np

from pgneural.types import EncoderInput, Pixels, Samples


def pixels_of(item: EncoderInput) -> Pixels:
    """Return what an encoder of pictures was given.

    Raises:
        TypeError: It is no picture.
    """
    if not isinstance(item, np.ndarray) or item.ndim != 3:
        raise TypeError(f"an encoder of pictures got {type(item).__name__}, expected an array (height, width, 3)")
    return item


def samples_of(item: EncoderInput) -> Samples:
    """Return what an encoder of sounds was given.

    Raises:
        TypeError: It is no sound.
    """
    if not isinstance(item, np.ndarray) or item.ndim != 1:
        raise TypeError(f"an encoder of sounds got {type(item).__name__}, expected an array (n,)")
    return item
