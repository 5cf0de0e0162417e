"""Filtered search, side by side: ours, what an expert writes by hand, and other systems, on 49,973 arXiv abstracts.

Every system has the same vectors (MiniLM, one for each abstract), the same titles as text and the same metadata. The
hand-written forms get the best case: one flat table with typed columns and an index on each. Filters are independent
of the query (a random number), or correlated with it (category, year).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psycopg
from psycopg import sql

from bench.corpus import CACHE, ROOT, abstracts
from pgneural import Collection, Database, Record, embedded, encoders
from pgneural.cli.output import print_table
from pgneural.types import Encoder, Vector

K = 10
FOLDER = CACHE / "filter"
Conditions = list[tuple[str, str, Any]]
Answers = list[tuple[float, list[int]]]
Find = Callable[[Vector, Conditions], list[int]]

FILTERS: dict[str, Conditions] = {
    "100 %": [],
    **{f"{share / 10:g} %": [("r", "lt", share)] for share in (500, 200, 100, 30, 10, 1, 0)},
    "50 % year ≥ 2015": [("year", "gte", 2015)],
    "35 % math": [("archive", "eq", "math")],
    "22 % year ≥ 2018": [("year", "gte", 2018)],
    "10 % year ≥ 2019": [("year", "gte", 2019)],
    "3 % math, year ≥ 2019": [("archive", "eq", "math"), ("year", "gte", 2019)],
    "1 % cs.LO": [("category", "eq", "cs.LO")],
    "0.2 % year ≤ 1993": [("year", "lte", 1993)],
    "0 % no such": [("category", "eq", "none")],
}
FLAT = """
CREATE TABLE flat (
    id int PRIMARY KEY, title text, r int, year int, category text, archive text, embedding vector(384)
)"""
OPERATORS = {"lt": "<", "gte": ">=", "lte": "<=", "eq": "="}


@dataclass(frozen=True)
class Task:
    """What every system is given."""

    rows: list[dict[str, Any]]
    vectors: Vector
    queries: Vector

    def passing(self, conditions: Conditions) -> list[int]:
        """Return the places of the rows that pass."""
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "lt": lambda a, b: a < b,
            "gte": lambda a, b: a >= b,
            "lte": lambda a, b: a <= b,
            "eq": lambda a, b: a == b,
        }
        return [at for at, row in enumerate(self.rows) if all(compare[op](row[f], v) for f, op, v in conditions)]

    def nearest(self, conditions: Conditions) -> list[set[int]]:
        """Return the ids of the true nearest rows of each query."""
        among = self.passing(conditions)
        near = self.queries @ self.vectors[among].T
        return [{self.rows[among[at]]["id"] for at in np.argsort(-row, kind="stable")[:K]} for row in near]


@click.command("filter")
@click.option("--queries", default=100, show_default=True)
@click.option("--rivals/--no-rivals", default=True, show_default=True, help="Other systems, in a venv of their own.")
def command(queries: int, rivals: bool) -> None:
    """Rows returned, recall@10 and p50 under filters of 100 to 0 %."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    task = prepared(queries)
    with embedded(FOLDER / "server") as db:
        collection = loaded(db, task)
        with psycopg.connect(db.url, autocommit=True) as connection:
            flat_table(connection, task)
            systems: dict[str, Find] = {"ours": ours(collection), **by_hand(connection)}
            answers = {
                name: {label: timed(find, task.queries, by) for label, by in FILTERS.items()}
                for name, find in systems.items()
            }
        if rivals:
            answers |= run_rivals(task, db.url)
    for label, conditions in FILTERS.items():
        report(label, task, conditions, {name: found[label] for name, found in answers.items()})


def prepared(queries: int) -> Task:
    """Encode titles and abstracts once; queries are the titles' own abstracts' first sentences."""
    records = abstracts()
    path = FOLDER / "vectors.npz"
    asked = [record["text"].strip().partition(". ")[0] for record in records[:: len(records) // queries]][:queries]
    encoder = encoders.get("minilm")
    if not path.exists():
        texts = [f"{record['title']}\n{record['text']}" for record in records]
        np.savez(path, vectors=encoder.encode_documents([readable(encoder, text) for text in texts]))
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": at,
            "title": record["title"],
            "r": int(rng.integers(1000)),
            "year": record["metadata"]["year"],
            "category": record["metadata"]["primary_category"],
            "archive": record["metadata"]["primary_category"].partition(".")[0],
        }
        for at, record in enumerate(records)
    ]
    vectors = np.load(path)["vectors"]
    return Task(rows, vectors, np.stack([encoder.encode_query(text[:800]) for text in asked]))


def readable(encoder: Encoder, text: str) -> str:
    """Cut a text where the encoder would have to be told to."""
    spans, limit = encoder.tokenizer.spans(text), encoder.max_tokens
    return text if limit is None or len(spans) <= limit else text[: spans[limit - 8][1]]


def loaded(db: Database, task: Task) -> Collection:
    """Index the vectors, with the metadata in JSONB and an expression index on each field."""
    collection = db.collection("arxiv", encoder=f"vectors:{task.vectors.shape[1]}")
    fields = ("r", "year", "category", "archive")
    collection.index(
        Record(str(row["id"]), row["title"], metadata={name: row[name] for name in fields}, embedding=vector)
        for row, vector in zip(task.rows, task.vectors, strict=True)
    )
    with psycopg.connect(db.url, autocommit=True) as connection:
        for field in fields:
            name = sql.Identifier(f"bench_{field}")
            index = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON neural.documents ({})")
            connection.execute(index.format(name, sql.SQL(column(field))))
        connection.execute("VACUUM (ANALYZE) neural.documents")
        connection.execute("VACUUM (ANALYZE) neural.documents_arxiv")
    return collection


def column(field: str) -> Any:
    """Return a metadata field of a collection as SQL."""
    return f"((metadata->>'{field}')::int)" if field in ("r", "year") else f"(metadata->>'{field}')"


def flat_table(connection: psycopg.Connection[Any], task: Task) -> None:
    """Make the table of the hand-written forms, once."""
    if connection.execute("SELECT to_regclass('flat') IS NOT NULL").fetchone() == (True,):
        return
    connection.execute(FLAT)
    connection.execute("ALTER TABLE flat ALTER COLUMN embedding SET STORAGE PLAIN")
    with connection.cursor() as cursor, cursor.copy("COPY flat FROM STDIN") as copy:
        for row, vector in zip(task.rows, task.vectors, strict=True):
            copy.write_row((*(row[name] for name in ("id", "title", "r", "year", "category", "archive")), text(vector)))
    connection.execute("SET maintenance_work_mem = '512MB'")
    connection.execute("CREATE INDEX ON flat USING hnsw (embedding vector_cosine_ops)")
    for field in ("r", "year", "category", "archive"):
        connection.execute(sql.SQL("CREATE INDEX ON flat ({})").format(sql.Identifier(field)))
    connection.execute("VACUUM (ANALYZE) flat")


def ours(collection: Collection) -> Find:
    """Search with the filter as SQL text."""

    def find(vector: Vector, conditions: Conditions) -> list[int]:
        where = " AND ".join(f"{column(field)} {OPERATORS[op]} {value!r}" for field, op, value in conditions)
        return [int(hit.entity.external_id) for hit in collection.search(vector, where=where or None, limit=K)]

    return find


def by_hand(connection: psycopg.Connection[Any]) -> dict[str, Find]:
    """Return the forms that experts write, over the flat table; each returns the row, as a search does."""
    order = "ORDER BY embedding <=> %(query)s::vector LIMIT 10"
    relaxed = "SET hnsw.iterative_scan = relaxed_order; SET hnsw.ef_search = 100"

    def form(statement: str, settings: str) -> Find:
        def find(vector: Vector, conditions: Conditions) -> list[int]:
            where = " AND ".join(f"{field} {OPERATORS[op]} {value!r}" for field, op, value in conditions) or "true"
            if form.settings != settings:  # type: ignore[attr-defined]
                connection.execute("RESET ALL")
                connection.execute(settings.encode())
                form.settings = settings  # type: ignore[attr-defined]
            rows = connection.execute(statement.format(where=where).encode(), {"query": text(vector)}).fetchall()
            return [row[0] for row in rows]

        return find

    form.settings = None  # type: ignore[attr-defined]
    columns = "id, title, r, year, category, archive, embedding <=> %(query)s::vector AS distance"
    return {
        "WHERE … ORDER BY": form(f"SELECT {columns} FROM flat WHERE {{where}} {order}", "SELECT 1"),
        "… iterative_scan": form(f"SELECT {columns} FROM flat WHERE {{where}} {order}", relaxed),
        "filter first": form(
            f"WITH passing AS MATERIALIZED (SELECT {columns} FROM flat WHERE {{where}}) "
            "SELECT * FROM passing ORDER BY distance, id LIMIT 10",
            "SELECT 1",
        ),
    }


def text(vector: Vector) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def timed(find: Find, queries: Vector, conditions: Conditions) -> Answers:
    """Return the seconds and the ids of each query; a few run once before, unmeasured."""
    for query in queries[:6]:
        find(query, conditions)
    answers = []
    for query in queries:
        started = time.perf_counter()
        ids = find(query, conditions)
        answers.append((time.perf_counter() - started, ids))
    return answers


def run_rivals(task: Task, url: str) -> dict[str, dict[str, Answers]]:
    """Load and query the other systems in their own process and venv; those on PostgreSQL share our server."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(FOLDER / "venv", with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(ROOT / "bench" / "rivals.txt")]
        subprocess.run(install, check=True)
    np.savez(FOLDER / "task.npz", vectors=task.vectors, queries=task.queries)
    filters = {label: {"conditions": conditions} for label, conditions in FILTERS.items()}
    (FOLDER / "task.json").write_text(json.dumps({"rows": task.rows, "filters": filters}))
    script = Path(__file__).with_name("rivals.py")
    subprocess.run([str(python), str(script), str(FOLDER), url], check=True, stdout=sys.stderr)
    answers: dict[str, dict[str, Answers]] = json.loads((FOLDER / "answers.json").read_text())
    return answers


def report(label: str, task: Task, conditions: Conditions, found: dict[str, Answers]) -> None:
    """Print one filter: each system's rows, recall and p50; ours against the faster good hand-written form."""
    expected = task.nearest(conditions)
    lines: list[tuple[str, int, int, float, float]] = []
    for name, answers in found.items():
        pairs = zip(answers, expected, strict=True)
        recalls = [len(set(ids) & truth) / len(truth) if truth else 1.0 for (_, ids), truth in pairs]
        rows = [len(ids) for _, ids in answers]
        p50 = 1000 * median(seconds for seconds, _ in answers)
        lines.append((name, min(rows), max(rows), float(np.mean(recalls)), p50))
    recall, mine = lines[0][3:]
    good = [p50 for _, _, _, reached, p50 in lines[1:4] if reached >= min(recall, 0.97) - 0.005]
    title = f"{label}: {len(task.passing(conditions)):,} rows pass; ours is {mine / min(good):.2f} of the best by hand"
    columns = ("system", "rows min", "max", "recall@10", "p50 ms", "× ours")
    print_table(columns, [(*line, line[4] / mine) for line in lines], title=title)
