"""Sounds as arrays, as other libraries hold them: ``{"array": …, "sampling_rate": …}``."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from pgneural.errors import InvalidQuery
from pgneural.extras import needed
from pgneural.types import SAMPLING_RATE, Samples

RATES = range(1_000, 400_000)
"""In hertz: from less than a telephone's to more than any microphone's."""


CHANNELS = 32


def is_waveform(value: Any) -> bool:
    """Whether a value is a sound as the libraries of Hugging Face hold one."""
    return isinstance(value, Mapping) and value.keys() >= {"array", "sampling_rate"}


def samples_of(array: Any, rate: Any) -> Samples:
    """Return the samples of a sound, int16, shape (n,), `SAMPLING_RATE` a second.

    Args:
        array: Floats from -1 to 1, or int16, shape (n,), or with up to `CHANNELS` channels (channels, n) or
            (n, channels).
        rate: How many a second.

    Raises:
        InvalidQuery: It is no such array.
        MissingExtra: Its rate is another, and what changes that is not installed.
    """
    values = _channel(array)
    if isinstance(rate, bool) or not isinstance(rate, Real) or rate not in RATES:
        raise InvalidQuery(
            f"sampling_rate is {rate!r}, expected a whole number of hertz, {RATES[0]:,} to {RATES[-1]:,}"
        )
    hertz = int(rate)  # type: ignore[call-overload]
    return _to_int16(resampled(np.nan_to_num(values) * np.float32(2**15), hertz, SAMPLING_RATE))


def _channel(array: Any) -> np.ndarray[Any, Any]:
    """Return the mean of the channels of a sound as floats from -1 to 1, shape (n,)."""
    try:
        values = np.asarray(array)
    except ValueError as error:
        raise InvalidQuery(f"the sound is no array: {error}; give floats from -1 to 1, shape (n,)") from error
    known = values.dtype.kind == "f" or values.dtype == np.int16
    if not known or values.ndim not in (1, 2) or not values.size or (values.ndim == 2 and min(values.shape) > CHANNELS):
        raise InvalidQuery(
            f"the sound is an array of {values.dtype}, shape {values.shape}; "
            "expected floats from -1 to 1, or int16, shape (n,)"
        )
    scaled = values.astype(np.float32) / np.float32(2**15 if values.dtype == np.int16 else 1)
    return scaled if values.ndim == 1 else scaled.mean(axis=int(np.argmin(values.shape)))


def waves_of(samples: Samples) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the samples of a sound as floats from -1 to 1."""
    return samples.astype(np.float32) / np.float32(2**15)


def resampled(values: np.ndarray[Any, Any], rate: int, wanted: int) -> np.ndarray[Any, Any]:
    """Return a sound at another rate, by a polyphase filter."""
    if rate == wanted:
        return values
    with needed("a sound of another rate", "audio"):
        from scipy.signal import resample_poly
    ratio = Fraction(wanted, rate)
    found: np.ndarray[Any, Any] = resample_poly(values, ratio.numerator, ratio.denominator)
    return found


def _to_int16(values: np.ndarray[Any, Any]) -> Samples:
    limits = np.iinfo(np.int16)
    samples: Samples = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    return samples
