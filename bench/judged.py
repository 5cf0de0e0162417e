"""The judged collections, and an index of each in the cache."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from bench.corpus import CACHE, ROOT
from pgneural import Collection, Database, embedded
from pgneural.judgements import read_qrels, read_queries

NAMES = ("text-cranfield", "text-npl", "text-squad2", "faq-covid")


@dataclass(frozen=True)
class Judged:
    """A test collection: its documents, queries and judgements."""

    name: str
    documents: list[dict[str, Any]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def judged(name: str) -> Judged:
    """Read a collection; of faq-covid the English part, since the encoder knows no other language."""
    folder = ROOT.parent / "shared" / "data" / name
    if not folder.exists():
        raise click.ClickException(f"the collection is not there: {folder}")
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as lines:
        documents = [json.loads(line) for line in lines]
    if name == "faq-covid":
        documents = [row for row in documents if row["metadata"]["lang"] == "en"]
    ids = {row["_id"] for row in documents if row["title"].strip() or row["text"].strip()}
    every = read_qrels(folder / "qrels.tsv")
    qrels = {query: grades for query, grades in every.items() if ids & grades.keys()}
    queries = {id_: text for id_, text in read_queries(folder / "queries.jsonl").items() if id_ in qrels}
    return Judged(name, documents, queries, qrels)


def indexed(names: tuple[str, ...] = NAMES, encoder: str = "minilm") -> Iterator[tuple[Collection, Judged]]:
    """Index each collection once, in ``.bench-cache``, and give it with its judgements."""
    with embedded(CACHE / f"judged-{encoder}") as db:
        for name in names:
            data = judged(name)
            yield _indexed(db, data, encoder), data


def _indexed(db: Database, data: Judged, encoder: str) -> Collection:
    collection = db.collection(data.name, encoder=encoder)
    collection.index(data.documents)
    return collection
