"""A BERT model in NumPy: what a process needs that encodes queries and nothing else.

torch and transformers take seconds and half a gigabyte to start; a query is some ten tokens, and its forward pass a few
dozen products of small matrices. The weights are read from the model's own files, in float32, so the vectors are
those of the full model (Devlin et al. 2019, https://arxiv.org/abs/1810.04805).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgneural.types import Vector

WEIGHTS = "model.safetensors"

EPSILON = 1e-12
"""That of a BERT whose configuration does not say it."""

_USUAL: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "auto_map": None,
    "quantization_config": None,
}
"""What the configuration of such a network says, where it says anything."""

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class _Linear:
    weight: Weights
    bias: Weights

    def __call__(self, x: Weights) -> Weights:
        product: Weights = x @ self.weight.T + self.bias
        return product


@dataclass(frozen=True)
class _Norm:
    weight: Weights
    bias: Weights
    epsilon: float

    def __call__(self, x: Weights) -> Weights:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        normal: Weights = centred / spread * self.weight + self.bias
        return normal


@dataclass(frozen=True)
class _Layer:
    attended: _Linear
    joined: _Linear
    first_norm: _Norm
    wide: _Linear
    narrow: _Linear
    second_norm: _Norm
    heads: int

    def __call__(self, x: Weights) -> Weights:
        x = self.first_norm(x + self.joined(self._attention(x)))
        return self.second_norm(x + self.narrow(_gelu(self.wide(x))))

    def _attention(self, x: Weights) -> Weights:
        tokens, width = x.shape
        query, key, value = self.attended(x).reshape(tokens, 3, self.heads, width // self.heads).transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width // self.heads))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: Weights = (weights @ value).transpose(1, 0, 2).reshape(tokens, width)
        return mixed


class NumpyBert:
    """The network of a model folder.

    Args:
        folder: Where its ``model.safetensors`` is.
        config: Its ``config.json``.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from safetensors import safe_open

        self._file: Any = safe_open(folder / WEIGHTS, framework="np")  # stays open: later reads are of the same file
        read: Callable[[str], Weights] = self._file.get_tensor
        epsilon = float(config.get("layer_norm_eps", EPSILON))
        self._positions = read("embeddings.position_embeddings.weight")
        self._type = read("embeddings.token_type_embeddings.weight")[0]
        self._norm = _norm(read, "embeddings.LayerNorm", epsilon)
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        self._layers = [_layer(read, f"encoder.layer.{n}", heads, epsilon) for n in range(layers)]

    def __call__(self, ids: Sequence[int]) -> Vector:
        """Return the vectors of a text's tokens, shape (tokens, dimensions)."""
        x = self._norm(self._words(ids) + self._positions[: len(ids)] + self._type)
        for layer in self._layers:
            x = layer(x)
        return x

    def _words(self, ids: Sequence[int]) -> Weights:
        """Read the rows of these tokens only: the whole table is half of the model."""
        table = self._file.get_slice("embeddings.word_embeddings.weight")
        return np.concatenate([table[id_ : id_ + 1] for id_ in ids])


def computable(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a model folder is one of these networks, with weights that NumPy can read."""
    usual = all(config.get(name, value) == value for name, value in _USUAL.items()) and "model_type" in config
    if not usual or not (folder / WEIGHTS).is_file():
        return False
    if not all(isinstance(config.get(name), int) for name in ("num_attention_heads", "num_hidden_layers")):
        return False
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="np") as file:
        found = set(file.keys())
        needed = set(_names(int(config["num_hidden_layers"])))
        return needed <= found and all(file.get_slice(name).get_dtype() == "F32" for name in needed)


def _names(layers: int) -> Iterator[str]:
    """Return the names of all weights that are read."""
    yield from (f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type"))
    attended = [f"attention.{part}" for part in ("self.query", "self.key", "self.value", "output.dense")]
    parts = [*attended, "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
    every = [f"encoder.layer.{layer}.{part}" for layer in range(layers) for part in parts]
    yield from (f"{part}.{kind}" for part in ("embeddings.LayerNorm", *every) for kind in ("weight", "bias"))


def _layer(read: Any, name: str, heads: int, epsilon: float) -> _Layer:
    three = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    attended = _Linear(*(np.concatenate([read(f"{part}.{kind}") for part in three]) for kind in ("weight", "bias")))
    return _Layer(
        attended,
        _linear(read, f"{name}.attention.output.dense"),
        _norm(read, f"{name}.attention.output.LayerNorm", epsilon),
        _linear(read, f"{name}.intermediate.dense"),
        _linear(read, f"{name}.output.dense"),
        _norm(read, f"{name}.output.LayerNorm", epsilon),
        heads,
    )


def _linear(read: Any, name: str) -> _Linear:
    return _Linear(read(f"{name}.weight"), read(f"{name}.bias"))


def _norm(read: Any, name: str, epsilon: float) -> _Norm:
    return _Norm(read(f"{name}.weight"), read(f"{name}.bias"), epsilon)


def _gelu(x: Weights) -> Weights:
    """Return x times the normal distribution function of x (Hendrycks and Gimpel 2016)."""
    half: Weights = np.float32(0.5) * x * (1 + _erf(x / np.float32(np.sqrt(2))))
    return half


def _erf(x: Weights) -> Weights:
    """Return the error function, to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    rest = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    value: Weights = np.sign(x) * (1 - rest.astype(np.float32) * np.exp(-size * size))
    return value
