"""Queries without torch: the same vectors, and all else that an encoder says of itself, as the whole model's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgneural.encoders import make
from pgneural.encoders.light import LightEncoder, of_folder, readable_without_torch
from pgneural.encoders.minilm import _folder
from pgneural.encoders.transformer import SentenceTransformerEncoder
from pgneural.errors import TextTooLong
from pgneural.types import Encoder

TEXTS = [
    "fox",
    "",
    "How do vaccines work?",
    "The quick brown fox jumps over the lazy dog, and 42 zebras watch from 3.5 km away.",
    "疫苗如何起作用? 🍕 ¿Cómo funciona?",
    "ACGT" * 60,
    "We study the spectrum of the Laplacian on compact hyperbolic surfaces of large genus. " * 3,
]


@pytest.fixture(scope="module", params=["tiny", "tiny with prompts", "minilm"])
def pair(request: Any, tiny_model: Path) -> tuple[LightEncoder, SentenceTransformerEncoder]:
    """The light encoder of a model, and the whole one."""
    folder = _folder() if request.param == "minilm" else tiny_model
    prompts: dict[str, Any] = (
        {"query_prompt": "search query: ", "document_prompt": ""} if "prompts" in request.param else {}
    )
    light = of_folder(folder, **prompts)
    assert isinstance(light, LightEncoder)
    return light, SentenceTransformerEncoder(folder, precision="float32", device="cpu", **prompts)


def cosines(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.model
def test_is_the_whole_model_s(pair: tuple[LightEncoder, SentenceTransformerEncoder]) -> None:
    light, whole = pair
    for name in ("revision", "dimensions", "distance", "max_tokens", "modalities", "kind"):
        assert getattr(light, name) == getattr(whole, name), name
    limit = whole.max_tokens or 0
    texts = [text for text in TEXTS if whole.tokenizer.counts([text])[0] <= limit]
    assert [*light.tokenizer.counts(texts)] == [*whole.tokenizer.counts(texts)]
    queries = [(light.encode_query(text), whole.encode_query(text)) for text in texts]
    assert cosines(*map(np.array, zip(*queries, strict=True))).min() > 0.99999
    assert cosines(light.encode_documents(texts), whole.encode_documents(texts)).min() > 0.99999
    assert light.encode_documents([]).shape == (0, light.dimensions)
    assert queries[0][0].dtype == np.float32


@pytest.mark.model
def test_refuses_and_cuts_what_the_whole_model_does(pair: tuple[LightEncoder, SentenceTransformerEncoder]) -> None:
    light, whole = pair
    long = "fox " * 400
    for encoder in pair:
        with pytest.raises(TextTooLong, match="a text has 400 tokens"):
            encoder.encode_documents([long])
    with pytest.warns(UserWarning, match="tokens; .* reads the first"):
        one = light.encode_query(long)
    with pytest.warns(UserWarning, match="tokens; .* reads the first"):
        other = whole.encode_query(long)
    assert cosines(one, other) > 0.99999


def test_the_whole_model_is_loaded_for_many_texts_only(tiny_model: Path) -> None:
    loads: list[str] = []

    def full() -> Encoder:
        loads.append("whole")
        return SentenceTransformerEncoder(tiny_model, device="cpu")

    encoder = LightEncoder(tiny_model, full, "tiny")
    encoder.encode_documents(["the quick fox"] * 10)
    assert loads == []
    vectors = encoder.encode_documents(["the quick brown fox jumps over the lazy dog"] * 400)
    assert vectors.shape == (400, 32)
    encoder.encode_documents(["a fox"])
    assert loads == ["whole"]


def test_other_networks_are_left_to_the_whole_model(tiny_model: Path, tmp_path: Path) -> None:
    assert readable_without_torch(tiny_model)
    for name, text in {
        "config.json": '{"model_type": "roberta"}',
        "modules.json": '[{"type": "x.Transformer"}, {"type": "x.Dense"}]',
        "1_Pooling/config.json": '{"pooling_mode": "max"}',
        "sentence_bert_config.json": '{"do_lower_case": true}',
    }.items():
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(tiny_model, folder)
        (folder / name).write_text(text)
        assert not readable_without_torch(folder), name
    assert isinstance(make(str(tiny_model), precision="float32"), SentenceTransformerEncoder)


@pytest.mark.model
def test_a_process_that_only_asks_imports_no_torch() -> None:
    code = (
        "import sys; from pgneural import encoders; e = encoders.get('minilm'); e.encode_query('a fox');"
        "e.encode_documents(['a dog']);"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
