"""Content of any modality: who adds one adds a chunker and an encoder, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from pgneural import Chunk, Database, Record
from pgneural.chunkers import CHUNKERS, Lengths, cut
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import RefusedRecords, UnsupportedContent
from pgneural.types import Content, Encoder, EncoderInput, Modality, Vector, fingerprint


@dataclass(frozen=True)
class Shapes(HashEncoder):
    """An encoder of texts and of meshes, which it knows by their bytes."""

    modalities: frozenset[Modality] = frozenset({Modality.TEXT, Modality.VIDEO})

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        texts = [item.decode() if isinstance(item, bytes) else item for item in items]
        return super().encode_documents(texts)


def halves_of(content: Content, _: Encoder, __: Lengths) -> list[Chunk]:
    """Cut a mesh into its halves."""
    data = (content.uri or "").encode()
    halves = [data[: len(data) // 2], data[len(data) // 2 :]]
    return [Chunk("", {"region": [n, 0, n + 1, 1]}, half, fingerprint(half)) for n, half in enumerate(halves)]


def test_a_modality_is_added_by_a_chunker_and_an_encoder(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = db.collection("mixed", encoder=Shapes())
    clip = Record("p", "", "A fox", uri="red fox grey owl", modality=Modality.VIDEO)
    refused = mixed.index([clip, Record("t", "a red fox")])
    assert [str(bad) for bad in refused.bad] == [
        "item 1: modality video cannot be encoded here, expected audio, image, mesh, text; give a vector instead"
    ]
    monkeypatch.setitem(CHUNKERS, Modality.VIDEO, halves_of)
    assert mixed.index([clip]).chunks_encoded == 2
    assert mixed.index([clip]).unchanged == 1
    (hit,) = mixed.search("grey owl", mode="semantic", where="external_id = 'p'")
    assert hit.chunk.locator == {"region": [1, 0, 2, 1]}
    assert hit.chunk.text == ""
    assert {hit.entity.external_id for hit in mixed.search("fox")} == {"p", "t"}
    with pytest.raises(UnsupportedContent, match="hash does not accept video; it accepts text"):
        cut(clip.body, HashEncoder(), Lengths(8, 0))


def test_a_vector_needs_no_chunker(db: Database) -> None:
    given = db.collection("ready", encoder="vectors:2")
    vector = np.array([1, 0], dtype=np.float32)
    report = given.index([Record("p", "", "A fox", modality=Modality.IMAGE, embedding=vector)], bad_records="refuse")
    assert report.inserted == 1
    with pytest.raises(RefusedRecords):
        db.collection("texts", encoder="hash").index(
            [Record("p", "", "A fox", modality=Modality.VIDEO)], bad_records="refuse"
        )


def test_a_digest_changes_with_whatever_is_encoded() -> None:
    array = np.zeros((2, 2), dtype=np.uint8)
    contents = [
        Content(Modality.TEXT, "a"),
        Content(Modality.TEXT, "b"),
        Content(Modality.TEXT, "a", "title"),
        Content(Modality.IMAGE, b"a"),
        Content(Modality.AUDIO, b"a"),
        Content(Modality.IMAGE, array),
        Content(Modality.IMAGE, array + 1),
        Content(Modality.IMAGE, None, uri="a.png"),
        Content(Modality.IMAGE, None, uri="b.png"),
    ]
    assert len({content.digest for content in contents}) == len(contents)
    assert Content(Modality.TEXT, "a", uri="x").digest == Content(Modality.TEXT, "a", uri="y").digest
    assert Content(Modality.IMAGE, array).digest == Content(Modality.IMAGE, array.copy()).digest
