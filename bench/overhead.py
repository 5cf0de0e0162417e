"""What the library adds to the statement: a search against the same statement executed by psycopg alone."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import click

from bench.filter import FOLDER, prepared
from pgneural import embedded
from pgneural.cli.output import print_table
from pgneural.collection import Collection
from pgneural.documents import with_documents
from pgneural.filter import condition
from pgneural.statement import Page, Query
from pgneural.types import Mode, Vector

FILTERS = {"all": None, "50 %": "(metadata->>'r')::int < 500", "1 %": "(metadata->>'r')::int < 10"}


@click.command("overhead")
@click.option("--queries", default=100, show_default=True)
@click.option("--runs", default=3, show_default=True)
def command(queries: int, runs: int) -> None:
    """p50 of Collection.search with a vector against psycopg, in turn. `bench filter` makes the collection first."""
    task = prepared(queries)
    with embedded(FOLDER / "server") as db:
        collection = db.existing("arxiv")
        rows = [compared(collection, label, where, task.queries, runs) for label, where in FILTERS.items()]
    print_table(("filter", "search p50 ms", "bare p50 ms", "ratio", "asked"), rows)


def compared(collection: Collection, label: str, where: str | None, vectors: Vector, runs: int) -> list[Any]:
    """Execute every query both ways, one after the other."""
    pooled = collection._engine.raw_connection()
    connection: Any = pooled.driver_connection
    statement, parameters = compiled(collection, where, vectors[0])
    target = collection._searching(pooled).target  # type: ignore[arg-type]
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(runs + 1):
        for place, vector in enumerate(vectors):
            values = {**parameters, **Query(Mode.SEMANTIC, Page(10), vector).parameters(target)}
            for first in (place % 2 == 0, place % 2 == 1):  # who comes second finds the pages in memory
                started = time.perf_counter()
                if first:
                    collection.search(vector, where=where)
                else:
                    connection.execute(statement, values).fetchall()
                    connection.commit()
                (ours if first else bare).append(time.perf_counter() - started)
    pooled.close()
    warm = len(vectors)
    p50, baseline = 1000 * median(ours[warm:]), 1000 * median(bare[warm:])
    return [label, p50, baseline, p50 / baseline, "≤ 1.15"]


def compiled(collection: Collection, where: str | None, vector: Vector) -> tuple[str, dict[str, Any]]:
    """Return the text and the parameters of the statement."""
    with collection._engine.connect() as connection:
        target = collection._searching(connection).target
        query = Query(Mode.SEMANTIC, Page(10), vector, where=condition(where))
        done = with_documents(target, query.select(target)).compile(dialect=connection.dialect)
        return str(done), dict(done.params)
