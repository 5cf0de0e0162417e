"""Kinds of vector index over the same 49,973 abstracts: size, time to build, recall and latency of our own search."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import click
import numpy as np
import sqlalchemy as sa

from bench.filter import FILTERS, FOLDER, K, Task, loaded, ours, prepared, timed
from pgneural import Collection, VectorIndex, embedded
from pgneural.cli.output import print_table

KINDS = {
    "hnsw, full": VectorIndex(precision="full"),
    "hnsw, half (as chosen)": VectorIndex(),
    "hnsw, half, 256 dimensions": VectorIndex(dimensions=256),
    "hnsw, binary": VectorIndex(precision="binary"),
    "ivfflat, half": VectorIndex("ivfflat"),
    "none": VectorIndex("none"),
}
UNDER = ("100 %", "10 %", "35 % math")


@click.command("indexes")
@click.option("--queries", default=100, show_default=True)
def command(queries: int) -> None:
    """Size, build time, recall@10 and p50 of each kind of index; the one as chosen is put back at the end."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    task = prepared(queries)
    with embedded(FOLDER / "server") as db:
        collection = loaded(db, task)
        rows = [measured(collection, task, name, kind) for name, kind in KINDS.items()]
        collection.reindex(VectorIndex())
    whole = rows[0][1]
    columns = (
        "index",
        "MB",
        "× full",
        "build s",
        *(f"{what} {under}" for under in UNDER for what in ("recall", "p50")),
    )
    print_table(columns, [(name, size, size / whole, *rest) for name, size, *rest in rows])


def measured(collection: Collection, task: Task, name: str, kind: VectorIndex) -> tuple[Any, ...]:
    """Build an index and search by it."""
    started = time.perf_counter()
    collection.reindex(kind)
    seconds = time.perf_counter() - started
    with collection.searcher.engine.connect() as connection:
        relation = sa.text("SELECT coalesce(pg_relation_size(to_regclass('neural.documents_arxiv_embedding_idx')), 0)")
        size = float(connection.scalar(relation) or 0) / 2**20
    figures: list[float] = []
    find = ours(collection)
    for under in UNDER:
        answers = timed(find, task.queries, FILTERS[under])
        truth = task.nearest(FILTERS[under])
        recall = np.mean([len(set(ids) & near) / K for (_, ids), near in zip(answers, truth, strict=True)])
        figures += [float(recall), 1000 * median(seconds for seconds, _ in answers)]
    return name, size, seconds, *figures
