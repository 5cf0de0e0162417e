"""Nothing that an encoder is given is unknown to it: long words, scripts that it does not have, emoji."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgneural import CrossEncoderReranker, Record
from pgneural.chunk import chunk, chunk_spans
from pgneural.encoders.extra import MultiVectorTransformerEncoder, SparseTransformerEncoder
from pgneural.encoders.light import LightEncoder
from pgneural.encoders.minilm import minilm as make

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def minilm() -> LightEncoder:
    made = make()
    assert isinstance(made, LightEncoder)
    return made


UNREADABLE = [
    ("ACGT" * 100, "TGCA" * 100),
    ("ภาษาไทยเป็นภาษาที่มีระดับเสียง", "ประเทศกัมพูชาและเวียดนาม"),
    ("🍕🍕🍕", "🚗🚗🚗"),
    ("https://example.org/" + "a1b2" * 40, "https://example.org/" + "z9y8" * 40),
]


@pytest.mark.parametrize(("one", "other"), UNREADABLE)
def test_texts_of_unknown_words_have_vectors_of_their_own(minilm: LightEncoder, one: str, other: str) -> None:
    vectors = minilm.encode_documents([one, other, one])
    assert vectors[0] @ vectors[1] < 0.98
    assert vectors[0] @ vectors[2] > 0.999
    assert vectors[0] @ minilm.encode_query(one) > 0.99


def test_a_long_word_is_several_chunks(minilm: LightEncoder) -> None:
    dna = "".join(random.Random(1).choices("ACGT", k=20_000))
    pieces = chunk(Record("1", dna).body, minilm.tokenizer, max_tokens=250, overlap=0)
    assert len(pieces) > 10
    assert "".join(piece.text for piece in pieces) == dna
    assert max(minilm.tokenizer.counts([piece.text for piece in pieces])) <= 250


@given(st.text(alphabet="ab .ก🍕疫\u0301ß[UNK]-", max_size=150), st.integers(1, 40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_is_unknown_and_chunks_rebuild_it(minilm: LightEncoder, text: str, max_tokens: int) -> None:
    assert "[UNK]" not in " ".join(minilm.tokenizer._encode([minilm.tokenizer.read([text])[0][0]])[0].tokens)
    spans = chunk_spans(text, minilm.tokenizer, max_tokens=max_tokens, overlap=0)
    assert "".join(text[start:stop] for start, stop in spans) == text
    assert all(start < stop for start, stop in spans) or not text


def test_a_query_of_megabytes_is_shortened(minilm: LightEncoder) -> None:
    started = time.monotonic()
    with pytest.warns(UserWarning, match="the query has 10000000 characters; minilm reads 25"):
        minilm.encode_query("a" * 10_000_000)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["sparse", "tokens", "reranker"])
def test_other_models_read_every_word_too(
    kind: str, tiny_sparse: Path, tiny_late: Path, tiny_cross_encoder: Path
) -> None:
    """One unknown token stood for all of a word of more than 100 letters, so that any two such words were the same."""
    one, other = "abcdefgh" * 20, "hgfedcba" * 20
    if kind == "reranker":
        scores = CrossEncoderReranker(tiny_cross_encoder).score("a fox", [one, other])
        assert scores[0] != scores[1]
        return
    encoder = SparseTransformerEncoder(tiny_sparse) if kind == "sparse" else MultiVectorTransformerEncoder(tiny_late)
    documents = encoder.encode_documents([one, other])
    queries = [encoder.encode_query(text) for text in (one, other)]
    for first, second in (documents, queries):
        assert first.shape != second.shape or not np.allclose(first, second)
