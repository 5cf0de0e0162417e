"""The pipeline against the fastest hand-written COPY, against encoding alone, and in bounded memory."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from psycopg.types.json import Jsonb

from bench.corpus import abstracts, private_server
from pgneural import Collection, Database, Record, encoders
from pgneural.chunk import chunk
from pgneural.cli.output import print_table
from pgneural.ingest.documents import Ingest
from pgneural.ingest.records import Incoming
from pgneural.store.lexical import complete
from pgneural.types import Encoder

DIMENSIONS = 384


@click.command("ingest")
@click.option("--documents", default=20_000, show_default=True, help="With precomputed vectors.")
@click.option("--encoded", default=1500, show_default=True, help="With the real encoder.")
@click.option("--runs", default=5, show_default=True)
def command(documents: int, encoded: int, runs: int) -> None:
    """Throughput with precomputed vectors and with the encoder; peak memory of 5,000 and of 50,000 documents."""
    with private_server() as server, Database(server.start()) as db:
        db.upgrade()
        rows = [precomputed(db, documents, runs), end_to_end(db, encoded, runs=3)]
    rows.append(memory())
    print_table(("", "ours", "baseline", "ratio", "asked"), rows)


def records(number: int) -> list[Record]:
    """Return abstracts with random unit vectors."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(number, DIMENSIONS)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return [
        Record(row["_id"], row["text"], row["title"], row["metadata"], embedding=point)
        for row, point in zip(itertools.islice(itertools.cycle(abstracts(number)), number), points, strict=True)
    ]


def precomputed(db: Database, number: int, runs: int) -> list[Any]:
    """Rows/s of `Ingest` against a hand-written COPY into the same two tables, then the words of all, in turn."""
    given = records(number)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(number / timed(ingest, fresh(db), given))
        theirs.append(number / timed(hand_written, fresh(db), given))
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    return [
        f"rows/s, {number:,} precomputed vectors, against COPY and then words",
        median(ours),
        median(theirs),
        ratio,
        "≥ 0.7",
    ]


def fresh(db: Database, encoder: str | Encoder = f"vectors:{DIMENSIONS}") -> Collection:
    """Return a new, empty collection; checkpointed, without cached vectors, so that no run pays or saves by another."""
    if any(status.name == "bench" for status in db.status().collections):
        db.drop("bench")
    collection = db.collection("bench", encoder=encoder)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in ("TRUNCATE neural.vectors", "VACUUM neural.documents", "CHECKPOINT"):
            connection.exec_driver_sql(statement)
    return collection


def ingest(collection: Collection, given: Sequence[Record]) -> None:
    """Do what `Collection.index` does, without the index of vectors at its end."""
    report = Ingest(collection.searcher.engine, collection.space, lambda: collection.encoder).run(Incoming(given))
    complete(collection.searcher.engine, collection.space, report.inserted)


def hand_written(collection: Collection, given: Sequence[Record]) -> None:
    """Write the same rows as an expert would: keys fetched first, one binary COPY for each table; then words."""
    header = struct.pack(">HH", DIMENSIONS, 0)
    pooled = collection.searcher.engine.raw_connection()
    connection: Any = pooled.driver_connection
    with connection.cursor() as cursor:
        keys = cursor.execute(
            "SELECT nextval(pg_get_serial_sequence('neural.documents', 'id')) FROM generate_series(1, %s)",
            (len(given),),
        ).fetchall()
        columns = "(id, collection, external_id, title, content, metadata, uri, modality)"
        with cursor.copy(f"COPY neural.documents {columns} FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "text", "text", "text", "text", "jsonb", "text", "text"])
            for (key,), r in zip(keys, given, strict=True):
                copy.write_row((key, "bench", r.external_id, r.title, r.content, Jsonb(r.metadata), r.uri, "text"))
        columns = "(source_id, ordinal, text, locator, hash, source_hash, embedding)"
        with cursor.copy(f"COPY neural.documents_bench {columns} FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "int4", "text", "jsonb", "bytea", "bytea", "bytea"])
            for (key,), r in zip(keys, given, strict=True):
                assert r.embedding is not None
                vector = header + r.embedding.astype(">f4").tobytes()
                locator = Jsonb({"content": [0, len(r.content)]})
                copy.write_row((key, 0, r.content, locator, b"0123456789abcdef", b"0123456789abcdef", vector))
    connection.commit()
    pooled.close()
    complete(collection.searcher.engine, collection.space)


def end_to_end(db: Database, number: int, runs: int) -> list[Any]:
    """Rows/s of the whole pipeline against encoding the same chunks and doing nothing else, in turn."""
    encoder = encoders.get("minilm")
    given = [Record(row["_id"], row["text"], row["title"], row["metadata"]) for row in abstracts(number)]
    space = fresh(db, encoder).space
    pieces = [
        piece.input
        for record in given
        for piece in chunk(record.body, encoder.tokenizer, max_tokens=space.max_tokens, overlap=space.overlap)
    ]
    encoder.encode_documents(pieces[:64])
    ours, theirs = [], []
    for _ in range(runs):
        theirs.append(number / timed(encoder.encode_documents, pieces))
        ours.append(number / timed(ingest, fresh(db, encoder), given))
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    return [f"rows/s, {number:,} documents end to end, against encoding", median(ours), median(theirs), ratio, "≥ 0.9"]


def memory() -> list[Any]:
    """Peak memory of ``pgneural index`` over a file of 50,000 documents and over its first 5,000."""
    small, large = (peak(number) for number in (5000, 50_000))
    return ["peak memory MiB, 50,000 against 5,000 documents", large, small, large / small, "≤ 1.2"]


def peak(number: int) -> float:
    """Return the peak resident memory in MiB of one indexing process, with the encoder that has no model."""
    with private_server() as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl"
        source = itertools.islice(itertools.cycle(abstracts(number)), number)
        lines = (json.dumps({**row, "_id": f"{at}"}) for at, row in enumerate(source))
        path.write_text("\n".join(lines))
        arguments = [
            "index",
            str(path),
            "--collection",
            "bench",
            "--encoder",
            "hash",
            "--data-dir",
            str(server.directory),
        ]
        command = [sys.executable, "-c", PEAK, *arguments]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return int(result.stdout.split()[-1]) / 1024


PEAK = """
from pgneural.cli import main
main(standalone_mode=False)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""
"""Runs the command line, and prints its own peak in KiB: a parent would be told its own memory at the fork."""


def timed(call: Any, *arguments: Any) -> float:
    """Return the seconds that a call takes, without what its arguments took to make."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started
