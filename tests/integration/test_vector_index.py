"""Every kind of index: it is used, it finds what the exact scan finds, and a broken one is mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from pgneural import Collection, Database, Record, VectorIndex
from pgneural.errors import InvalidIndex
from pgneural.statement import Page, Query
from pgneural.types import Mode, Vector

ROWS, DIMENSIONS = 3000, 64

KINDS: dict[str, tuple[str, str | None, VectorIndex | None, float]] = {
    "cosine, as chosen": ("cosine", None, None, 0.97),
    "cosine, full": ("cosine", None, VectorIndex(precision="full", options={"m": 24}), 0.97),
    "cosine, halfvec column": ("cosine", "halfvec", None, 0.97),
    "cosine, bits": ("cosine", None, VectorIndex(precision="binary"), 0.7),
    "cosine, half the dimensions": ("cosine", None, VectorIndex(dimensions=DIMENSIONS // 2), 0.9),
    "cosine, half the dimensions, whole": ("cosine", None, VectorIndex(precision="full", dimensions=32), 0.9),
    "cosine, lists": ("cosine", None, VectorIndex("ivfflat"), 0.8),
    "cosine, none": ("cosine", None, VectorIndex("none"), 1.0),
    "l2": ("l2", None, None, 0.97),
    "l2, lists of halves": ("l2", None, VectorIndex("ivfflat", "half"), 0.8),
    "inner product": ("inner_product", None, None, 0.97),
    "l1": ("l1", None, None, 0.97),
    "hamming": ("hamming", None, None, 0.9),
    "hamming, lists": ("hamming", None, VectorIndex("ivfflat", "full"), 0.6),
    "jaccard": ("jaccard", None, None, 0.9),
}


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


def vectors(seed: int, n: int, bits: bool) -> Vector:
    """Return vectors in clusters, their first dimensions the widest, as a Matryoshka model's are."""
    centres = np.random.default_rng(0).normal(size=(30, DIMENSIONS))
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(0, 30, n)] + 0.5 * rng.normal(size=(n, DIMENSIONS))
    points *= np.linspace(1.5, 0.2, DIMENSIONS)
    return np.asarray(points > 0 if bits else points, dtype=np.float32)


def distances(metric: str, stored: Vector, query: Vector) -> Any:
    """Return what pgvector calls the distance, shape (n,)."""
    if metric == "cosine":
        return 1 - stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    both, either = np.minimum(stored, query).sum(1), np.maximum(stored, query).sum(1)
    named = {
        "l2": np.linalg.norm(stored - query, axis=1),
        "inner_product": -(stored @ query),
        "jaccard": 1 - both / either if metric == "jaccard" else None,
    }
    return named.get(metric, np.abs(stored - query).sum(1))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(database: Database, kind: str) -> None:
    metric, storage, index, floor = KINDS[kind]
    bits = metric in ("hamming", "jaccard")
    name = "kind " + kind.replace(",", "")
    made = database.collection(name, encoder=f"vectors:{DIMENSIONS}", distance=metric, storage=storage, index=index)
    stored = vectors(1, ROWS, bits)
    report = made.index(Record(str(n), f"d {n}", metadata={"n": n}, embedding=v) for n, v in enumerate(stored))
    assert report.rejected == 0
    found = 0
    for query in vectors(2, 25, bits):
        away = distances(metric, stored, query)
        hits = made.search(query, limit=10)
        assert len({hit.entity.id for hit in hits}) == 10
        bar = np.sort(away)[9] + 1e-3  # of ties, any will do
        found += sum(away[int(hit.entity.external_id)] <= bar for hit in hits)
        few = made.search(query, where="(metadata->>'n')::int % 10 = 0", limit=10)
        assert few.strategy == "exact"
        expected = np.sort(away[::10])[:10]
        assert away[[int(hit.entity.external_id) for hit in few]] == pytest.approx(expected, abs=5e-3)
    assert found >= floor * 250
    assert index_of(made) == (None if kind.endswith("none") else made.space.vector_index["method"])


def index_of(made: Collection) -> str | None:
    """Return the access method of the index that an unfiltered search scans."""
    query = vectors(3, 1, made.space.storage == "bit")[0]
    with made.searcher.engine.connect() as connection:
        target = made.searcher.target(connection)
        asked = Query(Mode.SEMANTIC, Page(10), {"semantic": query})
        compiled = asked.select(target).compile(dialect=connection.dialect)
        plan: Any = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", compiled.params).scalar()
        name = f"{made.chunks.name}_embedding_idx"
        if f'"{name}"' not in str(plan).replace("'", '"'):
            return None
        method = sa.text("SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE relname = :name")
        found: str | None = connection.scalar(method, {"name": name})
        return found


def test_reindex_serves_meanwhile_and_clients_follow(database: Database) -> None:
    made = database.collection("again", encoder=f"vectors:{DIMENSIONS}")
    made.index(Record(str(n), f"d {n}", embedding=v) for n, v in enumerate(vectors(1, ROWS, False)))
    other = database.existing("again")
    query = vectors(2, 1, False)[0]
    before = [hit.entity.external_id for hit in other.search(query)]
    made.reindex(VectorIndex("ivfflat", options={"lists": 20}))
    assert (index_of(made), made.space.vector_index["options"]) == ("ivfflat", {"lists": 20})
    assert [hit.entity.external_id for hit in other.search(query)] == before  # by the old shape: slower, not wrong
    made.reindex(VectorIndex("none"))
    assert index_of(made) is None
    made.reindex(VectorIndex())
    assert index_of(made) == "hnsw"
    with pytest.raises(InvalidIndex, match="cannot keep 65"):
        made.reindex(VectorIndex(dimensions=65))


def test_an_invalid_leftover_is_built_again(database: Database) -> None:
    made = database.collection("leftover", encoder=f"vectors:{DIMENSIONS}")
    made.index(Record(str(n), f"d {n}", embedding=v) for n, v in enumerate(vectors(1, ROWS, False)))
    name = "neural.documents_leftover_embedding_idx"
    broken = sa.text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(:name)")
    with database.engine.begin() as connection:
        connection.execute(broken, {"name": name})
    assert not next(c for c in database.status().collections if c.name == "leftover").indexed
    assert any("documents_leftover_embedding_idx is invalid" in found for found in database.check().differences)
    made.index([])
    assert next(c for c in database.status().collections if c.name == "leftover").indexed
    assert not any("leftover" in found for found in database.check().differences)


def test_a_build_waits_for_another_and_for_no_reader(database: Database) -> None:
    made = database.collection("busy", encoder=f"vectors:{DIMENSIONS}")
    with psycopg.connect(database.url) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM neural.documents_busy")  # holds a lock on the table
        reader.execute("COMMIT; BEGIN; DECLARE here CURSOR FOR SELECT 1")
        reader.execute("ROLLBACK")
        made.index(Record(str(n), f"d {n}", embedding=v) for n, v in enumerate(vectors(1, ROWS, False)))
    assert index_of(made) == "hnsw"


@pytest.mark.parametrize(("dimensions", "kept"), [(1999, "half"), (2500, "half"), (4100, "binary")])
def test_many_dimensions_get_the_index_that_takes_them(database: Database, dimensions: int, kept: str) -> None:
    rng = np.random.default_rng(1)
    with pytest.warns(UserWarning, match="one bit a number") if dimensions > 4000 else _no_warning():
        wide = database.collection(f"wide {dimensions}", encoder=f"vectors:{dimensions}")
    assert wide.space.vector_index["precision"] == kept
    stored = rng.normal(size=(2100, dimensions)).astype(np.float32)
    wide.index(Record(str(n), "d", embedding=v) for n, v in enumerate(stored))
    assert next(c for c in database.status().collections if c.name == wide.name).indexed
    assert [hit.entity.external_id for hit in wide.search(stored[7] + 0.1, limit=1)] == ["7"]


def _no_warning() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": VectorIndex(precision="full"), "encoder": "vectors:2001"}, "takes 2,000 .* choose precision half"),
        ({"index": VectorIndex("ivfflat"), "distance": "l1"}, "ivfflat has no distance l1"),
        ({"storage": "halfvec", "distance": "hamming"}, "not one of halfvec columns"),
        ({"storage": "bit"}, "cosine is not one of bit columns"),
        ({"index": VectorIndex(dimensions=8), "distance": "jaccard"}, "indexed whole"),
        ({"distance": "euclid"}, "expected cosine, l2"),
    ],
)
def test_what_pgvector_has_not_is_refused(database: Database, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidIndex, match=message):
        database.collection("refused", **{"encoder": f"vectors:{DIMENSIONS}", **options})
    assert "refused" not in [made.name for made in database.status().collections]


def test_options_are_checked() -> None:
    with pytest.raises(InvalidIndex, match="method is 'btree', expected hnsw, ivfflat, none"):
        VectorIndex("btree")  # type: ignore[arg-type]
    with pytest.raises(InvalidIndex, match="hnsw has no option 'lists'"):
        VectorIndex(options={"lists": 3})


def test_records_that_do_not_fit_are_told(database: Database) -> None:
    bits = database.collection("bits", encoder=f"vectors:{DIMENSIONS}", distance="hamming")
    half = database.collection("half", encoder=f"vectors:{DIMENSIONS}", distance="l2", storage="halfvec")
    two = np.full(DIMENSIONS, 2, np.float32)
    assert "other numbers than 0 and 1" in bits.index([Record("1", "d", embedding=two)]).bad[0].reason
    assert bits.index([Record("0", "d", embedding=0 * two)]).inserted == 1
    assert "beyond 65504" in half.index([Record("1", "d", embedding=40_000 * two)]).bad[0].reason
    assert half.index([Record("1", "d", embedding=two)]).inserted == 1
    assert half.like("1") == []
