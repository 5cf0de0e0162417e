"""Reading query and text together: a cross-encoder puts the best candidates of a search in a better order.

It is far slower than comparing vectors, so it has a budget: so many candidates, and so many seconds. What the
budget does not reach keeps its order, below what it does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pgneural.encoders import canonical
from pgneural.encoders.loading import load
from pgneural.encoders.readable import as_texts, reader_of
from pgneural.encoders.registry import MODELS, key_of
from pgneural.errors import EncoderUnavailable, InvalidQuery
from pgneural.extras import needed
from pgneural.types import Vector

CANDIDATES = 50
"""Rows that are reranked: the usual depth in the literature (Nogueira and Cho 2019 take 1,000, with a GPU)."""

BATCH = 16
"""Texts scored at once; the time is looked at between batches."""


class Reranker(Protocol):
    """Says how well texts answer a query."""

    def score(self, query: str, texts: Sequence[str]) -> Vector:
        """Return one score for each text, shape (n,), larger is better."""


@dataclass(frozen=True)
class Rerank:
    """A reranker with its budget.

    Attributes:
        reranker: A reranker, or the folder or name of a sentence-transformers cross-encoder.
        candidates: How many of the best rows it may read.
        seconds: After which no further batch is begun; None for no limit.
    """

    reranker: Reranker | str | Path
    candidates: int = CANDIDATES
    seconds: float | None = None

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score texts in order, as many as the budget allows.

        Raises:
            EncoderUnavailable: The model's files are not here.
            InvalidQuery: The budget allows no candidates.
        """
        if self.candidates < 1:
            raise InvalidQuery(f"candidates is {self.candidates}, expected at least 1")
        model = cross_encoder(str(self.reranker)) if isinstance(self.reranker, (str, Path)) else self.reranker
        until = np.inf if self.seconds is None else time.monotonic() + self.seconds
        scores: list[float] = []
        for start in range(0, min(len(texts), self.candidates), BATCH):
            if time.monotonic() > until:
                break
            batch = texts[start : min(start + BATCH, self.candidates)]
            scores += map(float, model.score(query, batch))
        return scores


@dataclass(frozen=True)
class LateInteraction:
    """The best candidates are compared token by token (ColBERT, Khattab and Zaharia 2020), by SQL.

    Attributes:
        candidates: How many of the best rows.
    """

    candidates: int = CANDIDATES


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder; texts beyond its length are cut, since only the order matters.

    Args:
        model: A folder, or a name on the model hub.
        device: As of the encoders.
        trust_remote_code: Run code that comes with the model. Off, unless you have read it.

    Raises:
        EncoderUnavailable: The model's files are not here, or are not a cross-encoder's with one score.
    """

    def __init__(self, model: str | Path, *, device: str | None = None, trust_remote_code: bool = False) -> None:
        with needed(f"cross-encoder {str(model)!r}", "local"):
            from sentence_transformers import CrossEncoder

        self._model = load(CrossEncoder, model, device, trust_remote_code)
        if self._model.num_labels != 1:
            raise EncoderUnavailable(
                f"cross-encoder {model} gives {self._model.num_labels} scores, expected 1; use one trained for ranking"
            )

        self._read = reader_of(self._model.tokenizer)

    def score(self, query: str, texts: Sequence[str]) -> Vector:
        """Return one score for each text, shape (n,)."""
        query, *texts = as_texts(self._model, self._read([query, *texts]))
        pairs = [(query, text) for text in texts]
        scores = self._model.predict(pairs, batch_size=BATCH, show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32).reshape(-1)


def cross_encoder(model: str) -> CrossEncoderReranker:
    """Return a cross-encoder by folder or name, loaded once."""
    name = canonical(model)
    return MODELS.get(key_of("reranker", name, {}), lambda: CrossEncoderReranker(name))
