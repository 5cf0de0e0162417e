"""Recall and rows returned at filters of 100 to 0.1 %, on 49,973 arXiv abstracts with the real encoder."""

from __future__ import annotations

import time
from statistics import median

import click
import sqlalchemy as sa

from bench.corpus import ARXIV, CACHE, abstracts
from pgneural import Collection, embedded
from pgneural.cli.output import print_table, progress_bar
from pgneural.store.schema import DOCUMENTS
from pgneural.types import Vector

LIMIT = 10

FILTERS = {
    "100 %": None,
    "50 %": "abs(hashtext(external_id)) % 1000 < 500",
    "10 %": "abs(hashtext(external_id)) % 1000 < 100",
    "1 %": "abs(hashtext(external_id)) % 1000 < 10",
    "0.1 %": "abs(hashtext(external_id)) % 1000 < 1",
    "math.* (correlated)": "metadata->>'primary_category' LIKE 'math%'",
    "year 2003 (correlated)": "metadata->>'year' = '2003'",
}


@click.command("search")
@click.option("--queries", default=200, show_default=True)
def command(queries: int) -> None:
    """Filters on arXiv: rows returned, recall@10 against the exact scan, latency. Indexes once, in .bench-cache."""
    with embedded(CACHE / "search") as db:
        collection = db.collection("arxiv")
        with progress_bar(True) as bar:
            report = collection.index(ARXIV, progress=bar.documents, build_progress=bar.build)
        click.echo(f"{report.documents:,} documents, {report.inserted:,} new")
        titles = [record["title"] for record in abstracts()][:: 49_973 // queries][:queries]
        vectors = [collection.encoder.encode_query(title) for title in titles]
        rows = [measure(collection, name, where, vectors) for name, where in FILTERS.items()]
    print_table(
        ("filter", "rows pass", "rows min", "rows max", "recall@10", "worst", "p50 ms", "exact ms", "strategy"), rows
    )


def measure(collection: Collection, name: str, where: str | None, vectors: list[Vector]) -> list[object]:
    """Search with every vector under one filter."""
    counts, recalls, ours, exact, strategies = [], [], [], [], set()
    for vector in vectors:
        started = time.perf_counter()
        hits = collection.search(vector, where=where, limit=LIMIT)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        expected = exact_scan(collection, where, vector)
        exact.append(time.perf_counter() - started)
        counts.append(len(hits))
        recalls.append(len({hit.entity.id for hit in hits} & expected) / max(len(expected), 1))
        strategies.add(hits.strategy)
    passing = matching(collection, where)
    times = [f"{1000 * median(series):.1f}" for series in (ours, exact)]
    recall = sum(recalls) / len(recalls)
    return [name, passing, min(counts), max(counts), recall, min(recalls), *times, ", ".join(sorted(strategies))]


def exact_scan(collection: Collection, where: str | None, vector: Vector) -> set[int]:
    """Return the true nearest documents, by plain SQL without any index on vectors."""
    chunks = collection.chunks
    distance = sa.func.min(chunks.c.embedding.cosine_distance(vector))
    statement = (
        sa.select(DOCUMENTS.c.id)
        .join(chunks, chunks.c.source_id == DOCUMENTS.c.id)
        .where(DOCUMENTS.c.collection == collection.name, sa.literal_column(f"({where or 'true'})"))
        .group_by(DOCUMENTS.c.id)
        .order_by(distance, DOCUMENTS.c.id)
        .limit(LIMIT)
    )
    with collection.searcher.engine.connect() as connection:
        return set(connection.scalars(statement))


def matching(collection: Collection, where: str | None) -> int:
    """Return how many documents pass the filter."""
    rows = sa.select(sa.func.count()).where(
        DOCUMENTS.c.collection == collection.name, sa.literal_column(f"({where or 'true'})")
    )
    with collection.searcher.engine.connect() as connection:
        return connection.scalar(rows) or 0
