"""Queries made of many things: weighted terms, documents to be like and unlike, diverse hits, counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pgneural import Collection, CrossEncoderReranker, Database, Document, Hits, Record, Rerank
from pgneural.diversify import mmr
from pgneural.errors import EncoderUnavailable, InvalidFilter, InvalidQuery, UnknownDocument
from pgneural.types import Vector


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def compass(database: Database) -> Collection:
    """Points by direction; ``copy`` numbers those that are all but the same."""
    collection = database.collection("compass", encoder="vectors:2")
    rng = np.random.default_rng(0)
    directions = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0), "north east": (1, 1)}
    for name, direction in directions.items():
        points = np.array(direction, np.float32) + rng.normal(0, 0.01, (20, 2)).astype(np.float32)
        collection.index(
            Record(f"{name} {n}", f"the {name}", metadata={"side": name, "copy": n}, embedding=point)
            for n, point in enumerate(points)
        )
    return collection


def sides(hits: Hits) -> list[str]:
    return [hit.entity.metadata_["side"] for hit in hits]


def test_weighted_terms(database: Database) -> None:
    animals = database.collection("animals", encoder="hash")
    animals.index([Record("both", "jaguar car"), Record("cat", "jaguar cat"), Record("road", "car road")])
    assert animals.search({"jaguar": 1, "car": -0.9}, limit=1)[0].entity.external_id == "cat"
    assert animals.search({"jaguar": 1, "car": 0.9}, limit=1)[0].entity.external_id == "both"
    assert {hit.entity.external_id for hit in animals.search({"jaguar": 1, "car": -1}, mode="lexical")} == {
        "both",
        "cat",
    }
    with pytest.raises(InvalidQuery, match="no terms"):
        animals.search({})
    with pytest.raises(InvalidQuery, match="zero or not finite"):
        animals.search({"jaguar": 0.0})


def test_recommend(compass: Collection) -> None:
    assert set(sides(compass.recommend(["north 0", "east 0"], limit=10))) == {"north east"}
    away = compass.recommend(["north 0", "east 0"], ["east 1"], limit=15)
    assert set(sides(away)) == {"north"}
    found = compass.recommend(["north 0"], ["south 0"], limit=100)
    assert len(found) == 98
    assert not {"north 0", "south 0"} & {hit.entity.external_id for hit in found}
    only = compass.recommend(["north 0"], where=Document.metadata_["side"].astext == "west", limit=5)
    assert set(sides(only)) == {"west"}
    first, second = (compass.recommend(["north 0"], limit=5, offset=offset) for offset in (0, 5))
    assert not {hit.entity.id for hit in first} & {hit.entity.id for hit in second}
    with pytest.raises(UnknownDocument, match="no document 'nowhere'"):
        compass.recommend(["north 0"], ["nowhere"])
    with pytest.raises(InvalidQuery, match="needs a positive document"):
        compass.recommend([])


def test_diverse_hits(compass: Collection) -> None:
    alike = compass.search([0.2, 1.0], limit=4)
    assert set(sides(alike)) == {"north"}
    diverse = compass.search([0.2, 1.0], limit=4, diversity=0.7)
    assert diverse[0].entity.id == alike[0].entity.id
    assert len(set(sides(diverse))) >= 3
    assert [hit.rank for hit in diverse] == [1, 2, 3, 4]
    with pytest.raises(InvalidQuery, match="diversity is 1.5"):
        compass.search([0.0, 1.0], diversity=1.5)
    with pytest.raises(InvalidQuery, match="have no pages"):
        compass.search([0.0, 1.0], diversity=0.5, offset=10)
    assert compass.search([0.0, 1.0], where="false", diversity=0.5) == []


class ByLength:
    """Prefers short texts, and is as slow as it is told to be."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.read = seconds, 0

    def score(self, query: str, texts: Sequence[str]) -> Vector:
        time.sleep(self.seconds)
        self.read += len(texts)
        return np.array([-len(text) for text in texts], np.float32)


def test_rerank(database: Database) -> None:
    tales = database.collection("tales", encoder="hash")
    tales.index(Record(str(n), "fox " * (n + 1), title="t") for n in range(60))
    plain = tales.search("fox", limit=60)
    reranked = tales.search("fox", limit=5, rerank=ByLength())
    best = sorted(plain[:50], key=lambda hit: len(hit.chunk.text))[:5]
    assert [hit.entity.id for hit in reranked] == [hit.entity.id for hit in best]
    assert [hit.rank for hit in reranked] == [1, 2, 3, 4, 5]
    assert all(hit.legs["rerank"] == hit.score and "semantic" in hit.legs for hit in reranked)
    slow = ByLength(0.05)
    hits = tales.search("fox", limit=50, rerank=Rerank(slow, candidates=50, seconds=0.01))
    assert slow.read == 16  # one batch, and the budget is spent
    assert [hit.entity.id for hit in hits[16:]] == [hit.entity.id for hit in plain[16:50]]
    assert len(tales.search("fox", limit=60, rerank=Rerank(ByLength(), candidates=20))) == 60
    with pytest.raises(InvalidQuery, match="have no pages"):
        tales.search("fox", rerank=ByLength(), offset=10)
    with pytest.raises(InvalidQuery, match="rerank needs a text"):
        tales.search([1.0] * tales.space.dimensions, rerank=ByLength())


def test_rerank_by_a_cross_encoder(database: Database, tiny_cross_encoder: Path, tmp_path: Path) -> None:
    foxes = database.collection("foxes", encoder="hash")
    foxes.index(Record(str(n), text) for n, text in enumerate(["quick fox", "lazy dog", "brown fox jumps", "vaccines"]))
    hits = foxes.search("fox", limit=4, rerank=str(tiny_cross_encoder))
    model = CrossEncoderReranker(tiny_cross_encoder)
    expected = {hit.entity.id: float(model.score("fox", [hit.chunk.text])[0]) for hit in hits}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [hit.score for hit in hits] == pytest.approx([expected[hit.entity.id] for hit in hits], abs=1e-5)
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        foxes.search("fox", rerank=tmp_path / "nothing")


@given(
    vectors=arrays.arrays(np.float32, (6, 3), elements=st.floats(-1, 1, width=32)),
    scores=st.lists(st.floats(-5, 5), min_size=6, max_size=6),
    k=st.integers(0, 8),
    diversity=st.floats(0, 1),
)
@settings(deadline=None)
def test_mmr_chooses_each_once_and_begins_with_the_best(
    vectors: Any, scores: list[float], k: int, diversity: float
) -> None:
    chosen = mmr(scores, vectors, k, diversity)
    assert len(set(chosen)) == len(chosen) == min(k, 6)
    if chosen and diversity < 1:
        assert scores[chosen[0]] == pytest.approx(max(scores))
    if diversity == 0:
        assert [scores[at] for at in chosen] == pytest.approx(sorted(scores, reverse=True)[:k])


def test_few_of_each_group(compass: Collection) -> None:
    side = Document.metadata_["side"].astext
    best = compass.search([0.2, 1.0], limit=5, group_by=side)
    assert sorted(sides(best)) == ["east", "north", "north east", "south", "west"]
    assert best[0].entity.id == compass.search([0.2, 1.0], limit=1)[0].entity.id
    pairs = compass.search([0.2, 1.0], limit=6, group_by="metadata->>'side'", per_group=2)
    assert Counter(sides(pairs)).most_common() == [("north", 2), ("north east", 2), ("east", 2)]
    all_ = compass.search([0.2, 1.0], limit=50, group_by=side, per_group=3)
    assert (len(all_), all_.exhausted) == (15, True)
    with pytest.raises(InvalidQuery, match="per_group is 0"):
        compass.search([0.2, 1.0], group_by=side, per_group=0)
    with pytest.raises(InvalidFilter, match="no_such_column"):
        compass.search([0.2, 1.0], group_by="no_such_column")


def test_facets(compass: Collection) -> None:
    assert compass.facets(Document.metadata_["side"].astext) == dict.fromkeys(
        ("east", "north", "north east", "south", "west"), 20
    )
    by_word = compass.facets("metadata->>'side'", query="north")
    assert by_word == {"north": 20, "north east": 20}
    filtered = compass.facets("(metadata->>'copy')::int % 2", where="metadata->>'side' = 'west'", query="west east")
    assert Counter(filtered) == {0: 10, 1: 10}
    assert len(compass.facets(Document.external_id, limit=7)) == 7
    with pytest.raises(InvalidFilter, match="no_such_column"):
        compass.facets("no_such_column")
