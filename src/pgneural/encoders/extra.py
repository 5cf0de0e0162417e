"""Encoders of another form than one vector a text: learned sparse ones, and one vector a token.

Texts beyond a model's length are cut, as these models are used: a chunk is as long as the dense encoder reads.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pgneural.encoders.loading import config_of, load, revision_of
from pgneural.encoders.readable import as_texts, reader_of
from pgneural.extras import needed
from pgneural.types import Distance, Kind, Modality, Vector


class _Loaded(abc.ABC):
    """A model of one class of sentence-transformers, with what reads every word of a text for it."""

    distance = Distance.INNER_PRODUCT
    modalities = frozenset({Modality.TEXT})
    _class: ClassVar[str]

    def __init__(self, model: str | Path, *, device: str | None = None, trust_remote_code: bool = False) -> None:
        with needed(f"encoder {str(model)!r}", "local"):
            import sentence_transformers

        self._model: Any = load(getattr(sentence_transformers, self._class), model, device, trust_remote_code)
        self._read = reader_of(self._model.tokenizer)
        self.name, self.revision = str(model), revision_of(model, config_of(self._model))
        self.dimensions = int(self.encode_query("a").shape[-1])  # some models state the width of a layer before

    @abc.abstractmethod
    def encode_query(self, item: str) -> Vector:
        """Return what a query becomes; the last axis is that of the dimensions."""


class SparseTransformerEncoder(_Loaded):
    """A `sentence_transformers.SparseEncoder`, such as SPLADE (Formal et al. 2021): a weight for each word it knows.

    Args:
        model: A folder, or a name on the model hub.
        device: As of `pgneural.encoders.transformer.SentenceTransformerEncoder`.
        trust_remote_code: Run code that comes with the model. Off, unless you have read it.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not such a model's.
    """

    kind = Kind.SPARSE
    _class = "SparseEncoder"

    def encode_documents(self, items: Sequence[str]) -> list[Vector]:
        """Return for each text its weights, shape (dimensions,), most of them 0."""
        texts = as_texts(self._model, self._read(items))
        found = self._model.encode_document(texts, show_progress_bar=False, convert_to_sparse_tensor=False)
        return [weights.float().cpu().numpy() for weights in found]

    def encode_query(self, item: str) -> Vector:
        """Return weights, shape (dimensions,), most of them 0."""
        texts = as_texts(self._model, self._read([item]))
        found = self._model.encode_query(texts, show_progress_bar=False, convert_to_sparse_tensor=False)
        weights: Vector = found[0].float().cpu().numpy()
        return weights


class MultiVectorTransformerEncoder(_Loaded):
    """A `sentence_transformers.MultiVectorEncoder`, such as ColBERT: a vector for each token, for late interaction.

    Args:
        model: A folder, or a name on the model hub.
        device: As of `pgneural.encoders.transformer.SentenceTransformerEncoder`.
        trust_remote_code: Run code that comes with the model. Off, unless you have read it.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not such a model's.
    """

    kind = Kind.TOKENS
    _class = "MultiVectorEncoder"

    def encode_documents(self, items: Sequence[str]) -> list[Vector]:
        """Return for each text its tokens, shape (tokens, dimensions), each of length 1."""
        texts = as_texts(self._model, self._read(items))
        found = self._model.encode_document(
            texts, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
        )
        return [np.asarray(tokens, dtype=np.float32) for tokens in found]

    def encode_query(self, item: str) -> Vector:
        """Return the tokens of a query, shape (tokens, dimensions), each of length 1."""
        (found,) = self._model.encode_query(
            as_texts(self._model, self._read([item])),
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.asarray(found, dtype=np.float32)
