"""Loading a sentence-transformers model of any kind, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pgneural.encoders.folder import ModelFolder
from pgneural.errors import EncoderUnavailable

Model = TypeVar("Model")


def load(kind: Callable[..., Model], model: str | Path, device: str | None, trust_remote_code: bool) -> Model:
    """Make a model of a class of sentence-transformers from a folder or a name on the model hub.

    Raises:
        EncoderUnavailable: Its files are not here, or are not those of such a model.
    """
    from transformers.utils import logging as theirs

    bar = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded = kind(str(model), device=device, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderUnavailable(
            f"model {str(model)!r} cannot be loaded: {reason}; give a folder that holds it, and a device that is here"
        ) from error
    finally:
        if bar:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]
    return loaded


def revision_of(model: str | Path, config: Any = None) -> str:
    """Return what identifies a model's weights: a hash of its folder, or its commit on the model hub."""
    if Path(model).is_dir():
        return ModelFolder(Path(model)).revision
    return getattr(config, "_commit_hash", None) or "unknown"


def changed_revision(revision: str, dimensions: int | None, prompts: tuple[str | None, str | None]) -> str:
    """Return the revision of a model that keeps so many dimensions, with prompts for queries and documents."""
    changes = [f"{dimensions}d"] if dimensions else []
    changes += [f"{kind}={prompt!r}" for kind, prompt in zip(("q", "d"), prompts, strict=True) if prompt is not None]
    return " ".join([revision, *changes])
