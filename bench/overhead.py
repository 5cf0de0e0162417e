"""What the library adds to the statement: a search against the same statement executed by psycopg alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench.filter import FOLDER, prepared
from pgneural import Document, embedded
from pgneural.cli.output import print_table
from pgneural.collection import Collection
from pgneural.documents import with_documents
from pgneural.filter import condition
from pgneural.statement import Page, Query
from pgneural.store.embedded import EmbeddedServer
from pgneural.types import Mode, Vector

FILTERS = {"all": None, "50 %": "(metadata->>'r')::int < 500", "1 %": "(metadata->>'r')::int < 10"}


@click.command("overhead")
@click.option("--queries", default=100, show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--part", type=click.Choice(["statement", "values"]), default="statement", show_default=True)
def command(queries: int, runs: int, part: str) -> None:
    """p50 of Collection.search with a vector against psycopg, in turn. `bench filter` makes the collection first.

    Part values needs none: what a filter costs whose value is another each time, against one that is always the same.
    """
    if part == "values":
        values(queries)
        return
    task = prepared(queries)
    with embedded(FOLDER / "server") as db:
        collection = db.existing("arxiv")
        rows = [compared(collection, label, where, task.queries, runs) for label, where in FILTERS.items()]
    print_table(("filter", "search p50 ms", "bare p50 ms", "ratio", "asked"), rows)


FORMS: dict[str, Callable[[int], Any]] = {
    "text, the value in it": lambda n: f"(metadata->>'n')::int <> {n}",
    "text with a parameter": lambda n: ("(metadata->>'n')::int <> :n", {"n": n}),
    "SQLAlchemy": lambda n: Document.metadata_["n"].as_integer() != n,
}


def values(queries: int) -> None:
    """Search with each form of one filter, in turn with the same value and with a new one."""
    with tempfile.TemporaryDirectory() as folder, embedded(folder) as db:
        collection = db.collection("numbers", encoder="hash")
        collection.index([{"id": str(n), "text": f"number {n}", "metadata": {"n": n}} for n in range(1000)])
        rows = [(form, *new_and_same(collection, FORMS[form], queries)) for form in FORMS]
        EmbeddedServer(Path(folder)).stop()
    print_table(("filter", "new value p50 ms", "same value p50 ms", "ratio"), rows)


def new_and_same(collection: Collection, form: Callable[[int], Any], queries: int) -> tuple[float, float, float]:
    """Return p50 with a new value each time, with the same, and their ratio."""
    seconds: tuple[list[float], list[float]] = [], []
    for number in range(queries + 1):
        for times, value in zip(seconds, (number, -1), strict=True):
            where = form(value)
            started = time.perf_counter()
            collection.search("number", where=where)
            times.append(time.perf_counter() - started)
    new, same = (1000 * median(times[1:]) for times in seconds)
    return new, same, new / same


def compared(collection: Collection, label: str, where: str | None, vectors: Vector, runs: int) -> list[Any]:
    """Execute every query both ways, one after the other."""
    pooled = collection.searcher.engine.raw_connection()
    connection: Any = pooled.driver_connection
    statement, parameters = compiled(collection, where, vectors[0])
    target = collection.searcher.statements(pooled).target  # type: ignore[arg-type]
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(runs + 1):
        for place, vector in enumerate(vectors):
            values = {**parameters, **Query(Mode.SEMANTIC, Page(10), {"semantic": vector}).parameters(target)}
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
    with collection.searcher.engine.connect() as connection:
        target = collection.searcher.target(connection)
        query = Query(Mode.SEMANTIC, Page(10), {"semantic": vector}, where=condition(where))
        done = with_documents(target, query.select(target)).compile(dialect=connection.dialect)
        return str(done), dict(done.params)
