"""What is easily got wrong: skewed chunks, deep pages, others at work at the same time, options that do not fit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from pgneural import RRF, Boost, Collection, Database, LateInteraction, Record, Rerank, VectorIndex, WeightedSum
from pgneural.errors import (
    EncoderMismatch,
    InvalidFilter,
    InvalidIndex,
    InvalidName,
    InvalidQuery,
    PgneuralError,
    UnknownCollection,
)
from pgneural.types import Vector


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def skewed(database: Database) -> Collection:
    """Many short documents, and a dozen long ones whose chunks are all nearer to ``zz yy`` than any of them."""
    rng = np.random.default_rng(2)
    words = [f"w{n}" for n in range(400)]
    made = database.collection("skewed", encoder="hash")
    short = (Record(f"s{n}", " ".join(rng.choice(words, 6))) for n in range(2600))
    long = (Record(f"l{n}", "zz yy xx " * 4000) for n in range(12))
    made.index([*short, *long])
    return made


@pytest.fixture(scope="module")
def zipf(database: Database) -> Collection:
    """Words as frequent as in a language, so that pruning has something to prune."""
    rng = np.random.default_rng(3)
    frequencies = 1 / np.arange(1, 901)
    made = database.collection("zipf", encoder="hash")
    texts = rng.choice([f"w{n}" for n in range(900)], size=(5000, 20), p=frequencies / frequencies.sum())
    made.index(Record(str(n), " ".join(text)) for n, text in enumerate(texts))
    return made


WAYS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "reciprocal ranks": {"fusion": RRF()},
    "reciprocal ranks, boosted": {"fusion": RRF(), "boosts": {"id": 1}},
    "boosted": {"boosts": {"id": -1}},
    "words, boosted": {"mode": "lexical", "boosts": {"id": 1}},
    "meaning, boosted": {"mode": "semantic", "boosts": {"id": 1}},
    "meaning": {"mode": "semantic"},
}


@pytest.mark.parametrize("way", WAYS)
def test_pages_neither_repeat_nor_lose_rows_nor_come_short(skewed: Collection, zipf: Collection, way: str) -> None:
    for collection, query, among in ((skewed, "zz yy", None), (zipf, "w700 w0", None), (zipf, "w700 w0", "id % 3 > 0")):
        options = {**WAYS[way], "where": among, "limit": 25}
        pages = [collection.search(query, **options, offset=at) for at in range(0, 400, 25)]
        every = [hit.entity.id for page in pages for hit in page]
        assert len(every) == len(set(every))
        if WAYS[way].get("mode") != "lexical":
            assert len(every) == 400
            assert not any(page.exhausted for page in pages)


def test_lists_are_remembered(database: Database) -> None:
    stored = np.random.default_rng(1).normal(size=(20_000, 8)).astype(np.float32)
    made = database.collection("lists", encoder="vectors:8", index=VectorIndex("ivfflat"))
    made.reindex(VectorIndex("ivfflat"))  # of nothing: says nothing of how many there should be
    made.index(Record(str(n), "d", embedding=vector) for n, vector in enumerate(stored))
    assert database.existing("lists").space.vector_index["options"] == {"lists": 20}
    found = 0
    for query in stored[:20]:
        hits = made.search(query + 0.01, limit=10)
        nearest = np.argsort(-(stored @ query) / np.linalg.norm(stored, axis=1))[:10]
        found += len({int(hit.entity.external_id) for hit in hits} & set(nearest.tolist()))
    assert found >= 150


def test_another_client_s_changes_are_seen(database: Database) -> None:
    rng = np.random.default_rng(1)
    one = database.collection("two clients", encoder="vectors:8")
    one.index(Record(str(n), "d", embedding=v) for n, v in enumerate(rng.normal(size=(2100, 8)).astype(np.float32)))
    other = database.existing("two clients")
    other.reindex(VectorIndex("none"))
    one.index([])
    assert not next(c for c in database.status().collections if c.name == "two clients").indexed
    database.drop("two clients")
    made = database.collection("two clients", encoder="vectors:8")
    made.index(Record(str(n), "d", embedding=v) for n, v in enumerate(rng.normal(size=(2100, 8)).astype(np.float32)))
    for action in (
        lambda: one.reindex(VectorIndex("none")),
        lambda: one.index([]),
        lambda: one.like("1"),
        lambda: one.discover([1.0] * 8, [("1", "2")]),
        lambda: one.search([1.0] * 8),
        lambda: one.delete("1"),
    ):
        with pytest.raises(UnknownCollection, match="dropped after it was opened"):
            action()
    assert next(c for c in database.status().collections if c.name == "two clients").indexed


def test_reindex_lets_others_search_and_drop_waits_for_it(database: Database) -> None:
    stored = np.random.default_rng(1).normal(size=(3000, 8)).astype(np.float32)
    made = database.collection("busy", encoder="vectors:8")
    made.index(Record(str(n), "d", embedding=v) for n, v in enumerate(stored))
    with psycopg.connect(database.url) as idle:  # a transaction that has read the table, and does nothing
        idle.execute("SELECT count(*) FROM neural.documents_busy")
        builder = threading.Thread(target=made.reindex, args=(VectorIndex(precision="full"),))
        builder.start()
        for _ in range(10):
            assert len(database.existing("busy").search(stored[0], limit=5)) == 5
        idle.rollback()
    builder.join(60)
    assert not builder.is_alive()
    names = sa.text("SELECT indexname FROM pg_indexes WHERE tablename = 'documents_busy' ORDER BY 1")
    with database.engine.connect() as connection:
        assert list(connection.scalars(names)) == ["documents_busy_embedding_idx", "documents_busy_pkey"]
    failures: list[BaseException] = []

    def build() -> None:
        try:
            made.reindex(VectorIndex())
        except UnknownCollection:
            pass
        except BaseException as error:
            failures.append(error)

    builder = threading.Thread(target=build)
    builder.start()
    database.drop("busy")
    builder.join(60)
    assert not failures


def test_what_a_killed_rebuild_leaves_is_dropped(database: Database) -> None:
    made = database.collection("killed", encoder="vectors:8")
    made.index(Record("1", "d", embedding=np.ones(8, np.float32)))
    left = sa.text("CREATE INDEX documents_killed_embedding_new ON neural.documents_killed (ordinal)")
    with database.engine.begin() as connection:
        connection.execute(left)
    made.index([])
    gone = sa.text("SELECT to_regclass('neural.documents_killed_embedding_new') IS NULL")
    with database.engine.begin() as connection:
        assert connection.scalar(gone)


class Logits:
    """A reranker whose scores are all below 0."""

    def score(self, query: str, texts: Sequence[str]) -> Vector:
        return np.array([-10 - len(text) for text in texts], dtype=np.float32)


def test_diverse_hits_are_of_those_that_were_reranked(zipf: Collection) -> None:
    reranked = zipf.search("w3 w9", limit=10, rerank=Rerank(Logits(), candidates=20), diversity=0.01)
    assert all("rerank" in hit.legs for hit in reranked)
    assert [hit.score for hit in reranked] == sorted((hit.score for hit in reranked), reverse=True)


def test_pairs_are_compared_as_the_collection_compares(database: Database) -> None:
    made = database.collection("plane", encoder="vectors:2", distance="l2")
    points = {"good": (1, 0), "bad": (10, 0.1), "near bad": (9, 0), "near good": (1, 0.3)}
    made.index(Record(name, "d", embedding=np.array(at, np.float32)) for name, at in points.items())
    hits = made.discover([0.0, 0.0], [("good", "bad")])
    assert [(hit.entity.external_id, hit.legs["context"]) for hit in hits] == [("near good", 1), ("near bad", -1)]


def test_very_many_ids(database: Database) -> None:
    made = database.collection("ids", encoder="hash")
    made.index([Record("1", "fox")])
    assert made.delete([str(n) for n in range(70_000)]) == 1


def test_groups_and_facets_of_lists(database: Database) -> None:
    made = database.collection("tags", encoder="hash")
    made.index(Record(str(n), "fox", metadata={"tags": ["a", "b"] if n % 2 else ["a"]}) for n in range(10))
    assert made.facets("metadata->'tags'") == {'["a", "b"]': 5, '["a"]': 5}
    assert made.facets("string_to_array(title, 'x')") == {"[]": 10}
    assert len(made.search("fox", group_by="metadata->'tags'")) == 2


def test_languages_that_do_not_work_are_told(database: Database) -> None:
    for wrong in ("max(title)", "no_such.metadata"):
        with pytest.raises(InvalidFilter, match="language_by does not work"):
            database.collection("tongue", encoder="hash", language_by=wrong)
    made = database.collection("{language_by}", encoder="hash", language_by="documents.metadata->>'lang' --")
    made.index([Record("1", "running", metadata={"lang": ""}), Record("2", "running", metadata={"lang": "simple"})])
    assert [hit.entity.external_id for hit in made.search("run", mode="lexical")] == ["1"]
    made = database.collection("cast", encoder="hash", language_by="(metadata->>'n')::int::text")
    with pytest.raises(InvalidFilter, match="does not work for a document: invalid input syntax"):
        made.index([Record("1", "fox", metadata={"n": "x"})])


def test_names_of_further_tables_are_free(database: Database, tiny_sparse: Any) -> None:
    database.collection("a_sparse", encoder="hash")
    with pytest.raises(InvalidName, match="already has a relation"):
        database.collection("a", encoder="hash", sparse=tiny_sparse)


REFUSED: dict[str, tuple[dict[str, Any], type[PgneuralError]]] = {
    "no option 'limits'": ({"limits": 3}, InvalidQuery),
    "expected a WeightedSum or an RRF": ({"fusion": "rrf"}, InvalidQuery),
    "mode semantic has one": ({"fusion": RRF(), "mode": "semantic"}, InvalidQuery),
    "has no distance; use min_score": ({"max_distance": 1, "mode": "lexical"}, InvalidQuery),
    "leave it out": ({"aggregate": "mean", "min_score": 0.3}, InvalidQuery),
    "expected max, mean": ({"aggregate": "top99999999999"}, InvalidQuery),
    "limit is 2.5": ({"limit": 2.5}, InvalidQuery),
    "limit is None": ({"limit": None}, InvalidQuery),
    "candidates is 0": ({"rerank": LateInteraction(0)}, InvalidQuery),
}


@pytest.mark.parametrize("message", REFUSED)
def test_options_that_do_not_fit_are_refused(zipf: Collection, message: str) -> None:
    options, error = REFUSED[message]
    with pytest.raises(error, match=message):
        zipf.search("w1", **options)


def test_explain_takes_what_the_statement_does(zipf: Collection) -> None:
    with pytest.raises(InvalidQuery, match="come after it"):
        zipf.explain("w1", diversity=0.5)
    assert zipf.explain("w1", boosts={"id": 1}, aggregate="top2").hits


def test_numbers_that_make_no_score_are_refused(zipf: Collection) -> None:
    for make in (
        lambda: WeightedSum(semantic=float("nan")),
        lambda: RRF(constant=-1),
        lambda: Boost("id", float("inf")),
    ):
        with pytest.raises(InvalidQuery, match="expected"):
            make()
    hits = zipf.search("w1", boosts=[Boost("CASE WHEN id % 2 = 0 THEN 'NaN'::float8 ELSE id END")], limit=20)
    assert all(np.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": {"options": {"m": 1}}}, "m is 1, expected 2 to 100"),
        ({"index": {"options": {"m": "x"}}}, "m is 'x'"),
        ({"index": {"options": {"m": 60, "ef_construction": 100}}}, "at least twice m"),
        ({"index": {"dimensions": 0}}, "dimensions is 0"),
        ({"storage": "sparsevec"}, "storage is 'sparsevec', expected vector, halfvec, bit"),
        ({"storage": "foo"}, "storage is 'foo'"),
        ({"encoder": "vectors:20000"}, "holds 16,000 dimensions"),
    ],
)
def test_what_cannot_be_stored_or_indexed_is_refused(database: Database, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidIndex, match=message):
        index = VectorIndex(**options.pop("index")) if "index" in options else None
        database.collection("refused", **{"encoder": "vectors:8", **options}, index=index)


def test_large_m_builds(database: Database) -> None:
    stored = np.random.default_rng(1).normal(size=(2100, 8)).astype(np.float32)
    made = database.collection("large m", encoder="vectors:8", index=VectorIndex(options={"m": 100}))
    made.index(Record(str(n), "d", embedding=v) for n, v in enumerate(stored))
    assert next(c for c in database.status().collections if c.name == "large m").indexed


def test_vectors_that_vanish_in_16_bits(database: Database) -> None:
    made = database.collection("tiny", encoder="vectors:3", storage="halfvec")
    tiny = np.array([1e-9, 0, 0], np.float32)
    assert "zero in the 16 bits" in made.index([Record("1", "d", embedding=tiny)]).bad[0].reason
    with pytest.raises(InvalidQuery, match="zero in the 16 bits"):
        made.search(tiny)
    far = database.collection("far", encoder="vectors:3", distance="l2")
    with pytest.raises(InvalidQuery, match="not finite"):
        far.search([float("nan"), 0, 0])


def test_a_collection_that_exists_is_not_made_otherwise(database: Database) -> None:
    database.collection("made", encoder="vectors:3", distance="l2")
    assert database.collection("made", encoder="vectors:3", distance="l2").space.distance == "l2"
    with pytest.raises(EncoderMismatch, match="made with distance l2, not cosine"):
        database.collection("made", distance="cosine")
    with pytest.raises(InvalidIndex, match="has vector columns"):
        database.collection("made", storage="halfvec")
    with pytest.raises(InvalidIndex, match="call its reindex"):
        database.collection("made", index=VectorIndex("none"))
