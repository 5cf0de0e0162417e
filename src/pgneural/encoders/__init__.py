"""From a name to an encoder, which a process loads once.

A name is looked up among the entry points of group ``pgneural.encoders`` (ours and third parties'),
then as ``vectors:<dimensions>`` for vectors made elsewhere, then as a sentence-transformers model: a folder,
or a name on the model hub. Nothing heavy is imported before an encoder is made.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pgneural.encoders.folder import ModelFolder
from pgneural.encoders.info import EncoderInfo
from pgneural.encoders.light import of_folder
from pgneural.encoders.precomputed import PrecomputedVectors
from pgneural.encoders.registry import MODELS, key_of
from pgneural.errors import EncoderUnavailable, MissingExtra, UnknownEncoder
from pgneural.types import Distance, Encoder, ExtraEncoder, Kind, Modality

GROUP = "pgneural.encoders"
DEFAULT = "minilm"

BY_CONTENT = {Modality.IMAGE: "conse", Modality.MESH: "efficientnet-lite0"}
"""What is taken instead for content that `DEFAULT` does not accept, where the content is known and no name is given."""

IDENTITY = ("dimensions", "distance", "query_prompt", "document_prompt")
"""The options that decide what vectors an encoder makes; the others (device, precision) only how fast."""


def get(name: str | Path, **options: Any) -> Encoder:
    """Return the encoder of this name; a process has one for a name and options, and its threads share it.

    Args:
        name: ``minilm``, another registered name, ``vectors:768``, or a sentence-transformers model
            (folder or hub name).
        **options: Passed to the encoder; for sentence-transformers models see
            `pgneural.encoders.transformer.SentenceTransformerEncoder`.

    Raises:
        UnknownEncoder: Nothing of this name is registered, no such folder exists, or it has no such option.
        EncoderUnavailable: It is known, but its files are not here.
        MissingExtra: It needs a part of pgneural that is not installed.

    Example:
        >>> get("hash").dimensions
        256
    """
    text = canonical(name)
    return MODELS.get(key_of(Kind.DENSE, text, options), lambda: make(text, **options))


def get_extra(kind: Kind | str, name: str | Path, **options: Any) -> ExtraEncoder:
    """Return the encoder of sparse vectors, or of vectors of tokens, of this name; shared as of `get`.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not such a model's.
    """
    text = canonical(name)

    def load() -> ExtraEncoder:
        from pgneural.encoders.extra import MultiVectorTransformerEncoder, SparseTransformerEncoder

        kinds: dict[Kind, Callable[..., ExtraEncoder]] = {
            Kind.SPARSE: SparseTransformerEncoder,
            Kind.TOKENS: MultiVectorTransformerEncoder,
        }
        return kinds[Kind(kind)](text, **options)

    return MODELS.get(key_of(kind, text, options), load)


def make(name: str, **options: Any) -> Encoder:
    """Load an encoder anew; arguments and errors are those of `get`."""
    text = canonical(name)
    if point := _registered().get(text):
        factory: Callable[..., Encoder] = point.load()
        return _loaded(text, factory, options)
    if text.startswith("vectors:"):
        return _loaded(text, functools.partial(PrecomputedVectors.from_name, text), options)
    if not Path(text).is_dir() and "/" not in text:
        raise _unknown(text)
    return _loaded(text, functools.partial(of_folder, text), options)


def described(name: str, options: Mapping[str, Any]) -> tuple[int | None, Distance]:
    """Return the dimensions (None where only loading would tell) and the distance of an encoder, without loading it.

    Raises:
        UnknownEncoder: Nothing of this name is registered and no such folder exists.
    """
    if name.startswith("vectors:"):
        precomputed = PrecomputedVectors.from_name(name, **options)
        return precomputed.dimensions, precomputed.distance
    if point := _registered().get(name):
        info = _describe(point)
        dimensions, distance = info.dimensions, info.distance
    elif Path(name).is_dir():
        folder = ModelFolder(Path(name))
        dimensions, distance = folder.dimensions, folder.distance
    elif "/" in name:
        dimensions, distance = None, Distance.COSINE
    else:
        raise _unknown(name)
    return options.get("dimensions") or dimensions, distance


def modalities(name: str) -> frozenset[Modality] | None:
    """Return what a registered encoder accepts, without loading it; None where only loading would tell."""
    if name.startswith("vectors:"):
        return frozenset(Modality)
    point = _registered().get(name)
    return frozenset(_describe(point).modalities) if point else None


def _unknown(name: str) -> UnknownEncoder:
    return UnknownEncoder(
        f"no encoder {name!r}; registered are {', '.join(sorted(_registered()))}, "
        "or give a sentence-transformers model as a folder or as owner/name"
    )


def _loaded(name: str, factory: Callable[..., Encoder], options: dict[str, Any]) -> Encoder:
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise UnknownEncoder(f"encoder {name!r} cannot be made so: {error}; leave that out") from error
    return factory(**options)


def canonical(name: str | Path) -> str:
    """Return the name under which an encoder is recorded: for a model folder, its absolute path."""
    text = str(name)
    return str(Path(text).resolve()) if text not in _registered() and Path(text).is_dir() else text


def available() -> list[EncoderInfo]:
    """Describe every registered encoder, by name, without loading any."""
    return [_describe(point) for _, point in sorted(_registered().items())]


def registered(name: str) -> bool:
    """Whether an encoder of this name is installed here, as an entry point."""
    return name in _registered()


@functools.cache  # what is installed stays the same while a process runs
def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _describe(point: EntryPoint) -> EncoderInfo:
    try:
        factory = point.load()
        if describe := getattr(factory, "describe", None):
            info: EncoderInfo = describe()
            return info
    except (ImportError, MissingExtra, EncoderUnavailable) as error:
        return EncoderInfo(point.name, None, None, ready=False, note=str(error))
    return EncoderInfo(point.name, None, None, note=f"from {point.value}")
