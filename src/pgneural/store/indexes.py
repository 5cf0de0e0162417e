"""Building the vector index of a chunk table, after its first large load.

Building once over many rows is several times faster than inserting row by row, as long as the graph fits
the memory that the build may use; so the need is estimated and granted, within what the server has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.store.catalog import chunks_of, distance_of
from pgneural.store.engine import execute_script, quoted
from pgneural.store.schema import SCHEMA, Space, vector_index

WORTH_INDEXING = 2000
"""Chunks from which a vector index pays; a search compares fewer one by one (`statement.EXACT_CHUNKS`)."""

HNSW_DIMENSIONS = 2000
"""pgvector's limit for indexing the ``vector`` type."""

NODE_BYTES = 500
"""What HNSW keeps for a row besides its vector, at m = 16: neighbour lists of 8 bytes each and headers."""

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class BuildProgress:
    """Where a build stands, as ``pg_stat_progress_create_index`` tells."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class Resources:
    """What a build may use: bytes of memory, and workers besides the backend itself."""

    memory: int
    workers: int


def build(engine: sa.Engine, space: Space, progress: Callable[[BuildProgress], None] | None = None) -> bool:
    """Build the vector index where it is missing and worth it; return whether it was built.

    Writers of the chunk table wait while it is built, readers do not. A build that is interrupted leaves
    nothing behind.
    """
    chunks = chunks_of(space)
    index = vector_index(chunks, distance_of(space))
    with engine.begin() as connection:
        if space.dimensions > HNSW_DIMENSIONS or _exists(connection, chunks, str(index.name)):
            return False
        rows = connection.scalar(sa.select(sa.func.count()).select_from(chunks)) or 0
        if rows < WORTH_INDEXING:
            return False
        resources = choose(connection, rows, space.dimensions)
    try:
        _create(engine, index, chunks, resources, progress)
    except DBAPIError as error:
        if not isinstance(error.orig, (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory)) or not resources.workers:
            raise  # else: parallel workers share their memory in /dev/shm, which containers keep small
        _create(engine, index, chunks, Resources(resources.memory, 0), progress)
    return True


def choose(connection: sa.Connection, rows: int, dimensions: int) -> Resources:
    """Choose memory and workers: what the graph needs, but at most a quarter of the server's cache."""
    settings = sa.text(
        "SELECT pg_size_bytes(current_setting('effective_cache_size')),"
        " pg_size_bytes(current_setting('maintenance_work_mem')),"
        " current_setting('max_parallel_maintenance_workers')::int"
    )
    cache, usual, workers = connection.execute(settings).one()
    needed = int(rows * (dimensions * 4 + NODE_BYTES) * 1.2)
    return Resources(max(min(needed, cache // 4), usual), workers)


def _exists(connection: sa.Connection, chunks: sa.Table, name: str) -> bool:
    return any(index["name"] == name for index in sa.inspect(connection).get_indexes(chunks.name, chunks.schema))


def _create(
    engine: sa.Engine,
    index: sa.Index,
    chunks: sa.Table,
    resources: Resources,
    progress: Callable[[BuildProgress], None] | None,
) -> None:
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(engine, chunks, progress, finished), daemon=True)
    try:
        with engine.begin() as connection:
            connection.execute(_local("maintenance_work_mem", f"{resources.memory // 1024}kB"))
            connection.execute(_local("max_parallel_maintenance_workers", str(resources.workers)))
            if progress:
                watcher.start()
            key = sa.func.hashtextextended(f"pgneural index {chunks.fullname}", 0)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))  # builders wait for one another
            index.create(connection, checkfirst=True)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            execute_script(connection, f"ANALYZE {quoted(SCHEMA, chunks.name)}")
    finally:
        finished.set()
        if watcher.is_alive():
            watcher.join()


def _local(setting: str, value: str) -> sa.Select[tuple[str]]:
    return sa.select(sa.func.set_config(setting, value, True))


def _watch(
    engine: sa.Engine,
    chunks: sa.Table,
    progress: Callable[[BuildProgress], None],
    finished: threading.Event,
) -> None:
    query = sa.text(
        "SELECT phase, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE relid = to_regclass(:table)"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        table = quoted(SCHEMA, chunks.name)
        while not finished.wait(POLL_SECONDS):
            if row := connection.execute(query, {"table": table}).first():
                progress(BuildProgress(*row))
