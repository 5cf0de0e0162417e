"""From chunks to rows, scores from ordinary columns, and examples in pairs: against references in Python."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgneural import Boost, Collection, Database, Document, Record
from pgneural.errors import InvalidFilter, InvalidQuery, UnknownDocument
from pgneural.types import Vector

WORDS = [f"w{letter}{number}" for letter in "abcdefgh" for number in range(8)]


def text_of(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(WORDS, words))


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def long(database: Database) -> Collection:
    """Documents of one to a dozen chunks; enough of them that searches go by the index."""
    rng = np.random.default_rng(4)
    made = database.collection("long", encoder="hash")
    made.index(
        Record(
            str(n), text_of(rng, int(rng.choice([60, 400, 1500]))), metadata={"n": n, "liked": n % 50, "day": n % 30}
        )
        for n in range(900)
    )
    return made


@pytest.fixture(scope="module")
def cosines(long: Collection) -> Any:
    """Return a function from a query to the cosines of the chunks of each document."""
    with long.searcher.engine.connect() as connection:
        rows = connection.execute(
            sa.select(Document.external_id, long.chunks.c.embedding).join(
                long.chunks, long.chunks.c.source_id == Document.id
            )
        ).all()

    def of(query: str) -> dict[str, list[float]]:
        vector = long.encoder.encode_query(query)
        found: dict[str, list[float]] = {}
        for id_, embedding in rows:
            found.setdefault(id_, []).append(float(np.asarray(embedding) @ vector))
        return found

    return of


WAYS: dict[str, Any] = {
    "max": max,
    "mean": np.mean,
    "sum": sum,
    "top2": lambda scores: np.mean(sorted(scores, reverse=True)[:2]),
    "top5": lambda scores: np.mean(sorted(scores, reverse=True)[:5]),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    way=st.sampled_from(sorted(WAYS)),
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    below=st.integers(1, 60),
    limit=st.integers(1, 30),
)
def test_aggregates_of_few_rows_are_exact(
    long: Collection, cosines: Any, way: str, words: list[str], below: int, limit: int
) -> None:
    query = " ".join(words)
    hits = long.search(query, mode="semantic", where=f"(metadata->>'n')::int < {below}", limit=limit, aggregate=way)
    scores = {id_: WAYS[way](found) for id_, found in cosines(query).items() if int(id_) < below}
    expected = sorted(scores.values(), reverse=True)[:limit]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-4)
    assert all(hit.score == pytest.approx(scores[hit.entity.external_id], abs=1e-4) for hit in hits)


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("mode", ["semantic", "hybrid"])
def test_aggregates_by_the_index(long: Collection, cosines: Any, way: str, mode: str) -> None:
    hits = long.search("wa1 wb2 wc3", mode=mode, aggregate=way, limit=20)
    scores = {id_: WAYS[way](found) for id_, found in cosines("wa1 wb2 wc3").items()}
    assert (len(hits), hits.strategy) == (20, "near")
    assert len({hit.entity.id for hit in hits}) == 20
    assert all(hit.legs["semantic"] == pytest.approx(scores[hit.entity.external_id], abs=1e-4) for hit in hits)
    best = {id_: max(found) for id_, found in cosines("wa1 wb2 wc3").items()}
    if mode == "semantic" and way == "max":
        assert sum(best[hit.entity.external_id] for hit in hits) >= 0.98 * sum(sorted(best.values())[-20:])


def test_pages_of_aggregates_neither_repeat_nor_lose(long: Collection) -> None:
    asked: Any = {"mode": "semantic", "aggregate": "mean", "limit": 100}
    pages = [long.search("wa1 wb2", **asked, offset=at) for at in range(0, 900, 100)]
    every = [hit.entity.id for page in pages for hit in page]
    assert len(every) == len(set(every)) == 900


def test_what_is_no_aggregate_is_told(long: Collection) -> None:
    for wrong in ("median", "top0", "max2", "top-1"):
        with pytest.raises(InvalidQuery, match="expected max, mean, sum, or top"):
            long.search("wa1", aggregate=wrong)
    with pytest.raises(InvalidQuery, match="of the semantic leg"):
        long.search("wa1", mode="lexical", aggregate="mean")
    with pytest.raises(InvalidQuery, match="threshold is of the best chunk"):
        long.search("wa1", aggregate="mean", max_distance=0.5)


def standard(values: dict[str, float]) -> dict[str, float]:
    mean, spread = np.mean([*values.values()]), np.std([*values.values()])
    return {id_: float((value - mean) / spread) if spread else 0.0 for id_, value in values.items()}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weight=st.integers(-30, 30).map(lambda tenths: tenths / 10), below=st.integers(2, 60), word=st.sampled_from(WORDS)
)
def test_boosts_are_scores_like_those_of_a_leg(
    long: Collection, cosines: Any, weight: float, below: int, word: str
) -> None:
    where = f"(metadata->>'n')::int < {below}"
    hits = long.search(word, mode="semantic", where=where, boosts={"(metadata->>'liked')::int": weight}, limit=60)
    ids = [str(n) for n in range(below)]
    near = standard({id_: max(found) for id_, found in cosines(word).items() if id_ in ids})
    liked = standard({id_: float(int(id_) % 50) for id_ in ids})
    scores = {id_: (2 * near[id_] + weight * liked[id_]) / (2 + abs(weight)) for id_ in ids}
    assert len(hits) == below
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-3)
    assert hits[0].legs["boost 1"] == int(hits[0].entity.external_id) % 50


def test_recency_and_popularity(long: Collection) -> None:
    at = "now() - (30 - (metadata->>'day')::int) * interval '1 day'"
    newest = long.search("wa1", mode="lexical", boosts=[Boost.recency(at, timedelta(days=2), 500)], limit=5)
    everywhere = long.search("wa1", mode="lexical", limit=900)
    pool = [hit.entity.metadata_["day"] for hit in everywhere[:200]]
    assert [hit.entity.metadata_["day"] for hit in newest] == sorted(pool, reverse=True)[:5]
    ancient = [Boost.recency("timestamptz '1900-01-01'", timedelta(seconds=1))]
    assert len(long.search("wa1", boosts=ancient, limit=5)) == 5
    popular = long.search("wa1", boosts=[Boost.popularity("(metadata->>'liked')::int", 50)], limit=5)
    assert {hit.entity.metadata_["liked"] for hit in popular} <= {45, 46, 47, 48, 49}
    unpopular = long.search("wa1", boosts=[Boost.popularity(Document.metadata_["liked"].as_integer(), -50)], limit=5)
    assert {hit.entity.metadata_["liked"] for hit in unpopular} <= {0, 1, 2}
    pages = [long.search("wa1", mode="lexical", boosts={"id": 1}, limit=50, offset=at) for at in range(0, 1000, 50)]
    every = [hit.entity.id for page in pages for hit in page]
    assert len(every) == len(set(every)) == len(everywhere)
    with pytest.raises(InvalidQuery, match="expected a positive one"):
        Boost.recency("now()", timedelta(0))
    with pytest.raises(InvalidFilter):
        long.search("wa1", boosts={"no_such_column": 1})


def test_discover(database: Database) -> None:
    rng = np.random.default_rng(1)
    stored = rng.normal(size=(300, 8)).astype(np.float32)
    made = database.collection("pairs", encoder="vectors:8")
    made.index(Record(str(n), "d", metadata={"n": n}, embedding=vector) for n, vector in enumerate(stored))
    pairs = [("0", "1"), ("2", "3"), ("4", "5")]
    target = rng.normal(size=8).astype(np.float32)

    def cosine(one: Vector, other: Vector) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    def sides(n: int) -> float:
        return sum(
            float(np.sign(cosine(stored[n], stored[int(good)]) - cosine(stored[n], stored[int(bad)])))
            for good, bad in pairs
        )

    hits = made.discover(target, pairs, limit=8, where="(metadata->>'n')::int < 90")
    among = range(6, 90)
    expected = sorted(among, key=lambda n: (-sides(n), -cosine(stored[n], target)))[:8]
    assert [int(hit.entity.external_id) for hit in hits] == expected
    assert [hit.legs["context"] for hit in hits] == [sides(n) for n in expected]
    assert len(made.discover(None, pairs, limit=5)) == 5
    with pytest.raises(InvalidQuery, match="needs a pair"):
        made.discover(target, [])
    with pytest.raises(UnknownDocument):
        made.discover(target, [("0", "none")])
