"""Learned sparse vectors and late interaction, with the real loading code on small models."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pgneural import Collection, Database, LateInteraction, Record
from pgneural.encoders.extra import MultiVectorTransformerEncoder, SparseTransformerEncoder
from pgneural.errors import EncoderMismatch, EncoderUnavailable, InvalidQuery
from pgneural.types import Vector
from tests.fixtures.models import WORDS

QUERY = "quick vaccines"


def texts(n: int) -> list[str]:
    rng = random.Random(5)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for _ in range(n)]


def ids(hits: Any) -> list[str]:
    return [hit.entity.external_id for hit in hits]


def closely(found: Any, expected: dict[str, float]) -> bool:
    """Tell whether hits are the best of what is expected; equal scores may stand in any order."""
    best = sorted(expected.values(), reverse=True)[: len(found)]
    return [hit.score for hit in found] == pytest.approx(best, rel=2e-2, abs=2e-2) and all(
        expected[hit.entity.external_id] == pytest.approx(hit.score, rel=2e-2, abs=2e-2) for hit in found
    )


class Sparse:
    """A sparse encoder whose weights are the counts of words: many rows share no word with a query."""

    name, revision, dimensions = "counts", "1", len(WORDS)

    def encode_documents(self, items: list[str]) -> list[Vector]:
        return [self.encode_query(item) for item in items]

    def encode_query(self, item: str) -> Vector:
        return np.array([item.split().count(word) for word in WORDS], dtype=np.float32)


@pytest.fixture
def both(db: Database, tiny_sparse: Path, tiny_late: Path) -> Collection:
    made = db.collection("both", encoder="hash", sparse=tiny_sparse, late=tiny_late)
    made.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(texts(60)))
    return made


def test_sparse_leg(both: Collection, tiny_sparse: Path) -> None:
    encoder = SparseTransformerEncoder(tiny_sparse)
    query = encoder.encode_query(QUERY)
    scores = {str(n): float(v @ query) for n, v in enumerate(encoder.encode_documents(texts(60)))}
    hits = both.search(QUERY, mode="sparse", limit=8)
    assert closely(hits, scores)
    assert hits[0].legs == {"sparse": hits[0].score}
    odd = both.search(QUERY, mode="sparse", limit=8, where="(metadata->>'n')::int % 2 = 1")
    assert closely(odd, {key: score for key, score in scores.items() if int(key) % 2})
    assert set(both.search(QUERY)[0].legs) == {"semantic", "lexical", "sparse"}
    assert str(both.modes) == str(["semantic", "lexical", "sparse", "hybrid"]) or len(both.modes) == 4


def test_late_interaction(both: Collection, tiny_late: Path) -> None:
    encoder = MultiVectorTransformerEncoder(tiny_late)
    query = encoder.encode_query(QUERY)
    scores = {str(n): float((query @ d.T).max(1).sum()) for n, d in enumerate(encoder.encode_documents(texts(60)))}
    assert closely(both.search(QUERY, limit=5, rerank=LateInteraction(candidates=60)), scores)
    few = both.search(QUERY, limit=10, rerank=LateInteraction(candidates=3))
    assert sorted(ids(few)[:3]) == sorted(ids(both.search(QUERY, limit=3)))
    assert ids(few)[3:] == ids(both.search(QUERY, limit=10))[3:]


def test_vectors_follow_their_chunks(both: Collection, db: Database) -> None:
    both.index(Record("7", "how do vaccines work"))
    both.delete("8")
    stored = sa.text(
        "SELECT (SELECT count(*) FROM neural.documents_both), (SELECT count(*) FROM neural.documents_both_sparse),"
        " (SELECT count(*) FROM neural.documents_both_tokens)"
    )
    with db.engine.connect() as connection:
        assert connection.execute(stored).one() == (59, 59, 59)
    again = db.existing("both")
    changed = again.search("how do vaccines work", mode="sparse", limit=59)
    encoder: Any = both.searcher.extra["sparse"].encoder
    own = encoder.encode_query("how do vaccines work")
    (hit,) = [hit for hit in changed if hit.entity.external_id == "7"]
    assert hit.score == pytest.approx(float(own @ own), rel=1e-3)
    db.drop("both")
    left = sa.text("SELECT count(*) FROM pg_class WHERE relname LIKE 'documents_both%'")
    with db.engine.connect() as connection:
        assert connection.scalar(left) == 0


def test_rows_without_a_common_word_are_no_sparse_hits_and_the_index_is_used(db: Database) -> None:
    made = db.collection("counts", encoder="hash")
    made.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(texts(2500)))
    with pytest.raises(InvalidQuery, match="has no sparse vectors; open it with sparse="):
        made.search("fox", mode="sparse")
    made = db.collection("counts", sparse=Sparse())  # type: ignore[arg-type]
    assert made.search("fox", mode="sparse") == []
    made.index([])
    foxes = {str(n): text.split().count("fox") for n, text in enumerate(texts(2500)) if "fox" in text.split()}
    assert len(made.search("fox", mode="sparse", limit=2500)) == len(foxes)
    for where, keep in ((None, lambda n: True), ("(metadata->>'n')::int < 2300", lambda n: n < 2300)):
        hits = made.search("fox dog", mode="sparse", where=where)
        assert hits.strategy in ("near", "fallback")
        assert len(hits) == 10
        assert all(keep(int(hit.entity.external_id)) for hit in hits)
        expected = sorted(
            (t.split().count("fox") + t.split().count("dog") for n, t in enumerate(texts(2500)) if keep(n)),
            reverse=True,
        )
        assert sum(hit.score for hit in hits) >= 0.9 * sum(expected[:10])
    assert any(
        "documents_counts_sparse_embedding_idx" in stage.indexes for stage in made.explain("fox", mode="sparse").stages
    )


def test_another_encoder_is_refused(db: Database, tiny_sparse: Path, tiny_late: Path) -> None:
    db.collection("one", encoder="hash", sparse=tiny_sparse)
    with pytest.raises(EncoderMismatch):
        db.collection("one", sparse=Sparse())  # type: ignore[arg-type]
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        db.collection("one", late=tiny_late / "nothing")
    with pytest.raises(InvalidQuery, match="has no vectors of tokens"):
        db.existing("one").search("fox", rerank=LateInteraction())
    with pytest.raises(InvalidQuery, match="candidates is 0"):
        db.existing("one").search("fox", rerank=LateInteraction(0))
