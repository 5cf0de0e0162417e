"""Other systems, each in its own words, over the same vectors and filters. Runs in a venv of its own (rivals.txt).

Called as ``python rivals.py FOLDER URL``: reads ``FOLDER/task.npz`` and ``FOLDER/task.json``, writes
``FOLDER/answers.json``. It knows nothing of pgneural.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Find = Callable[[list[float], dict[str, Any]], list[int]]
BATCH = 1000
K = 10


def main(folder: Path, url: str) -> None:
    """Load each system, time every query under every filter, and write what was found."""
    task, arrays = json.loads((folder / "task.json").read_text()), np.load(folder / "task.npz")
    answers: dict[str, Any] = {}
    for name, load in SYSTEMS.items():
        try:
            started = time.perf_counter()
            find = load(folder / name, url, arrays["vectors"], task["rows"])
            print(f"{name}: loaded in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            answers[name] = {label: timed(find, arrays["queries"], by) for label, by in task["filters"].items()}
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    (folder / "answers.json").write_text(json.dumps(answers))


def timed(find: Find, queries: Any, by: dict[str, Any]) -> list[tuple[float, list[int]]]:
    """Return the seconds and the ids of each query; the first runs once more, unmeasured."""
    find(queries[0].tolist(), by)
    answers = []
    for query in queries:
        vector = query.tolist()
        started = time.perf_counter()
        ids = find(vector, by)
        answers.append((time.perf_counter() - started, ids))
    return answers


def batches(number: int) -> Iterator[slice]:
    """Cut a number of rows into batches."""
    return (slice(start, min(start + BATCH, number)) for start in range(0, number, BATCH))


def langchain(folder: Path, url: str, vectors: Any, rows: list[dict[str, Any]]) -> Find:
    """langchain-postgres: PGVectorStore with HNSW and typed metadata columns, each with an index."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_postgres import Column, PGEngine, PGVectorStore
    from langchain_postgres.v2.indexes import HNSWIndex

    engine = PGEngine.from_connection_string(url.replace("postgresql://", "postgresql+psycopg://"))
    columns = [Column("r", "INTEGER"), Column("year", "INTEGER"), Column("archive", "TEXT"), Column("category", "TEXT")]
    engine.init_vectorstore_table(
        "langchain", vectors.shape[1], metadata_columns=columns, id_column=Column("id", "TEXT"), overwrite_existing=True
    )
    store = PGVectorStore.create_sync(
        engine,
        DeterministicFakeEmbedding(size=vectors.shape[1]),
        "langchain",
        id_column="id",
        metadata_columns=[column.name for column in columns],
    )
    for part in batches(len(rows)):
        texts = [row["title"] for row in rows[part]]
        metadata = [{name: row[name] for name in ("r", "year", "archive", "category")} for row in rows[part]]
        ids = [str(row["id"]) for row in rows[part]]
        store.add_embeddings(texts, vectors[part].tolist(), metadata, ids)
    store.apply_vector_index(HNSWIndex())
    execute(url, *(f"CREATE INDEX ON langchain ({c.name})" for c in columns), "ANALYZE langchain")

    def find(vector: list[float], by: dict[str, Any]) -> list[int]:
        conditions = {field: {f"${op}": value} for field, op, value in by["conditions"]}
        return [int(document.id or -1) for document in store.similarity_search_by_vector(vector, K, conditions or None)]

    return find


def haystack(folder: Path, url: str, vectors: Any, rows: list[dict[str, Any]]) -> Find:
    """Haystack: PgvectorDocumentStore with HNSW."""
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

    store = PgvectorDocumentStore(
        connection_string=Secret.from_token(url),
        table_name="haystack",
        embedding_dimension=vectors.shape[1],
        vector_function="cosine_similarity",
        search_strategy="exact_nearest_neighbor",
        recreate_table=True,
    )
    for part in batches(len(rows)):
        store.write_documents(
            [
                Document(id=str(row["id"]), content=row["title"], meta=row, embedding=vector.tolist())
                for row, vector in zip(rows[part], vectors[part], strict=True)
            ]
        )
    store = PgvectorDocumentStore(
        connection_string=Secret.from_token(url),
        table_name="haystack",
        embedding_dimension=vectors.shape[1],
        vector_function="cosine_similarity",
        search_strategy="hnsw",
    )
    store._ensure_db_setup()
    execute(url, "ANALYZE haystack")
    operators = {"lt": "<", "gte": ">=", "lte": "<=", "eq": "=="}

    def find(vector: list[float], by: dict[str, Any]) -> list[int]:
        asked = by["conditions"]
        conditions = [{"field": f"meta.{field}", "operator": operators[op], "value": v} for field, op, v in asked]
        filters = {"operator": "AND", "conditions": conditions} if conditions else None
        return [int(document.id) for document in store._embedding_retrieval(vector, filters=filters, top_k=K)]

    return find


def chroma(folder: Path, url: str, vectors: Any, rows: list[dict[str, Any]]) -> Find:
    """Chroma, in the process, on disk."""
    import chromadb

    shutil.rmtree(folder, ignore_errors=True)
    client = chromadb.PersistentClient(str(folder))
    collection = client.create_collection("arxiv", metadata={"hnsw:space": "cosine"})
    for part in batches(len(rows)):
        collection.add(
            ids=[str(row["id"]) for row in rows[part]],
            embeddings=vectors[part],
            metadatas=[{name: row[name] for name in ("r", "year", "archive", "category")} for row in rows[part]],
            documents=[row["title"] for row in rows[part]],
        )

    def find(vector: list[float], by: dict[str, Any]) -> list[int]:
        conditions = [{field: {f"${op}": value}} for field, op, value in by["conditions"]]
        where: Any = conditions[0] if len(conditions) == 1 else {"$and": conditions} if conditions else None
        return [int(id_) for id_ in collection.query(query_embeddings=[vector], n_results=K, where=where)["ids"][0]]

    return find


def lance(folder: Path, url: str, vectors: Any, rows: list[dict[str, Any]]) -> Find:
    """LanceDB, in the process, on disk: IVF_HNSW_SQ, scalar indexes, filter first (its default)."""
    import lancedb
    import pyarrow

    shutil.rmtree(folder, ignore_errors=True)
    names = ("id", "title", "r", "year", "archive", "category")
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in names}
    width = vectors.shape[1]
    columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), width)
    table = lancedb.connect(str(folder)).create_table("arxiv", pyarrow.table(columns))
    table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_HNSW_SQ")
    for name in names[2:]:
        table.create_scalar_index(name)
    operators = {"lt": "<", "gte": ">=", "lte": "<=", "eq": "="}

    def find(vector: list[float], by: dict[str, Any]) -> list[int]:
        search = table.search(vector).distance_type("cosine").limit(K)
        if by["conditions"]:
            parts = [f"{field} {operators[op]} {value!r}" for field, op, value in by["conditions"]]
            search = search.where(" AND ".join(parts))
        return [row["id"] for row in search.to_list()]

    return find


def execute(url: str, *statements: str) -> None:
    """Execute statements on the server."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


SYSTEMS = {"langchain-postgres": langchain, "haystack": haystack, "chroma": chroma, "lancedb": lance}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
