"""Encoders that a process has loaded, by name and options: whoever wants the same gets the same."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from typing import Any

from pgneural.encoders.permitted import permitted
from pgneural.types import Encoder

_loaded: dict[tuple[str, str], Encoder] = {}
_loading: dict[tuple[str, str], threading.Thread] = {}
_lock = threading.Lock()
_making: dict[tuple[str, str], threading.Lock] = {}


def shared(name: str, options: Mapping[str, Any]) -> Encoder:
    """Return the encoder that a database names, with its options; loading it may take seconds.

    Raises:
        UnpermittedModel: This host does not permit the model.
        UnknownEncoder, EncoderUnavailable, MissingExtra: See `pgneural.encoders.get`.
    """
    key = _key(name, options)
    if key not in _loaded:
        with _making.setdefault(key, threading.Lock()):
            if key not in _loaded:
                _loaded[key] = permitted(name, **options)
    return _loaded[key]


def at_hand(name: str, options: Mapping[str, Any]) -> bool:
    """Whether an encoder is loaded; if not, it is from now on being loaded by a thread.

    True also where it cannot be loaded here: who asks for it then gets the error.
    """
    key = _key(name, options)
    with _lock:
        if key in _loaded:
            return True
        if key not in _loading:
            _loading[key] = threading.Thread(target=_load, args=(name, dict(options)), name=f"load {name}", daemon=True)
            _loading[key].start()
            _loading[key].join(0.02)  # a small one is here at once
        if _loading[key].is_alive():
            return False
        del _loading[key]
        return True


def _load(name: str, options: Mapping[str, Any]) -> None:
    with contextlib.suppress(Exception):  # who asks for it gets the error
        shared(name, options)


def _key(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    return name, json.dumps(dict(options), sort_keys=True)
