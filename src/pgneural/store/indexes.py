"""Building the vector index of a chunk table, after its first large load, and building it anew in another way.

Building once over many rows is several times faster than inserting row by row, as long as the graph fits
the memory that the build may use; so the need is estimated and granted, within what the server has. It is built
CONCURRENTLY, so nobody waits for it; what an interrupted build leaves behind is invalid, and the next one
removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.store.catalog import current_space
from pgneural.store.engine import execute_script, quoted
from pgneural.store.owner import session_of
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import indexed_of
from pgneural.store.tables import index_name
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


def build(
    engine: sa.Engine,
    space: Space,
    progress: Progress | None = None,
    *,
    patience: int = 0,
    as_owner: bool = False,
) -> bool:
    """Build the vector index where it is missing, or invalid, and worth it; return whether it was built.

    Args:
        engine: Where.
        space: Whose vectors.
        progress: Called every `POLL_SECONDS`.
        patience: For so many seconds the build waits for each transaction that began before; 0 waits for ever.
        as_owner: Whether it is built as the owner of the source.

    Raises:
        UnknownCollection: The collection was dropped after it was opened.
    """
    with _building(engine, space) as (connection, chunks), contextlib.ExitStack() as acting:
        if as_owner:
            acting.enter_context(session_of(connection, space.id))
        _drop_invalid(connection, chunks)
        now = current_space(connection, space)
        indexed = indexed_of(now)
        if indexed.index.method is Method.NONE or _is_there(connection, now):
            return False
        rows = connection.scalar(sa.select(sa.func.count()).select_from(chunks)) or 0
        if rows < WORTH_INDEXING and now.source == DOCUMENTS.fullname:  # those of models have one from the first row
            return False
        _record(connection, now, indexed.index.over(rows))  # before it is there: a search reads as many lists as it has
        execute_script(connection, f"SET lock_timeout = '{patience}s'")
        _create(engine, connection, chunks, now, indexed, rows, progress)
        _is_there(connection, now)
    return True


def rebuild(engine: sa.Engine, space: Space, index: VectorIndex, progress: Progress | None = None) -> None:
    """Build an index of another kind beside the one that serves, and put it in its place.

    Raises:
        InvalidIndex: pgvector has no such index for these vectors.
        UnknownCollection: The collection was dropped after it was opened.
    """
    with _building(engine, space) as (connection, chunks):
        name, new, old = _names(chunks)
        now = current_space(connection, space)
        indexed = Indexed(index, *indexed_of(now).vectors)
        indexed.check()
        _drop_invalid(connection, chunks)
        rows = connection.scalar(sa.select(sa.func.count()).select_from(chunks)) or 0
        built = rows >= WORTH_INDEXING and index.method is not Method.NONE
        if built:
            _create(engine, connection, chunks, now, indexed, rows, progress, name=new)
        with engine.begin() as swapping:  # the catalog says what serves, also after a kill
            _rename(swapping, chunks, {name: old, new: name} if built else {name: old})
            _record(swapping, now, index.over(rows) if built else index)
        _drop(connection, chunks, old)


@contextmanager
def _building(engine: sa.Engine, space: Space) -> Iterator[tuple[sa.Connection, sa.Table]]:
    """Give a connection for the build of an index, and the table that it is over."""
    with engine.connect() as connection:
        schema = connection.scalar(sa.text("SELECT (parse_ident(:source))[1]"), {"source": space.source})
    chunks = sa.Table(space.chunk_table, sa.MetaData(), schema=schema)
    with one_builder(engine, chunks) as connection:
        connection.execute(_REQUIRED, {"id": space.id, "table": _beside(chunks, chunks.name)})
        yield connection, chunks


def _names(chunks: sa.Table) -> tuple[str, str, str]:
    """Return the names of the index that serves, of one that will and of one that did."""
    name = index_name(chunks)
    return name, name.removesuffix("idx") + "new", name.removesuffix("idx") + "old"


def _rename(connection: sa.Connection, chunks: sa.Table, names: dict[str, str]) -> None:
    """Rename indexes; that waits for nobody who reads or writes."""
    for before, after in names.items():
        execute_script(connection, f"ALTER INDEX IF EXISTS {_beside(chunks, before)} RENAME TO {quoted(after)}")


def _record(connection: sa.Connection, space: Space, index: VectorIndex) -> None:
    connection.execute(sa.update(Space).where(Space.id == space.id).values(vector_index=index.as_json()))


def _is_there(connection: sa.Connection, space: Space) -> bool:
    """Whether the index is valid; one that is does not wait to be built any more."""
    return bool(connection.scalar(sa.text("SELECT neural.index_is_there(:id)"), {"id": space.id}))


def _drop_invalid(connection: sa.Connection, chunks: sa.Table) -> None:
    """Drop what builds and swaps that ended early have left: it is maintained by every write, and of no use."""
    name, *left = _names(chunks)
    values = {"table": _beside(chunks, chunks.name), "name": name, "left": left}
    for useless in connection.scalars(_USELESS, values).all():
        _drop(connection, chunks, useless)


def _beside(chunks: sa.Table, name: str) -> str:
    """Return the quoted name of an index or a table in the schema of a chunk table."""
    return quoted(str(chunks.schema), name)


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
    space: Space,
    indexed: Indexed,
    rows: int,
    progress: Progress | None,
    name: str | None = None,
) -> None:
    values = {"id": space.id, "index": json.dumps(indexed.index.over(rows).as_json()), "name": name}
    definition = connection.scalar(_DEFINITION, values)
    resources = choose(connection, indexed, rows)
    if resources.needed > resources.memory and indexed.index.method is Method.HNSW:
        warnings.warn(
            f"the graph of {rows:,} vectors takes {resources.needed >> 20:,} MB, the server grants "
            f"{resources.memory >> 20:,}: building takes several times longer; raise its maintenance_work_mem, "
            "or choose a coarser precision",
            stacklevel=2,
        )
    with _watched(engine, chunks, progress):
        try:
            _concurrently(connection, definition, resources)
        except DBAPIError as error:
            short = (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory)
            if not isinstance(error.orig, short) or not resources.workers:
                raise  # else: the workers' shared memory
            _drop(connection, chunks, name or index_name(chunks))
            _concurrently(connection, definition, replace(resources, workers=0))
    execute_script(connection, f"ANALYZE {_beside(chunks, chunks.name)}")


def _concurrently(connection: sa.Connection, definition: str, resources: Resources) -> None:
    execute_script(connection, f"SET maintenance_work_mem = '{resources.memory // 1024}kB'")
    execute_script(connection, f"SET max_parallel_maintenance_workers = {resources.workers}")
    execute_script(connection, f"CREATE INDEX CONCURRENTLY {definition}")


def _drop(connection: sa.Connection, chunks: sa.Table, name: str) -> None:
    execute_script(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {_beside(chunks, name)}")


@contextmanager
def _watched(engine: sa.Engine, chunks: sa.Table, progress: Progress | None) -> Iterator[None]:
    """Report the progress of what is built on a table meanwhile."""
    if progress is None:
        yield
        return
    finished = threading.Event()
    watched = (engine, _beside(chunks, chunks.name), progress, finished)
    watcher = threading.Thread(target=_watch, args=watched, daemon=True)
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
            if row := connection.execute(query, {"table": table}).first():
                progress(BuildProgress(*row))


_REQUIRED = sa.text("""
SELECT neural.require_search_table(c.oid, s.relation) FROM neural.spaces s, pg_class c
 WHERE s.id = :id AND c.oid = to_regclass(:table)""")
"""Whoever owns a source writes the name of the table; a superuser must not drop indexes of any other."""

_USELESS = sa.text("""
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = to_regclass(:table)
   AND (c.relname = ANY (CAST(:left AS text[])) OR (c.relname = :name AND NOT i.indisvalid))""")

_DEFINITION = sa.text("SELECT neural.index_definition(:id, CAST(:index AS jsonb), :name)")
