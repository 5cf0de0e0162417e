"""Judging: the right figures from BEIR and TREC files, and clear words for wrong ones."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgneural import Collection, Database, Record, evaluate
from pgneural.errors import UnreadableInput
from pgneural.judgements import read_qrels, read_queries


@pytest.fixture(scope="module")
def pets(new_database: Any, template: str) -> Iterator[Collection]:
    with Database(new_database(template)) as database:
        collection = database.collection("pets", encoder="hash")
        collection.index([Record("fox", "fox"), Record("hound", "hound fox"), Record("cat", "cat")])
        yield collection


QUERIES = {"1": "fox", "2": "cat", "3": "zebra"}
QRELS = {"1": {"hound": 2, "cat": 0}, "2": {"cat": 1}, "3": {"hound": 1}, "4": {"fox": 1}}


def test_figures(pets: Collection) -> None:
    result = evaluate(pets, QUERIES, QRELS, modes=["lexical"])
    lexical = result.modes["lexical"]
    assert result.queries == 3
    assert lexical.per_query["1"] == pytest.approx(
        {"ndcg@10": 1 / math.log2(3), "recall@100": 1, "mrr@10": 0.5, "map": 0.5}
    )
    assert lexical.per_query["3"] == {"ndcg@10": 0, "recall@100": 0, "mrr@10": 0, "map": 0}
    assert lexical.mean["map"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert 0 < lexical.p50_ms <= lexical.p95_ms
    assert set(evaluate(pets, QUERIES, QRELS).as_json()["modes"]) == {"semantic", "lexical", "hybrid"}


def test_files(pets: Collection, tmp_path: Path) -> None:
    beir, trec = tmp_path / "queries.jsonl.gz", tmp_path / "queries.tsv"
    with gzip.open(beir, "wt") as lines:
        lines.writelines(json.dumps({"_id": id_, "text": text, "metadata": {}}) + "\n" for id_, text in QUERIES.items())
    trec.write_text("".join(f"{id_}\t{text}\n" for id_, text in QUERIES.items()))
    assert read_queries(beir) == read_queries(trec) == QUERIES
    tsv, qrels = tmp_path / "qrels.tsv", tmp_path / "qrels.txt"
    rows = [(query, document, grade) for query, grades in QRELS.items() for document, grade in grades.items()]
    tsv.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in rows))
    qrels.write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in rows))
    assert read_qrels(tsv) == read_qrels(qrels) == QRELS
    assert evaluate(pets, beir, tsv, modes=["lexical"]).queries == 3


def test_bad_files(pets: Collection, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for content, said in (
        ('{"_id": "1"}\n', "bad:1: expected the fields _id and text, found _id"),
        ('{"_id"\n', "bad:1: invalid JSON at character"),
        ("just words\n", "bad:1: 'just words' is not a query"),
        ("", "there are no queries"),
    ):
        bad.write_text(content)
        with pytest.raises(UnreadableInput, match=said):
            read_queries(bad)
    bad.write_text("q d 1\nq d\n")
    with pytest.raises(UnreadableInput, match="bad:2: 'q d' is not a judgement"):
        read_qrels(bad)
    with pytest.raises(UnreadableInput, match="No such file"):
        read_qrels(tmp_path / "missing")
    with pytest.raises(UnreadableInput, match="none of 1 query has a relevant document"):
        evaluate(pets, {"x": "fox"}, QRELS)
