"""What is worked out once on a machine, and kept in the user's cache folder for other processes."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pgneural.types import Vector


def cache_folder() -> Path:
    """Return the folder, which may not exist yet."""
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "pgneural"


def cached_vectors(name: str, shape: tuple[int, int], make: Callable[[], Vector]) -> Vector:
    """Return vectors that are kept under a name, which says all that decides them; make them where there are none.

    Args:
        name: Letters, digits and ``-``.
        shape: Theirs.
        make: Makes them.
    """
    path = cache_folder() / f"{name}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept = np.load(path, allow_pickle=False)
        if kept.shape == shape and kept.dtype == np.float32:
            return np.asarray(kept)
    made, file = make(), io.BytesIO()
    np.save(file, made)
    write_whole(path, file.getvalue())
    return made


def write_whole(path: Path, content: bytes) -> None:
    """Write a file below the folder, whole or not at all; nobody else may read it. Where that fails, none is kept."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
