"""Loading a sentence-transformers model of any kind, with errors that say what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pgneural.encoders.folder import ModelFolder
from pgneural.errors import EncoderUnavailable

Model = TypeVar("Model")

_LOADING = threading.Lock()
"""Transformers replaces functions of its own while it loads a model (`transformers.initialization.no_tie_weights`), and
puts back what it found: of two threads that load at once, the second would put back what the first has replaced, and no
model with tied weights could be loaded any more."""


def load(kind: Callable[..., Model], model: str | Path, device: str | None, trust_remote_code: bool) -> Model:
    """Make a model of a class of sentence-transformers from a folder or a name on the model hub, one at a time.

    Raises:
        EncoderUnavailable: Its files are not here, or are not those of such a model.
    """
    from transformers.utils import logging as theirs

    with _LOADING:
        bar = theirs.is_progress_bar_enabled()
        theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            return kind(str(model), device=device, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise EncoderUnavailable(
                f"model {str(model)!r} cannot be loaded: {reason}; "
                "give a folder that holds it, and a device that is here"
            ) from error
        finally:
            if bar:
                theirs.enable_progress_bar()  # type: ignore[no-untyped-call]


def config_of(model: Any) -> Any:
    """Return the configuration of the network of a model, which knows the commit that it was loaded from; or None."""
    return getattr(getattr(model[0], "auto_model", None), "config", None)


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
