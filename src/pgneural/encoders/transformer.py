"""Any sentence-transformers model, by name or folder.

The model is theirs; what is ours is the way it is fed. Bulk: batches of texts of like length, filled up
to a number of tokens rather than of texts, so that little padding is computed and a batch stays in the
processor's cache. Precision: see `pgneural.encoders.precision`; it is settled when the first documents
come, and a query does not wait for that. Query: straight to the model's forward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgneural.encoders import cpu_batches
from pgneural.encoders.folder import DISTANCES
from pgneural.encoders.loading import changed_revision, config_of, load, revision_of
from pgneural.encoders.precision import (
    PRECISIONS,
    PROBE,
    half_precision,
    in_precision,
    keeps_vectors,
    key_of,
    recall,
)
from pgneural.encoders.readable import ReadableTokenizer, text_of
from pgneural.errors import DimensionMismatch, EncoderUnavailable
from pgneural.extras import needed
from pgneural.types import Distance, EncoderInput, Kind, Modality, Vector

if TYPE_CHECKING:
    import tokenizers
    import torch
    from sentence_transformers import SentenceTransformer

CPU_BATCH_TOKENS = 2048
"""Tokens in a batch on a CPU: enough to fill its vector units, few enough for its cache."""

GPU_BATCH_TOKENS = 65_536
"""Tokens in a batch on a GPU, which wants many at a time."""

UNLIMITED = 1_000_000
"""Tokenizers of models without a limit claim a length beyond this."""


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
        loaded: The model, where it is loaded already.

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
        loaded: SentenceTransformer | None = None,
    ) -> None:
        self._model = loaded or load_model(str(model), device, trust_remote_code)
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
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self._precision: str | None = None if precision == "auto" else precision
        self._settling = threading.Lock()
        if precision in ("bfloat16", "float16"):
            self._model = in_precision(self._model, precision)
        elif precision == "auto" and self._is_known():
            self._settle_precision()

    @property
    def precision(self) -> str:
        """The precision in which documents are encoded: ``float32``, ``bfloat16`` or ``float16``."""
        return self._settle_precision()

    def _settle_precision(self) -> str:
        """Turn the model, once, to the fastest precision that keeps its vectors; return that precision's name."""
        with self._settling:
            if self._precision is None:
                self._precision = self._fastest()
            return self._precision

    def _is_known(self) -> bool:
        """Whether the precision needs no trial, so that the vectors of a query do not depend on what came before."""
        device = self._model.device
        half = half_precision(device)
        return half == "float32" or recall(key_of(self.name, self.revision, device, half)) is not None

    def _fastest(self) -> str:
        model = self._model
        half = half_precision(model.device)
        key = key_of(self.name, self.revision, model.device, half)
        if half == "float32" or recall(key) is False:
            return "float32"
        changed = in_precision(model, half)
        limit = self.max_tokens
        texts = [text for text in PROBE if limit is None or self.tokenizer.counts([text])[0] <= limit]
        exact, rounded = (partial(self._forward, texts, "", "document", each) for each in (model, changed))
        if not keeps_vectors(self.name, half, exact, rounded, key):
            return "float32"
        self._model = changed
        return half

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, dimensions), in the order of the items.

        Raises:
            TextTooLong: An item has more than `max_tokens` tokens.
        """
        texts, counted = self.tokenizer.checked(items, self.max_tokens, self.name)
        self._settle_precision()
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

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (dimensions,); a query that is too long is cut with a warning."""
        text = self.tokenizer.shortened(text_of(item), self._usable(self._query_prompt), self.name)
        vector: Vector = self._forward([text], self._query_prompt, "query")[0]
        return vector

    def _forward(self, texts: list[str], prompt: str, task: str, model: SentenceTransformer | None = None) -> Vector:
        import torch

        model = model or self._model  # another thread may turn it to another precision meanwhile
        with torch.inference_mode():
            with self._tokenizing:  # which sets the tokenizer anew by every call
                features = model.preprocess(texts, prompt=prompt or None, task=task)
            moved = {
                key: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for key, value in features.items()
            }
            output: torch.Tensor = model(moved, task=task)["sentence_embedding"].float()
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
        return changed_revision(revision_of(model, config_of(self._model)), dimensions, prompts)


def load_model(model: str, device: str | None, trust_remote_code: bool) -> SentenceTransformer:
    """Load a model.

    Raises:
        EncoderUnavailable: Its files are not here, or are not those of such a model.
        MissingExtra: Extra ``local`` is not installed.
    """
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
