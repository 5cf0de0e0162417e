"""The models of this process: whoever asks for the same one, with the same options, gets the same object.

Collections, mapped classes, workers, comparisons and rerankers all take theirs from here, so a model is in memory once.
A folder whose files have changed is another model.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Model = TypeVar("Model")

GRACE_SECONDS = 0.02
"""A small model is loaded within so long: who wants it in the background may then have it at once."""


class Registry:
    """Models by a key, each loaded once; threads that want the same one wait for each other, and for no others."""

    def __init__(self) -> None:
        self._loaded: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._threads: dict[Hashable, threading.Thread] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable | None, load: Callable[[], Model]) -> Model:
        """Return a model; loading it may take seconds. Without a key it is loaded for the caller alone."""
        if key is None:
            return load()
        if key not in self._loaded:
            with self._lock:
                lock = self._locks.setdefault(key, threading.Lock())
            with lock:
                if key not in self._loaded:
                    self._loaded[key] = load()
        model: Model = self._loaded[key]
        return model

    def ready(self, key: Hashable | None, get: Callable[[], Any]) -> bool:
        """Whether a model is loaded; if not, a thread loads it from now on.

        True also where it cannot be loaded: who asks for it then gets the error.

        Args:
            key: As of `get`.
            get: Calls `get` with this key.
        """
        if key is None or key in self._loaded:
            return True
        with self._lock:
            if key not in self._threads:
                self._threads[key] = threading.Thread(target=_quietly, args=(get,), name=f"load {key}", daemon=True)
                self._threads[key].start()
            thread = self._threads[key]
        thread.join(GRACE_SECONDS)
        if thread.is_alive():
            return False
        with self._lock:
            self._threads.pop(key, None)
        return True


def key_of(kind: str, name: str, options: Mapping[str, Any]) -> Hashable | None:
    """Return what tells a model from all others; None where options are no plain values, so that nothing does."""
    try:
        written = json.dumps(dict(options), sort_keys=True)
    except TypeError:
        return None
    return kind, name, written, _stamp(Path(name))


def _stamp(folder: Path) -> Hashable:
    """Return what changes whenever a file of a model's folder does."""
    if not folder.is_dir():
        return None
    found = [(str(file.relative_to(folder)), file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def _quietly(get: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):  # who asks for it gets the error
        get()


MODELS = Registry()
"""Those of this process."""
