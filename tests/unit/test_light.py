"""Queries without torch: the same vectors, and all else that an encoder says of itself, as the whole model's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgneural.encoders import make
from pgneural.encoders.light import LightEncoder, of_folder, readable_without_torch
from pgneural.encoders.minilm import model_folder
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
    folder = model_folder() if request.param == "minilm" else tiny_model
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


def changed(folder: Path, name: str, **values: Any) -> None:
    """Set values in a JSON file of a model folder."""
    said = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps({**said, **values}))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"model_type": "roberta"}),
        ("config.json", {"is_decoder": True}),
        ("config.json", {"auto_map": {"AutoModel": "mine.Network"}}),
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"num_hidden_layers": 3}),
        ("1_Pooling/config.json", {"pooling_mode": "max"}),
        ("1_Pooling/config.json", {"include_prompt": False}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("sentence_bert_config.json", {"tokenizer_args": {"do_lower_case": False}}),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}),
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "strip_accents": False}),
        ("tokenizer_config.json", {"tokenizer_class": "MyTokenizer"}),
        ("tokenizer.json", {"normalizer": None}),
        ("tokenizer.json", {"post_processor": None}),
    ],
)
def test_other_models_are_left_to_the_whole_model(
    tiny_model: Path, tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    assert readable_without_torch(tiny_model)
    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    changed(tmp_path, name, **values)
    assert not readable_without_torch(tmp_path)


@pytest.mark.parametrize("type_", ["sentence_transformers.models.Dense", "mine.modules.Transformer"])
def test_other_modules_are_left_to_the_whole_model(tiny_model: Path, tmp_path: Path, type_: str) -> None:
    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "type": type_}, *modules[1:]]))
    assert not readable_without_torch(tmp_path)
    assert isinstance(make(str(tiny_model), precision="float32"), SentenceTransformerEncoder)


def test_what_a_configuration_leaves_out_is_as_usual(tiny_model: Path, tmp_path: Path) -> None:
    """An old folder without the epsilon, and one that normalises although its vectors are compared by inner product."""
    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["layer_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    changed(tmp_path, "config_sentence_transformers.json", similarity_fn_name="dot")
    modules = json.loads((tmp_path / "modules.json").read_text())
    normalize = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
    (tmp_path / "modules.json").write_text(json.dumps([*modules, normalize]))
    light, whole = of_folder(tmp_path), SentenceTransformerEncoder(tmp_path, precision="float32", device="cpu")
    assert isinstance(light, LightEncoder)
    one, other = light.encode_query("the quick fox"), whole.encode_query("the quick fox")
    assert np.allclose(one, other, atol=1e-5)
    assert abs(float(np.linalg.norm(one)) - 1) < 1e-5


@pytest.mark.model
def test_a_process_that_only_asks_imports_no_torch() -> None:
    code = (
        "import sys; from pgneural import encoders; e = encoders.get('minilm'); e.encode_query('a fox');"
        "e.encode_documents(['a dog']);"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
