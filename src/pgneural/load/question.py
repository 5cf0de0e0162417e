"""What a search can be asked besides texts and vectors: files, their bytes, pictures and sounds, also as arrays.

A text is never taken for the name of a file: who asks by a file says so, with a `pathlib.Path`.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from pgneural.errors import InvalidQuery
from pgneural.extras import needed
from pgneural.load.formats import FORMATS, SNIFFED, format_of, sniffed
from pgneural.load.lines import open_binary
from pgneural.load.records import Fields, is_picture
from pgneural.load.sound import is_waveform, samples_of
from pgneural.types import BadRecord, Media, Modality

BYTES = (bytes, bytearray, memoryview)


def is_readable(value: Any) -> bool:
    """Whether a value is what only `read_question` can read: a path, bytes, a picture or a sound as an array."""
    return (
        isinstance(value, (Path, *BYTES))
        or _is_pillow(value)
        or is_waveform(value)
        or (isinstance(value, np.ndarray) and value.ndim > 1)
    )


def read_question(question: Any) -> Any:
    """Return a question as encoders read it: files, bytes, pictures and sounds become texts and `Media`; others stay.

    Args:
        question: What a search is asked; of a mapping of terms to weights, each term is read.

    Raises:
        InvalidQuery: A file, a picture or a sound cannot be read, or is of no kind that can be asked.
    """
    if is_waveform(question):
        return Media(Modality.AUDIO, samples_of(question["array"], question["sampling_rate"]))
    if isinstance(question, Mapping):
        return weighted(question, read_question)
    if isinstance(question, Path):
        return _of_file(question)
    if isinstance(question, BYTES):
        data = bytes(question)
        return _of_bytes(io.BytesIO(data), sniffed(data[:SNIFFED]) or "image", "what is given as bytes")
    if _is_pillow(question):
        return _normal(question)
    if isinstance(question, np.ndarray) and question.ndim > 1:
        return _of_array(question)
    return question


def weighted(terms: Mapping[Any, Any], read_term: Callable[[Any], Any]) -> dict[Any, Any]:
    """Read each term of a question; where two are one text, their weights are added."""
    read: dict[Any, Any] = {}
    for term, weight in terms.items():
        found = read_term(term)
        read[found] = read[found] + weight if found in read else weight
    return read


def _of_file(path: Path) -> str | Media:
    try:
        kind = format_of(path)
        with open_binary(path) as file:
            return _of_bytes(file, kind, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidQuery(f"{path} cannot be read: {error}; give another file") from error


def _of_bytes(file: IO[bytes], kind: str | None, name: str) -> str | Media:
    if kind is None or FORMATS[kind].many:
        raise InvalidQuery(
            f"{name} is of no kind that can be asked; give a picture, a sound, a mesh, or a file with a text"
        )
    record = next(iter(FORMATS[kind].read(file, name, Fields(), name)))
    if isinstance(record, BadRecord):
        raise InvalidQuery(str(record))
    return record.content if record.data is None else Media(record.modality, np.asarray(record.data))


def _of_array(array: np.ndarray[Any, Any]) -> Media:
    if array.dtype == np.uint8 and array.ndim == 2:
        array = np.stack([array] * 3, axis=2)
    if not is_picture(array):
        raise InvalidQuery(
            f"the query is an array of {array.dtype}, shape {array.shape}; "
            "a picture is uint8 of shape (height, width, 3), a vector has one axis"
        )
    with needed("a picture", "image"):
        from PIL import Image
    return _normal(Image.fromarray(array))


def _is_pillow(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _normal(image: Any) -> Media:
    from pgneural.load.extractors.image import normal

    try:
        pixels: Any = np.asarray(normal(image)) if all(image.size) else None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InvalidQuery(f"the picture cannot be read: {error}; give another") from error
    if not is_picture(pixels):
        raise InvalidQuery(f"the picture has {image.width} x {image.height} pixels; give another")
    return Media(Modality.IMAGE, pixels)
