"""Recall of the index against the exact scan, on real text with the real encoder's vectors."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from pgneural import Database, Record, encoders
from pgneural.store.indexes import WORTH_INDEXING

FLOOR = 0.97

HALVES = ("id % 2 = 0", "id % 2 = 1")


@pytest.mark.data
@pytest.mark.model
def test_titles_find_their_abstracts_and_the_index_finds_what_the_scan_finds(db: Database, data: Path) -> None:
    """Short texts keep this quick: the first sentence of an abstract, searched by its title."""
    encoder = encoders.get("minilm")
    with gzip.open(data / "corpus-arxiv" / "corpus.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in islice(lines, WORTH_INDEXING + 500)]
    papers = db.collection("papers", encoder=encoder)
    papers.index(Record(row["_id"], row["text"].partition(". ")[0][:100], metadata=row["metadata"]) for row in rows)
    found = wanted = first = 0
    sample = rows[:: len(rows) // 60]
    for row in sample:
        hits = papers.search(row["title"], limit=10, mode="semantic")
        halves = [papers.search(row["title"], where=half, limit=10, mode="semantic") for half in HALVES]
        assert {half.strategy for half in halves} == {"exact"}  # so few rows are compared one by one
        exact = [hit for half in halves for hit in half]
        assert (hits.strategy, len(hits), len(exact)) == ("near", 10, 20)
        best = sorted(exact, key=lambda hit: -hit.score)[:10]
        found += len({hit.entity.id for hit in hits} & {hit.entity.id for hit in best})
        wanted += 10
        first += hits[0].entity.external_id == row["_id"]
    assert found >= FLOOR * wanted
    assert first >= 0.5 * len(sample)
