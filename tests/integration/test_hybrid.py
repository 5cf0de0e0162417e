"""Hybrid search: against a plain reference in Python, page by page, under thresholds, never short."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgneural import RRF, Collection, Database, Document, Hits, Record, WeightedSum
from pgneural.statement.fusion import LEAST_SPREAD
from tests.integration.test_lexical import bm25, mean_length, zipf


def ids(hits: Hits) -> list[str]:
    return [hit.entity.external_id for hit in hits]


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def many(database: Database) -> Collection:
    collection = database.collection("many", encoder="hash", language="simple")
    collection.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(zipf(1, 5000)))
    return collection


def distances(collection: Collection, query: str) -> dict[str, float]:
    """Return the cosine distance of the nearest chunk of each document."""
    chunks, vector = collection.chunks, collection.encoder.encode_query(query)
    nearest = sa.func.min(chunks.c.embedding.cosine_distance(vector))
    statement = sa.select(Document.external_id, nearest).join(chunks, chunks.c.source_id == Document.id)
    with collection.searcher.engine.connect() as connection:
        rows = connection.execute(statement.where(Document.collection == collection.name).group_by(Document.id))
        return {row[0]: float(row[1]) for row in rows}


def standard(values: Any, least: float) -> Any:
    spread = max(values.std(), least)
    return (values - values.mean()) / spread if spread > 0 else values * 0


def fused(near: dict[str, float], words: dict[str, float], ideal: float, fusion: WeightedSum) -> dict[str, float]:
    """Fuse as the documentation says; small tables are all pool."""
    keys = sorted(near)
    semantic = standard(np.array([1 - near[key] for key in keys]), 0)
    lexical = standard(np.array([words.get(key, 0) / ideal for key in keys]), LEAST_SPREAD)
    weights = fusion.weight("semantic"), fusion.weight("lexical")
    total = (weights[0] * semantic + weights[1] * lexical) / sum(weights)
    return dict(zip(keys, map(float, total), strict=True))


@given(
    texts=st.lists(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=9
    ),
    words=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True),
    limit=st.integers(1, 10),
    offset=st.integers(0, 3),
    keep=st.integers(1, 3),
    weight=st.sampled_from([0.5, 2.0]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_the_reference(
    database: Database, texts: list[str], words: list[str], limit: int, offset: int, keep: int, weight: float
) -> None:
    if any(status.name == "small" for status in database.status().collections):
        database.drop("small")
    small = database.collection("small", encoder="hash", language="simple")
    small.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(texts))
    query, where = " ".join(words), f"(metadata->>'n')::int % {keep} = 0"
    every = {str(n): text for n, text in enumerate(texts)}
    near = {id_: distance for id_, distance in distances(small, query).items() if int(id_) % keep == 0}
    scores = {id_: score for id_, score in bm25(every, query, mean_length(small)).items() if id_ in near}
    ideal = sum(np.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for n in (sum(w in t for t in texts) for w in words))
    expected = fused(near, scores, float(ideal), WeightedSum(semantic=weight))
    hits = small.search(query, where=where, limit=limit, offset=offset, fusion=WeightedSum(semantic=weight))
    wanted = sorted(expected.values(), reverse=True)[offset : offset + limit]
    assert [hit.score for hit in hits] == pytest.approx(wanted, abs=2e-3)
    for hit in hits:
        id_ = hit.entity.external_id
        assert hit.score == pytest.approx(expected[id_], abs=2e-3)
        assert hit.legs["semantic"] == pytest.approx(1 - near[id_], abs=1e-5)
        assert hit.legs["lexical"] == pytest.approx(scores.get(id_, 0), rel=1e-4)


def test_reciprocal_ranks(database: Database) -> None:
    notes = database.collection("notes", encoder="hash")
    notes.index([Record("a", "fox"), Record("b", "fox hound"), Record("c", "cat")])
    hits = notes.search("fox", fusion=RRF(constant=10, lexical=3))
    assert [hit.score for hit in hits][:2] == pytest.approx([1 / 11 + 3 / 11, 1 / 12 + 3 / 12])
    assert ids(hits) == ["a", "b", "c"]


@pytest.mark.parametrize("mode", ["semantic", "lexical", "hybrid"])
@pytest.mark.parametrize("where", [None, "(metadata->>'n')::int % 2 = 0", "(metadata->>'n')::int % 50 = 0"])
def test_pages_neither_repeat_nor_lose(many: Collection, mode: str, where: str | None) -> None:
    query, length = "wbz wcz waa wdb", 20
    pages = [
        many.search(query, mode=mode, where=where, limit=length, offset=offset) for offset in range(0, 400, length)
    ]
    found = [id_ for page in pages for id_ in ids(page)]
    assert len(set(found)) == len(found)
    passing = {None: 5000, "(metadata->>'n')::int % 2 = 0": 2500}.get(where, 100)
    if mode != "lexical":
        assert len(found) == min(400, passing)
    ranks = [hit.rank for page in pages for hit in page]
    assert ranks == list(range(1, len(ranks) + 1))
    assert [page.exhausted for page in pages] == [len(page) < length for page in pages]


def test_hybrid_finds_what_one_leg_misses(many: Collection, database: Database) -> None:
    many.index([Record("needle", "xylophone " + zipf(8, 1)[0], metadata={"n": -1})])
    assert "needle" in ids(many.search("xylophone", limit=3))
    many.delete("needle")


@pytest.mark.parametrize("mode", ["semantic", "hybrid"])
def test_thresholds(many: Collection, mode: str) -> None:
    query = "wbz wcz waa wdb"
    every = many.search(query, mode=mode, limit=10)
    bar = every[4].score
    above = many.search(query, mode=mode, limit=10, min_score=bar)
    assert ids(above) == ids(every)[:5]
    assert above.exhausted
    nearest = max(hit.legs["semantic"] for hit in every)
    assert many.search(query, mode=mode, limit=10, max_distance=(1 - nearest) / 2) == []
    within = 1 - sorted((hit.legs["semantic"] for hit in every), reverse=True)[2] + 1e-6
    near = many.search(query, mode=mode, limit=10, max_distance=within)
    expected = {id_ for id_, distance in distances(many, query).items() if distance <= within}
    assert set(ids(near)) == expected
    assert len(expected) >= 3
    assert near.exhausted


def test_a_threshold_that_nothing_meets_does_not_run_away(many: Collection) -> None:
    from pgneural.statement import Page, Query, Threshold
    from pgneural.types import Mode

    vector = many.encoder.encode_query("wbz wcz")
    seen = {}
    for max_distance in (None, 1e-9):
        with many.searcher.engine.connect() as connection:
            asked = Query(Mode.SEMANTIC, Page(10), {"semantic": vector}, threshold=Threshold(max_distance))
            select = asked.select(many.searcher.target(connection))
            compiled = select.compile(dialect=connection.dialect)
            plan: Any = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}", compiled.params
            ).scalar()
        seen[max_distance] = _rows(plan[0]["Plan"], "CTE near")
    assert seen[1e-9] == seen[None] > 0


def _rows(plan: dict[str, Any], name: str) -> int:
    found = int(plan["Actual Rows"]) if plan.get("Subplan Name") == name else 0
    return found + sum(_rows(child, name) for child in plan.get("Plans", []))


def test_ties_are_decided_by_the_key(database: Database) -> None:
    same = database.collection("same", encoder="hash")
    numbers = random.Random(1).sample(range(100), 40)
    same.index(Record(str(n), "the same text again") for n in numbers)
    for mode in ("semantic", "lexical", "hybrid"):
        first, second = (ids(same.search("same text", mode=mode, limit=25)) for _ in range(2))
        assert first == second
        assert len(set(first)) == 25
