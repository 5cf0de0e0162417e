"""Any sentence-transformers model, by name or folder.

The model is theirs; what is ours is the way it is fed. Bulk: batches of texts of like length, filled up
to a number of tokens rather than of texts, so that little padding is computed and a batch stays in the
processor's cache. Precision: half where the machine has the instructions and the vectors stay within
`FIDELITY` of float32, which is tried out on every load. Query: straight to the model's forward pass.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgneural.encoders import cpu_batches, packed_linear
from pgneural.encoders.folder import DISTANCES
from pgneural.encoders.loading import changed_revision, load, revision_of
from pgneural.encoders.readable import ReadableTokenizer, text_of
from pgneural.errors import DimensionMismatch, EncoderUnavailable
from pgneural.extras import needed
from pgneural.printable import logger as logger_of
from pgneural.types import Content, Distance, Kind, Modality, Vector

if TYPE_CHECKING:
    import tokenizers
    import torch
    from sentence_transformers import SentenceTransformer

logger = logger_of(__name__)

PRECISIONS = ("auto", "float32", "bfloat16", "float16")

FIDELITY = 0.999
"""The least cosine between a half precision vector and the float32 one."""

CPU_BATCH_TOKENS = 2048
"""Tokens in a batch on a CPU: enough to fill its vector units, few enough for its cache."""

GPU_BATCH_TOKENS = 65_536
"""Tokens in a batch on a GPU, which wants many at a time."""

UNLIMITED = 1_000_000
"""Tokenizers of models without a limit claim a length beyond this."""

_PROBE = (
    "search",
    "How do vaccines work?",
    "The quick brown fox jumps over the lazy dog, and 42 zebras watch from 3.5 km away.",
    "def median(values): return sorted(values)[len(values) // 2]",
    "Wie funktioniert ein Impfstoff? ¿Cómo funciona una vacuna? 疫苗如何起作用?",
    "We study the spectrum of the Laplacian on compact hyperbolic surfaces of large genus. " * 12,
)


class SentenceTransformerEncoder:
    """A text encoder over a `sentence_transformers.SentenceTransformer`.

    Args:
        model: A folder, or a name on the model hub.
        name: The name under which its spaces are recorded; the model's own by default.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; chosen by the library by default.
        dimensions: Keep only the first so many dimensions (Matryoshka models).
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        query_prompt: Put before every query, instead of the model's own ``query`` prompt.
        document_prompt: Put before every document, instead of the model's own ``document`` prompt.
        trust_remote_code: Run code that comes with the model. Off, unless you have read it.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not a text model's.
        DimensionMismatch: More dimensions are asked for than the model has.
    """

    kind = Kind.DENSE
    modalities = frozenset({Modality.TEXT})

    def __init__(
        self,
        model: str | Path,
        *,
        name: str | None = None,
        device: str | None = None,
        dimensions: int | None = None,
        precision: str = "auto",
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._model = _load(str(model), device, trust_remote_code)
        self._tokenizing = threading.Lock()
        self.name = name or str(model)
        own: Mapping[str, str | None] = self._model.prompts
        self._query_prompt = own.get("query") or "" if query_prompt is None else query_prompt
        passage = own.get("document") or own.get("passage") or ""
        self._document_prompt = passage if document_prompt is None else document_prompt
        full = int(self._model.get_embedding_dimension() or len(self._forward(["a"], "", "query")[0]))
        if dimensions is not None and not 0 < dimensions <= full:
            raise DimensionMismatch(
                f"{self.name} gives {full} dimensions, so {dimensions} cannot be kept; ask for fewer"
            )
        self.dimensions = dimensions or full
        self.distance = DISTANCES.get(self._model.similarity_fn_name, Distance.COSINE)
        self.tokenizer = ReadableTokenizer(_backend(self._model))
        self._limit = _limit(self._model)
        self.max_tokens = self._usable(self._document_prompt)
        self.revision = self._revision(str(model), dimensions, (query_prompt, document_prompt))
        self.precision = _choose_precision(self, precision)

    def encode_documents(self, items: Sequence[Content]) -> Vector:
        """Return float32 vectors, shape (n, dimensions), in the order of the items.

        Raises:
            TextTooLong: An item has more than `max_tokens` tokens.
        """
        texts, counted = self.tokenizer.checked(items, self.max_tokens, self.name)
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        lengths = np.asarray(counted, dtype=np.int64)

        def encode(batch: Sequence[int]) -> None:
            vectors[batch] = self._forward([texts[at] for at in batch], self._document_prompt, "document")

        batches = list(self._batches(lengths))
        if self._model.device.type == "cpu":
            cpu_batches.each(encode, batches)
        else:
            for batch in batches:
                encode(batch)
        return vectors

    def encode_query(self, item: Content) -> Vector:
        """Return one float32 vector, shape (dimensions,); a query that is too long is cut with a warning."""
        text = self.tokenizer.shortened(text_of(item), self._usable(self._query_prompt), self.name)
        vector: Vector = self._forward([text], self._query_prompt, "query")[0]
        return vector

    def _forward(self, texts: list[str], prompt: str, task: str) -> Vector:
        import torch

        with torch.inference_mode():
            with self._tokenizing:  # which sets the tokenizer anew by every call
                features = self._model.preprocess(texts, prompt=prompt or None, task=task)
            moved = {
                key: value.to(self._model.device) if isinstance(value, torch.Tensor) else value
                for key, value in features.items()
            }
            output: torch.Tensor = self._model(moved, task=task)["sentence_embedding"].float()
            output = output[:, : getattr(self, "dimensions", None)]
            if getattr(self, "distance", Distance.COSINE) is Distance.COSINE:
                output = torch.nn.functional.normalize(output, dim=1)
            vectors: Vector = output.cpu().numpy()
        return vectors

    def _batches(self, lengths: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[list[int]]:
        """Cut the texts, longest first, into batches of at most so many tokens, padding included."""
        budget = CPU_BATCH_TOKENS if self._model.device.type == "cpu" else GPU_BATCH_TOKENS
        order = np.argsort(-lengths, kind="stable").tolist()
        while order:
            size = max(1, budget // max(int(lengths[order[0]]), 1))
            yield order[:size]
            del order[:size]

    def _usable(self, prompt: str) -> int | None:
        if self._limit is None:
            return None
        backend = _backend(self._model)
        return self._limit - backend.num_special_tokens_to_add(False) - self.tokenizer.counts([prompt])[0]

    def _revision(self, model: str, dimensions: int | None, prompts: tuple[str | None, str | None]) -> str:
        config = getattr(getattr(self._model[0], "auto_model", None), "config", None)
        return changed_revision(revision_of(model, config), dimensions, prompts)


def _load(model: str, device: str | None, trust_remote_code: bool) -> SentenceTransformer:
    with needed(f"encoder {model!r}", "local"):
        from sentence_transformers import SentenceTransformer

    return load(SentenceTransformer, model, device, trust_remote_code).eval()


def _backend(model: SentenceTransformer) -> tokenizers.Tokenizer:
    tokenizer: Any = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "num_special_tokens_to_add"):
        raise EncoderUnavailable(
            f"the tokenizer {type(tokenizer).__name__} tells no character offsets; save the model with a fast tokenizer"
        )
    result: tokenizers.Tokenizer = backend
    return result


def _limit(model: SentenceTransformer) -> int | None:
    limit = model.max_seq_length or getattr(model.tokenizer, "model_max_length", None)
    return int(limit) if limit and limit < UNLIMITED else None


def _choose_precision(encoder: SentenceTransformerEncoder, asked: str) -> str:
    """Turn the model to the fastest precision that keeps its vectors, and return that precision's name."""
    import torch

    if asked not in PRECISIONS:
        raise ValueError(f"precision is {asked!r}, expected one of {', '.join(PRECISIONS)}")
    model = encoder._model
    half = _half_precision(model.device) if asked == "auto" else asked
    if half == "float32":
        return half
    texts = [
        text
        for text in _PROBE
        if encoder.max_tokens is None or encoder.tokenizer.counts([text])[0] <= encoder.max_tokens
    ]
    exact = encoder._forward(texts, "", "document")
    encoder._model = copy.deepcopy(model).to(getattr(torch, half))
    if half == "bfloat16" and model.device.type == "cpu" and packed_linear.available():
        packed_linear.pack(encoder._model)
    rounded = encoder._forward(texts, "", "document")
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    fidelity = float(((exact * rounded).sum(axis=1) / np.maximum(norms, 1e-12)).min())
    if asked == "auto" and not fidelity >= FIDELITY:
        logger.info("%s stays in float32: %s has cosine %.5f", encoder.name, half, fidelity)
        encoder._model = model
        return "float32"
    return half


def _half_precision(device: torch.device) -> str:
    import torch

    if device.type != "cpu":
        return "float16"
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    has = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return "bfloat16" if has else "float32"
