"""The precision in which a model encodes documents: the fastest that keeps its vectors, tried once on a machine.

Half precision is taken where the machine has the instructions, and where the vectors of some texts stay within
`FIDELITY` of those in float32. The outcome is remembered in the user's cache folder, so that no other process tries it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgneural.encoders import packed_linear
from pgneural.encoders.cache_folder import cache_folder
from pgneural.printable import logger as logger_of
from pgneural.types import Vector, fingerprint

if TYPE_CHECKING:
    import torch

logger = logger_of(__name__)

PRECISIONS = ("auto", "float32", "bfloat16", "float16")

FIDELITY = 0.999
"""The least cosine between a half precision vector and the float32 one."""

PROBE = (
    "search",
    "How do vaccines work?",
    "The quick brown fox jumps over the lazy dog, and 42 zebras watch from 3.5 km away.",
    "def median(values): return sorted(values)[len(values) // 2]",
    "Wie funktioniert ein Impfstoff? ¿Cómo funciona una vacuna? 疫苗如何起作用?",
    "We study the spectrum of the Laplacian on compact hyperbolic surfaces of large genus. " * 12,
)
"""Texts whose vectors are compared."""


def half_precision(device: torch.device) -> str:
    """Return the half precision that a device computes fast; float32 where there is none."""
    if device.type != "cpu":
        return "float16"
    return "bfloat16" if any(_capabilities().get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) else "float32"


def in_precision(model: Any, precision: str) -> Any:
    """Return a copy of a model in another precision."""
    import torch

    changed = copy.deepcopy(model).to(getattr(torch, precision))
    if precision == "bfloat16" and model.device.type == "cpu" and packed_linear.available():
        packed_linear.pack(changed)
    return changed


def keeps_vectors(name: str, half: str, exact: Callable[[], Vector], rounded: Callable[[], Vector], key: str) -> bool:
    """Whether half precision keeps the vectors of `PROBE`; what was found before on this machine holds.

    Args:
        name: Of the encoder, for the log.
        half: The half precision.
        exact: Encodes the texts in float32, shape (n, d).
        rounded: Encodes them in half precision.
        key: What the outcome depends on; see `key_of`.
    """
    if (known := recall(key)) is not None:
        return known
    a, b = exact(), rounded()
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    fidelity = float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).min())
    if not (keeps := fidelity >= FIDELITY):
        logger.info("%s stays in float32: %s has cosine %.5f", name, half, fidelity)
    remember(key, keeps)
    return keeps


def key_of(name: str, revision: str, device: torch.device, half: str) -> str:
    """Return what the outcome of a trial depends on: the model, the machine, and the library."""
    import torch

    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else sorted(map(str, _capabilities().items()))
    return fingerprint(name, revision, str(device.type), half, torch.__version__, str(machine), str(FIDELITY)).hex()


def recall(key: str) -> bool | None:
    """Return whether half precision kept the vectors, as a process of this user found; None where none tried."""
    keeps = _read().get(key)
    return keeps if isinstance(keeps, bool) else None


def remember(key: str, keeps: bool) -> None:
    """Write down the outcome of a trial, where the folder can be written to."""
    with contextlib.suppress(OSError, RuntimeError):  # no folder to write to, or no home
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({**_read(), key: keeps}))
        new.replace(path)


def _read() -> Mapping[str, Any]:
    try:
        found = json.loads(_path().read_text())
    except (OSError, ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


def _path() -> Path:
    return cache_folder() / "precision.json"


def _capabilities() -> dict[str, object]:
    import torch

    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found
