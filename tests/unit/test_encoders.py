"""The registry, the encoders without a model, and sentence-transformers models that the tests make."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgneural import encoders
from pgneural.encoders import cpu_batches
from pgneural.encoders.folder import ModelFolder
from pgneural.encoders.hashing import HashEncoder
from pgneural.encoders.precision import FIDELITY, key_of, recall, remember
from pgneural.encoders.transformer import SentenceTransformerEncoder
from pgneural.errors import DimensionMismatch, EncoderUnavailable, TextTooLong, UnknownEncoder
from pgneural.types import Encoder, Modality


def test_hash_encoder_is_deterministic_and_normalised() -> None:
    vectors = HashEncoder().encode_documents(["the quick fox", "quick foxes", "", "天気"])
    assert vectors.shape == (4, 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(vectors[0], HashEncoder().encode_query("the quick fox"))
    assert vectors[0] @ vectors[1] > 0.3


def test_every_encoder_meets_the_contract(tiny_model: Path) -> None:
    made: list[tuple[str | Path, dict[str, Any], int, int]] = [
        ("hash", {}, 256, 256),
        ("hash", {"dimensions": 8}, 8, 256),
        (tiny_model, {}, 32, 60),
    ]
    for name, options, dimensions, max_tokens in made:
        encoder: Encoder = encoders.get(name, **options)
        assert (encoder.dimensions, encoder.max_tokens) == (dimensions, max_tokens)
        vectors = encoder.encode_documents(["the quick fox", "", "a dog"])
        assert vectors.shape == (3, dimensions)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors[[0, 2]], axis=1), 1, atol=1e-3)
        query = encoder.encode_query("the quick fox")
        assert query.shape == (dimensions,)
        assert query.dtype == np.float32
        np.testing.assert_array_equal(query, encoders.get(name, **options).encode_query("the quick fox"))
        assert encoder.encode_documents([]).shape == (0, encoder.dimensions)
        assert encoder.name == str(name)
        assert encoder.revision
        assert encoder.modalities == {Modality.TEXT}
        assert sum(encoder.tokenizer.counts(["the quick fox"])) == 3
        assert encoders.described(str(name), options) == (encoder.dimensions, encoder.distance)
    given = encoders.get("vectors:3")  # which encodes nothing
    assert (given.name, given.dimensions) == ("vectors:3", 3)


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(
        UnknownEncoder,
        match="no encoder 'nope'; registered are conse, efficientnet-lite0, hash, minilm, openwakeword, or",
    ):
        encoders.get("nope")
    with pytest.raises(UnknownEncoder, match="write vectors:<dimensions>"):
        encoders.get("vectors:x")
    with pytest.raises(EncoderUnavailable, match="give every document an embedding of 3 numbers"):
        encoders.get("vectors:3").encode_documents(["a"])


def test_available_without_loading() -> None:
    listed = {info.name: info for info in encoders.available()}
    assert (listed["minilm"].dimensions, listed["minilm"].max_tokens, listed["minilm"].ready) == (384, 256, True)
    assert listed["hash"].ready


def test_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        encoders.get(tmp_path)


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(tiny_model, precision="float32", device="cpu")


class TestFolder:
    """A model folder, by the real loading code."""

    def test_agrees_with_sentence_transformers(self, encoder: SentenceTransformerEncoder, tiny_model: Path) -> None:
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(tiny_model), device="cpu")
        texts = ["the quick brown fox", "dog", "", "how do vaccines work? " * 5]
        theirs = reference.encode_document(texts, normalize_embeddings=True)
        np.testing.assert_allclose(encoder.encode_documents(texts), theirs, atol=1e-5)
        query = reference.encode_query("the lazy dog", normalize_embeddings=True)
        np.testing.assert_allclose(encoder.encode_query("the lazy dog"), query, atol=1e-5)
        assert not np.allclose(query, reference.encode_document("the lazy dog", normalize_embeddings=True), atol=1e-3)

    def test_limits_leave_room_for_prompt_and_special_tokens(self, encoder: SentenceTransformerEncoder) -> None:
        assert encoder.max_tokens == 64 - 2 - 2  # [CLS], [SEP], "passage", ":"
        assert encoder.encode_documents(["fox " * 60]).shape == (1, 32)
        with pytest.raises(TextTooLong, match="a text has 61 tokens, but .* reads 60; cut it into chunks first"):
            encoder.encode_documents(["fox " * 61])
        with pytest.warns(UserWarning, match="the query has 100 tokens; .* reads the first 60"):
            encoder.encode_query("fox " * 100)

    def test_batches_side_by_side_give_what_one_gives(
        self, encoder: SentenceTransformerEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.get_num_threads", lambda: 3)
        texts = [f"the quick brown fox {n} jumps over the lazy dog {n * n}" for n in range(400)]
        together = encoder.encode_documents(texts)
        singly = np.concatenate([encoder.encode_documents([text]) for text in texts])
        np.testing.assert_allclose(together, singly, atol=2e-3 if encoder.precision == "bfloat16" else 1e-5)

    def test_batches_side_by_side_leave_other_threads_their_cores(self) -> None:
        """In a process of its own: what a thread may use is set once and for all. How fast: `bench encode`."""
        script = """if True:
            import os, threading, time, torch
            from pgneural.encoders import cpu_batches
            torch.set_num_threads(11)
            barrier, seen = threading.Barrier(8), []
            def look(batch):
                barrier.wait(100)  # eight at a time
                seen.append(torch.get_num_threads())
            cpu_batches.each(look, [[n] for n in range(8)])
            assert sorted(seen) == [1, 1, 1, 1, 1, 2, 2, 2], seen
            later = []
            thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
            thread.start(); thread.join()
            assert later == [11] and torch.get_num_threads() == 11, later
            torch.set_num_threads(2)
            def encode():
                ones, products = torch.ones(64, 64), []
                cpu_batches.each(lambda batch: products.append(ones @ ones), [[n] for n in range(9)])
                assert len(products) == 9
            encode()
            if os.fork() == 0:
                encode()
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
            def late():
                threading.main_thread().join()  # from now on Python starts no threads
                time.sleep(0.2)
                encode()
                print("encoded")
            threading.Thread(target=late).start()
        """
        ran = subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True, text=True)
        assert ran.stdout == "encoded\n"

    def test_an_error_in_one_batch_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.get_num_threads", lambda: 3)

        def refuse(batch: Sequence[int]) -> None:
            if batch[0] == 3:
                raise ValueError("cannot read 3")

        with pytest.raises(ValueError, match="cannot read 3"):
            cpu_batches.each(refuse, [[n] for n in range(10)])

    def test_matryoshka_dimensions(self, encoder: SentenceTransformerEncoder, tiny_model: Path) -> None:
        short = SentenceTransformerEncoder(tiny_model, dimensions=8, precision="float32", device="cpu")
        full, kept = encoder.encode_query("fox"), short.encode_query("fox")
        assert kept.shape == (8,)
        np.testing.assert_allclose(kept, full[:8] / np.linalg.norm(full[:8]), atol=1e-5)
        assert short.revision != encoder.revision
        with pytest.raises(DimensionMismatch, match="gives 32 dimensions, so 64 cannot be kept"):
            SentenceTransformerEncoder(tiny_model, dimensions=64, device="cpu")

    def test_prompts_change_the_revision(self, encoder: SentenceTransformerEncoder, tiny_model: Path) -> None:
        other = SentenceTransformerEncoder(tiny_model, query_prompt="search: ", precision="float32", device="cpu")
        assert other.revision != encoder.revision
        assert not np.allclose(other.encode_query("fox"), encoder.encode_query("fox"), atol=1e-4)

    def test_revision_follows_the_files(self, tiny_model: Path, tmp_path: Path) -> None:
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(tiny_model, copy)
        before = ModelFolder(copy).revision
        assert before == ModelFolder(tiny_model).revision
        (copy / "README.md").write_text("words only")
        assert ModelFolder(copy).revision == before
        (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
        assert ModelFolder(copy).revision != before

    def test_half_precision_is_refused_where_vectors_move(
        self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("pgneural.encoders.transformer.half_precision", lambda device: "bfloat16")
        monkeypatch.setattr("pgneural.encoders.precision.FIDELITY", 1.1)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        strict = SentenceTransformerEncoder(tiny_model, device="cpu")
        exact = SentenceTransformerEncoder(tiny_model, device="cpu", precision="float32")
        assert strict.precision == "float32"
        np.testing.assert_array_equal(strict.encode_query("fox"), exact.encode_query("fox"))
        monkeypatch.setattr("pgneural.encoders.transformer.in_precision", _nobody_tries)  # it is remembered
        assert SentenceTransformerEncoder(tiny_model, device="cpu").precision == "float32"

    def test_precision_is_tried_once_on_a_machine_and_not_for_a_query(
        self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("pgneural.encoders.transformer.half_precision", lambda device: "bfloat16")
        exact = SentenceTransformerEncoder(tiny_model, device="cpu", precision="float32")
        with monkeypatch.context() as without:
            without.setattr("pgneural.encoders.transformer.in_precision", _nobody_tries)
            asked = SentenceTransformerEncoder(tiny_model, device="cpu")
            np.testing.assert_array_equal(asked.encode_query("fox"), exact.encode_query("fox"))
        first = asked.encode_documents(["a fox"])
        assert asked.precision in ("bfloat16", "float32")
        key = key_of(asked.name, asked.revision, torch.device("cpu"), "bfloat16")
        assert recall(key) is (asked.precision == "bfloat16")
        remember(key, True)
        with monkeypatch.context() as without:
            without.setattr("pgneural.encoders.precision.remember", _nobody_tries)
            again = SentenceTransformerEncoder(tiny_model, device="cpu")
            assert again.precision == "bfloat16"
        np.testing.assert_allclose(again.encode_documents(["a fox"]), first, atol=1e-2)

    def test_precision_needs_no_folder_to_be_remembered_in(
        self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("pgneural.encoders.transformer.half_precision", lambda device: "bfloat16")
        file = tmp_path / "file"
        file.write_text("")
        for folder in (file, tmp_path):
            (tmp_path / "pgneural").mkdir(exist_ok=True)
            (tmp_path / "pgneural" / "precision.json").write_text("{[")
            monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
            encoder = SentenceTransformerEncoder(tiny_model, device="cpu")
            assert encoder.encode_documents(["a fox"]).shape == (1, encoder.dimensions)


def _nobody_tries(*_: object) -> None:
    raise AssertionError("nobody tries")


@pytest.mark.model
def test_minilm_precision_keeps_the_vectors() -> None:
    encoder = encoders.get("minilm", device="cpu")
    exact = encoders.get("minilm", device="cpu", precision="float32")
    texts = ["how do vaccines work", "Ein Satz.", "def f(x): return x", "spectral theory of hyperbolic surfaces " * 20]
    cosines = (encoder.encode_documents(texts) * exact.encode_documents(texts)).sum(axis=1)
    assert cosines.min() >= FIDELITY
