"""Searching: against a plain reference in Python, under any filter, never short, by the index where it must."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgneural import Collection, Database, Document, Record
from pgneural.documents import DocumentRows
from pgneural.errors import DimensionMismatch, InvalidFilter, UnknownDocument
from pgneural.types import Mode, Vector

DIMENSIONS = 16
ROWS = 6000


def vectors(seed: int, n: int) -> Vector:
    """Return unit vectors in a few clusters, as real embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, DIMENSIONS))
    points = centres[rng.integers(0, 40, n)] + 0.7 * rng.normal(size=(n, DIMENSIONS))
    normalised: Vector = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return normalised


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def points(database: Database) -> Collection:
    """6,000 documents with an index; ``n`` counts them, ``half`` is the sign of the first dimension."""
    collection = database.collection("points", encoder=f"vectors:{DIMENSIONS}")
    stored = vectors(1, ROWS)
    collection.index(
        Record(str(n), f"document {n}", metadata={"n": n, "half": bool(vector[0] > 0)}, embedding=vector)
        for n, vector in enumerate(stored)
    )
    return collection


def reference(query: Vector, keep: Any, k: int) -> list[str]:
    stored = vectors(1, ROWS)
    kept = [n for n in range(ROWS) if keep(n, stored[n])]
    return [str(n) for n in sorted(kept, key=lambda n: (1 - float(stored[n] @ query), n))[:k]]


def ids(hits: Any) -> list[str]:
    return [hit.entity.external_id for hit in hits]


FILTERS = {
    "all": (None, lambda n, v: True, "near"),
    "half": ("(metadata->>'n')::int % 2 = 0", lambda n, v: n % 2 == 0, "near"),
    "correlated": ("(metadata->>'half')::bool", lambda n, v: v[0] > 0, "near"),
    "tenth": ("(metadata->>'n')::int % 10 = 0", lambda n, v: n % 10 == 0, "exact"),
    "hundredth": ("(metadata->>'n')::int % 100 = 0", lambda n, v: n % 100 == 0, "exact"),
    "five": ("(metadata->>'n')::int < 5", lambda n, v: n < 5, "exact"),
    "none": ("false", lambda n, v: False, ""),
}


@pytest.mark.parametrize("name", FILTERS)
def test_never_short_and_near_the_exact_answer(points: Collection, name: str) -> None:
    where, keep, strategy = FILTERS[name]
    found = wanted = 0
    for query in vectors(2, 25):
        hits, expected = points.search(query, where=where, limit=10), reference(query, keep, 10)
        assert len(hits) == len(expected)
        assert hits.exhausted == (len(expected) < 10)
        assert hits.strategy == strategy
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        found, wanted = found + len(set(ids(hits)) & set(expected)), wanted + len(expected)
        if strategy != "near":
            assert set(ids(hits)) == set(expected)
    assert found >= 0.97 * wanted


def test_fallback_when_the_index_scan_gives_up(points: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgneural.statement.probe.EXACT_CHUNKS", 10)
    monkeypatch.setattr("pgneural.statement.vector_leg.EF_SEARCH", 10)
    monkeypatch.setattr("pgneural.statement.vector_leg.MAX_SCAN_TUPLES", 1)
    strategies = set()
    points.searcher.forget_statements()  # it keeps the statements that it has built
    for query in vectors(2, 10):
        hits = points.search(query, where="(metadata->>'n')::int % 200 = 0", limit=10)
        assert ids(hits) == reference(query, lambda n, v: n % 200 == 0, 10)
        strategies.add(hits.strategy)
    points.searcher.forget_statements()
    assert strategies == {"fallback"}


def test_never_short_for_many_rows(points: Collection) -> None:
    query = vectors(2, 1)[0]
    hits = points.search(query, where="(metadata->>'n')::int % 2 = 0", limit=2600)
    assert (len(hits), hits.exhausted) == (2600, False)
    assert len(set(ids(hits))) == 2600
    every = points.search(query, where="(metadata->>'n')::int % 2 = 0", limit=100_000)
    assert (len(every), every.exhausted) == (3000, True)


def test_settings_end_with_the_transaction(points: Collection, database: Database) -> None:
    points.search(vectors(2, 1)[0])
    for _ in range(3):
        with database.engine.connect() as connection:
            connection.execute(sa.text("SELECT '[1]'::vector"))  # pgvector, and its settings, are there from now on
            assert connection.scalar(sa.text("SHOW hnsw.iterative_scan")) == "off"


def test_any_sqlalchemycondition(points: Collection) -> None:
    query = vectors(3, 1)[0]
    other = sa.orm.aliased(Document)
    conditions = {
        Document.metadata_["n"].as_integer().between(10, 500): lambda n, v: 10 <= n <= 500,
        Document.external_id.in_(["1", "2", "3"]): lambda n, v: n in (1, 2, 3),
        Document.metadata_.contains({"half": True}): lambda n, v: v[0] > 0,
        Document.uri.is_(None) & (Document.title == ""): lambda n, v: True,
        sa.exists().where(other.id == Document.id, other.content.like("%77")): lambda n, v: str(n).endswith("77"),
    }
    for where, keep in conditions.items():
        expected = reference(query, keep, 5)
        assert len(set(ids(points.search(query, where=where, limit=5))) & set(expected)) >= len(expected) - 1


@given(
    texts=st.lists(st.text("abc ", min_size=1, max_size=1500).filter(str.strip), min_size=1, max_size=8),
    k=st.integers(1, 10),
    keep=st.integers(1, 3),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_the_reference_for_any_small_table(database: Database, texts: list[str], k: int, keep: int) -> None:
    if any(status.name == "small" for status in database.status().collections):
        database.drop("small")
    small = database.collection("small", encoder="hash")
    small.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(texts))
    query = small.encoder.encode_query("ab bc")
    with database.engine.connect() as connection:
        chunks = small.chunks
        rows = connection.execute(
            sa.select(Document.external_id, chunks.c.embedding).join(chunks, chunks.c.source_id == Document.id)
        ).all()
    best: dict[str, float] = {}
    for external_id, embedding in rows:
        if int(external_id) % keep == 0:
            best[external_id] = max(best.get(external_id, -2), float(np.asarray(embedding, np.float32) @ query))
    hits = small.search("ab bc", mode="semantic", where=f"(metadata->>'n')::int % {keep} = 0", limit=k)
    assert len(hits) == min(k, len(best))
    assert len(set(ids(hits))) == len(hits)
    np.testing.assert_allclose([hit.score for hit in hits], sorted(best.values(), reverse=True)[:k], atol=1e-5)
    for hit in hits:
        assert best[hit.entity.external_id] == pytest.approx(hit.score, abs=1e-5)


def test_k_distinct_documents_when_one_has_all_the_near_chunks(database: Database) -> None:
    books = database.collection("books", encoder="hash")
    chapter = " ".join(f"The quick brown fox jumps, number {n}." for n in range(30_000))
    books.index([Record("fox", chapter), *(Record(str(n), f"Lazy dog {n} sleeps.") for n in range(2500))])
    hits = books.search("the quick brown fox jumps", limit=10)
    assert len(set(ids(hits))) == 10
    assert hits[0].entity.external_id == "fox"


def test_hits_tell_chunk_and_snippet(database: Database) -> None:
    tales = database.collection("tales", encoder="hash")
    filler = "Nothing of note happened that day in the village by the sea. " * 60
    tales.index([Record("1", filler + "Then a unicorn appeared.", title="Tale")])
    (hit,) = tales.search("unicorn appeared", mode="semantic", limit=1)
    assert "unicorn" in hit.chunk.text
    start, stop = hit.chunk.locator["content"]
    assert hit.entity.content[start:stop] == hit.chunk.text
    assert hit.legs == {"semantic": hit.score}
    assert len(hit.chunk.snippet(50)) <= 52


def test_like_leaves_the_document_itself_out(points: Collection) -> None:
    stored = vectors(1, ROWS)
    hits = points.like("17", limit=5)
    assert "17" not in ids(hits)
    expected = reference(stored[17], lambda n, v: n != 17, 5)
    assert len(set(ids(hits)) & set(expected)) >= 4
    assert all(int(i) % 2 for i in ids(points.like("17", where="(metadata->>'n')::int % 2 = 1", limit=5)))
    with pytest.raises(UnknownDocument, match="has no document 'nope'"):
        points.like("nope")


def test_wrong_queries_are_refused(points: Collection) -> None:
    with pytest.raises(DimensionMismatch, match=r"shape \(3,\), but collection 'points' has vectors of 16 numbers"):
        points.search([1, 2, 3])
    with pytest.raises(ValueError, match="limit is 0"):
        points.search(vectors(2, 1)[0], limit=0)
    for where in ("no_such_column = 1", "1 = ", "(title::int = 3)", "true; DROP TABLE neural.documents"):
        with pytest.raises(InvalidFilter, match="the filter does not work"):
            points.search(vectors(2, 1)[0], where=where)
    for where in ("false) OR (true", "(true", "true /* (", "'quoted", "$tag$ open"):
        with pytest.raises(InvalidFilter):
            points.search(vectors(2, 1)[0], where=where)
        with pytest.raises(InvalidFilter):
            points.delete(where=where)
    with pytest.raises(InvalidFilter, match=r"has a placeholder \$1"):
        points.search(vectors(2, 1)[0], where="title = $1")
    for values in (np.zeros(DIMENSIONS), np.full(DIMENSIONS, np.nan), np.full(DIMENSIONS, 3e38)):
        with pytest.raises(ValueError, match="zero or not finite"):
            points.search(values.astype(np.float32), where="true")
    assert points.search(vectors(2, 1)[0], where="title <> ')' AND '(' = $a$($a$ -- :-)", limit=1)
    assert len(points.search(vectors(2, 1)[0], where="title LIKE '%' -- a comment", limit=3)) == 3
    assert len(points.search(vectors(2, 1)[0], where="'10:30'::time > '9:00' AND content LIKE 'doc%'", limit=3)) == 3


@pytest.mark.parametrize("where", [None, "(metadata->>'n')::int % 2 = 0"])
def test_the_near_branch_uses_the_vector_index(points: Collection, database: Database, where: str | None) -> None:
    from pgneural.filter import condition
    from pgneural.statement import Page, Query

    with database.engine.connect() as connection:
        asked = Query(Mode.SEMANTIC, Page(10), {"semantic": vectors(2, 1)[0]}, where=condition(where))
        select = asked.select(points.searcher.target(connection))
        compiled = select.compile(dialect=connection.dialect)
        rows: Any = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}", compiled.params).scalar()
    plan = next(node for node in nodes(rows[0]["Plan"]) if node.get("Subplan Name") == "CTE near")
    scans = [node for node in nodes(plan) if node.get("Index Name") == "documents_points_embedding_idx"]
    assert [scan["Actual Loops"] for scan in scans] == [1]
    for name in ("CTE exact", "CTE fallback"):
        (branch,) = [node for node in nodes(rows[0]["Plan"]) if node.get("Subplan Name") == name]
        assert all(child["Actual Loops"] == 0 for child in branch["Plans"] if child["Parent Relationship"] == "Outer")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def test_prepared_and_generic_plans_give_the_same(points: Collection, database: Database) -> None:
    query = vectors(2, 1)[0]
    expected = ids(points.search(query, where="(metadata->>'n')::int % 2 = 0"))
    with database.engine.connect() as connection:
        connection.execute(sa.text("SET plan_cache_mode = force_generic_plan"))
        connection.commit()
        from pgneural.filter import condition
        from pgneural.statement import Page, Query

        even = condition("(metadata->>'n')::int % 2 = 0")
        for _ in range(12):
            asked = Query(Mode.SEMANTIC, Page(10), {"semantic": query}, where=even)
            hits = DocumentRows(points.searcher.statements(connection), connection).hits(asked)
            connection.rollback()
            assert ids(hits) == expected
