"""A model folder that encodes queries without torch, and loads the whole model when documents come in bulk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgneural.encoders.bert import NumpyBert, computable
from pgneural.encoders.folder import ModelFolder
from pgneural.encoders.loading import changed_revision
from pgneural.encoders.readable import ReadableTokenizer, text_of
from pgneural.errors import MissingExtra
from pgneural.extras import needed
from pgneural.printable import warn
from pgneural.types import Distance, Encoder, EncoderInput, Kind, Modality, Vector

if TYPE_CHECKING:
    import tokenizers

FEW_TOKENS = 2000
"""NumPy encodes so many in half a second; torch takes seconds only to start (`python -m bench start`)."""


class LightEncoder:
    """A sentence-transformers folder with a BERT network; its vectors are those of `SentenceTransformerEncoder`.

    Args:
        folder: The model.
        full: Loads the whole model, for documents in bulk.
        name: The name under which its spaces are recorded.
        query_prompt: Put before every query, instead of the model's own.
        document_prompt: Put before every document, instead of the model's own.
    """

    kind = Kind.DENSE
    modalities = frozenset({Modality.TEXT})

    def __init__(
        self,
        folder: Path,
        full: Callable[[], Encoder],
        name: str,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        self._folder, self._full, self.name = ModelFolder(folder), full, name
        prompts = self._folder.prompts
        self._query_prompt = prompts[0] if query_prompt is None else query_prompt
        self._document_prompt = prompts[1] if document_prompt is None else document_prompt
        self.distance, self.dimensions = self._folder.distance, int(self._folder.dimensions or 0)
        self._backend = _backend(folder)
        self.tokenizer = ReadableTokenizer(self._backend)
        self._limit = int(self._folder.limit or 0)
        self._backend.enable_truncation(self._limit)
        self.max_tokens = self._usable(self._document_prompt)
        self.revision = changed_revision(self._folder.revision, None, (query_prompt, document_prompt))
        self._network: NumpyBert | None = None
        self._whole: Encoder | None = None
        self._warned = False
        self._loading = threading.Lock()

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, dimensions), in the order of the items.

        Raises:
            TextTooLong: An item has more than `max_tokens` tokens.
        """
        texts, lengths = self.tokenizer.checked(items, self.max_tokens, self.name)
        whole = self._whole_for(sum(lengths))
        if whole is not None:
            return whole.encode_documents(items)
        vectors = [self._forward(self._document_prompt + text) for text in texts]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dimensions)

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (dimensions,); a query that is too long is cut with a warning."""
        text = self.tokenizer.shortened(text_of(item), self._usable(self._query_prompt), self.name)
        return self._forward(self._query_prompt + text)

    def _whole_for(self, tokens: int) -> Encoder | None:
        """Return the whole model, where so much is to be encoded that it pays, and torch is there."""
        if self._whole is None and tokens > FEW_TOKENS:
            with self._loading:
                if self._whole is None:
                    try:
                        self._whole = self._full()
                    except MissingExtra as error:
                        if not self._warned:
                            warn(f"{self.name} encodes with NumPy, which is several times slower than torch: {error}")
                        self._warned = True
                        return None
        return self._whole

    def _forward(self, text: str) -> Vector:
        if self._network is None:
            with self._loading:
                self._network = self._network or NumpyBert(self._folder.path, self._folder.config)
        tokens = self._network(self._backend.encode(text).ids)
        vector: Vector = tokens[0] if self._folder.pooling == "cls" else tokens.mean(axis=0)
        if self.distance is Distance.COSINE or "Normalize" in self._folder.modules:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector.astype(np.float32)

    def _usable(self, prompt: str) -> int:
        return self._limit - self._backend.num_special_tokens_to_add(False) - self.tokenizer.counts([prompt])[0]


def readable_without_torch(folder: Path) -> bool:
    """Whether a model folder can be read by `LightEncoder`: its network, its pooling, its tokenizer."""
    found = ModelFolder(folder)
    known = found.pooling in ("mean", "cls") and found.modules <= {"Transformer", "Pooling", "Normalize"}
    return (
        known
        and bool(found.dimensions and found.limit)
        and found.reads_text_plainly
        and computable(folder, found.config)
    )


def _backend(folder: Path) -> tokenizers.Tokenizer:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_padding()
    return backend


def of_folder(
    model: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dimensions: int | None = None,
    precision: str = "auto",
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    trust_remote_code: bool = False,
) -> Encoder:
    """Make the encoder of a model: without torch where that is possible and no device or precision is asked for.

    Arguments and errors are those of `pgneural.encoders.transformer.SentenceTransformerEncoder`.
    """
    prompts = {"query_prompt": query_prompt, "document_prompt": document_prompt}

    def full() -> Encoder:
        with needed(f"encoder {name or str(model)!r}", "local"):
            from pgneural.encoders.multimodal import MultimodalEncoder, accepts_more_than_texts
            from pgneural.encoders.transformer import SentenceTransformerEncoder, load_model

            loaded = load_model(str(model), device, trust_remote_code)
            if accepts_more_than_texts(loaded):
                return MultimodalEncoder(loaded, str(model), name or str(model), dimensions, **prompts)
            known: dict[str, Any] = {"dimensions": dimensions, "precision": precision, "loaded": loaded, **prompts}
            return SentenceTransformerEncoder(model, name=name, **known)

    usual = device is None and dimensions is None and precision == "auto" and not trust_remote_code
    if usual and Path(model).is_dir() and readable_without_torch(Path(model)):
        return LightEncoder(Path(model), full, name or str(model), **prompts)
    return full()
