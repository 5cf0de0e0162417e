"""Building the vector index of a chunk table, after its first large load, and building it anew in another way.

Building once over many rows is several times faster than inserting row by row, as long as the graph fits
the memory that the build may use; so the need is estimated and granted, within what the server has. It is built
CONCURRENTLY, so nobody waits for it; what an interrupted build leaves behind is invalid, and the next one
removes it.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex

from pgneural.store.catalog import current_space
from pgneural.store.engine import execute_script, quoted
from pgneural.store.schema import SCHEMA, Space
from pgneural.store.space import chunks_of, indexed_of
from pgneural.store.tables import index_name, vector_index
from pgneural.store.vectors import WIDTHS, Indexed, Method, VectorIndex

WORTH_INDEXING = 2000
"""Chunks from which a vector index pays; a search compares fewer one by one (`statement.EXACT_CHUNKS`)."""

NODE_BYTES = 500
"""What HNSW keeps for a row besides its vector, at m = 16: neighbour lists of 8 bytes each and headers."""

SHARED_MEMORY = "/dev/shm"
"""Where parallel workers of a server on this machine share the memory of a build."""

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class BuildProgress:
    """Where a build stands, as ``pg_stat_progress_create_index`` tells."""

    phase: str
    done: int
    total: int


Progress = Callable[[BuildProgress], None]


@dataclass(frozen=True)
class Resources:
    """What a build may use.

    Attributes:
        memory: Bytes of ``maintenance_work_mem``.
        workers: Processes besides the backend itself.
        needed: Bytes that the whole graph takes.
    """

    memory: int
    workers: int
    needed: int


def build(engine: sa.Engine, space: Space, progress: Progress | None = None) -> bool:
    """Build the vector index where it is missing, or invalid, and worth it; return whether it was built.

    Raises:
        UnknownCollection: The collection was dropped after it was opened.
    """
    chunks = chunks_of(space)
    name = index_name(chunks)
    with one_builder(engine, chunks) as connection:
        _drop_invalid(connection, _names(chunks))
        now = current_space(connection, space)
        indexed = indexed_of(now)
        if indexed.index.method is Method.NONE or _exists(connection, name):
            return False
        rows = connection.scalar(sa.select(sa.func.count()).select_from(chunks)) or 0
        if rows < WORTH_INDEXING:
            return False
        _create(engine, connection, chunks, vector_index(chunks, indexed, rows), indexed, rows, progress)
        _record(connection, now, indexed.index.with_options(rows))
    return True


def rebuild(engine: sa.Engine, space: Space, index: VectorIndex, progress: Progress | None = None) -> None:
    """Build an index of another kind beside the one that serves, and put it in its place.

    Raises:
        InvalidIndex: pgvector has no such index for these vectors.
        UnknownCollection: The collection was dropped after it was opened.
    """
    chunks = chunks_of(space)
    name, new, old = _names(chunks)
    with one_builder(engine, chunks) as connection:
        now = current_space(connection, space)
        indexed = Indexed(index, *indexed_of(now).vectors)
        indexed.check()
        for left in (new, old):
            _drop(connection, left)
        rows = connection.scalar(sa.select(sa.func.count()).select_from(chunks)) or 0
        built = rows >= WORTH_INDEXING and index.method is not Method.NONE
        if built:
            _create(engine, connection, chunks, vector_index(chunks, indexed, rows, name=new), indexed, rows, progress)
        with engine.begin() as swapping:  # the catalog says what serves, also after a kill
            _rename(swapping, {name: old, new: name} if built else {name: old})
            _record(swapping, now, index.with_options(rows) if built else index)
        _drop(connection, old)


def _names(chunks: sa.Table) -> tuple[str, str, str]:
    """Return the names of the index that serves, of one that will and of one that did."""
    name = index_name(chunks)
    return name, name.removesuffix("idx") + "new", name.removesuffix("idx") + "old"


def _rename(connection: sa.Connection, names: dict[str, str]) -> None:
    """Rename indexes; that waits for nobody who reads or writes."""
    for before, after in names.items():
        execute_script(connection, f"ALTER INDEX IF EXISTS {quoted(SCHEMA, before)} RENAME TO {quoted(after)}")


def _record(connection: sa.Connection, space: Space, index: VectorIndex) -> None:
    connection.execute(sa.update(Space).where(Space.id == space.id).values(vector_index=index.as_json()))


def _exists(connection: sa.Connection, name: str) -> bool:
    return bool(connection.scalar(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": quoted(SCHEMA, name)}))


def _drop_invalid(connection: sa.Connection, names: Sequence[str]) -> None:
    """Drop what builds and swaps that ended early have left: it is maintained by every write, and of no use."""
    name, *left = names
    invalid = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    if connection.scalar(invalid, {"name": quoted(SCHEMA, name)}):
        left.append(name)
    for useless in left:
        _drop(connection, useless)


def choose(connection: sa.Connection, indexed: Indexed, rows: int) -> Resources:
    """Choose memory and workers: what the graph needs, but at most a quarter of the server's cache."""
    settings = sa.text(
        "SELECT pg_size_bytes(current_setting('effective_cache_size')),"
        " pg_size_bytes(current_setting('maintenance_work_mem')),"
        " current_setting('max_parallel_maintenance_workers')::int, inet_server_addr() IS NULL,"
        " current_setting('dynamic_shared_memory_type')"
    )
    cache, usual, workers, local, sharing = connection.execute(settings).one()
    needed = int(rows * (indexed.length * WIDTHS[indexed.type] + NODE_BYTES) * 1.2)
    memory = max(min(needed, cache // 4), usual)
    if local and sharing == "posix" and workers and _shared_memory() < memory:
        workers = 0
    return Resources(memory, workers, needed)


def _shared_memory() -> int:
    """Return how many bytes are free where parallel workers share them; containers keep that small."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize


@contextmanager
def one_builder(engine: sa.Engine, chunks: sa.Table) -> Iterator[sa.Connection]:
    """Let one build at a time work on a table, and none while it is dropped.

    The lock is tried again and again, outside of any transaction: who waits for it within one has a snapshot, and
    building CONCURRENTLY waits for all of them.
    """
    key = sa.func.hashtextextended(f"pgneural index {chunks.fullname}", 0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
            time.sleep(POLL_SECONDS)
        try:
            yield connection
        finally:
            connection.invalidate()  # its locks and settings end with it


def _create(
    engine: sa.Engine,
    connection: sa.Connection,
    chunks: sa.Table,
    index: sa.Index,
    indexed: Indexed,
    rows: int,
    progress: Progress | None,
) -> None:
    resources = choose(connection, indexed, rows)
    if resources.needed > resources.memory and indexed.index.method is Method.HNSW:
        warnings.warn(
            f"the graph of {rows:,} vectors takes {resources.needed >> 20:,} MB, the server grants "
            f"{resources.memory >> 20:,}: building takes several times longer; raise its maintenance_work_mem, "
            "or choose a coarser precision",
            stacklevel=2,
        )
    with _watched(engine, chunks.name, progress):
        try:
            _concurrently(connection, index, resources)
        except DBAPIError as error:
            short = (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory)
            if not isinstance(error.orig, short) or not resources.workers:
                raise  # else: the workers' shared memory
            _drop(connection, str(index.name))
            _concurrently(connection, index, Resources(resources.memory, 0, resources.needed))
    execute_script(connection, f"ANALYZE {quoted(SCHEMA, chunks.name)}")


def _concurrently(connection: sa.Connection, index: sa.Index, resources: Resources) -> None:
    settings = {
        "maintenance_work_mem": f"{resources.memory // 1024}kB",
        "max_parallel_maintenance_workers": str(resources.workers),
    }
    for setting, value in settings.items():
        connection.execute(sa.select(sa.func.set_config(setting, value, False)))
    index.dialect_options["postgresql"]["concurrently"] = True
    connection.execute(CreateIndex(index))


def _drop(connection: sa.Connection, name: str) -> None:
    execute_script(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(SCHEMA, name)}")


@contextmanager
def _watched(engine: sa.Engine, table: str, progress: Progress | None) -> Iterator[None]:
    """Report the progress of what is built on a table meanwhile."""
    if progress is None:
        yield
        return
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(engine, table, progress, finished), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _watch(engine: sa.Engine, table: str, progress: Progress, finished: threading.Event) -> None:
    query = sa.text(
        "SELECT phase, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE relid = to_regclass(:table)"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not finished.wait(POLL_SECONDS):
            if row := connection.execute(query, {"table": quoted(SCHEMA, table)}).first():
                progress(BuildProgress(*row))
