"""What workers do and have done, as the catalog knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pgneural.store.schema import Space, Worker, search_name
from pgneural.store.space import read_spaces


@dataclass(frozen=True)
class SpaceStatus:
    """A space, what waits for it, and how far it is.

    Attributes:
        id: Of the space.
        source: The table, with its schema.
        attribute: The name of the search, or of the collection.
        name: Tells the spaces of one search apart.
        state: ``serving``, ``building`` or ``standby``.
        encoder: What makes its vectors.
        dimensions: Their length.
        distance: How they are compared.
        language: Of its words.
        max_tokens: The longest chunk.
        sync: When changed rows are encoded.
        pending: Rows that changed and are not encoded yet.
        oldest_seconds: How long the oldest of them has waited; None if there is none.
        failed: Rows that were given up; ``neural.failed`` says why.
        rows_per_second: What workers stored in the last five minutes.
        encoded_per_second: Chunks that they encoded for that.
        problem: Why workers leave it alone for now; None where they do not.
        readiness_problem: Why it should not serve yet; None where it can.
        chunks: About how many chunks there are, as the server's statistics know.
        bytes: Of its tables, with their indexes.
        extra: The extra vectors of its chunks: ``sparse``, ``tokens``.
    """

    id: int
    source: str
    attribute: str
    name: str
    state: str
    encoder: str
    dimensions: int
    distance: str
    language: str
    max_tokens: int
    sync: str
    pending: int
    oldest_seconds: float | None
    failed: int
    rows_per_second: float
    encoded_per_second: float
    problem: str | None
    readiness_problem: str | None
    chunks: int
    bytes: int
    extra: Sequence[str]

    @property
    def search(self) -> str:
        """The name of its search, as a person gives it."""
        return search_name(self.source, self.attribute)


@dataclass(frozen=True)
class WorkerStatus:
    """A worker that was seen of late.

    Attributes:
        id: Its name.
        host: Where it runs.
        process: Its process there.
        seconds_ago: When it was seen last.
    """

    id: str
    host: str
    process: int
    seconds_ago: float


def statuses(connection: sa.Connection, search: Space | None = None) -> list[SpaceStatus]:
    """Return the state of the spaces of a search, the one that serves first; of all searches by default."""
    of = {"source": search and search.source, "attribute": search and search.attribute}
    return [SpaceStatus(**row) for row in connection.execute(_STATUSES, of).mappings()]


def workers(connection: sa.Connection) -> list[WorkerStatus]:
    """Return the workers that were seen of late, the last first."""
    ago = sa.extract("epoch", sa.func.clock_timestamp() - Worker.seen_at)
    rows = connection.execute(sa.select(Worker.id, Worker.host, Worker.process, ago).order_by(ago))
    return [WorkerStatus(id_, host, process, float(seconds)) for id_, host, process, seconds in rows]


def spaces_with_work(connection: sa.Connection, only: Sequence[str]) -> list[Space]:
    """Return the spaces with changed rows, those that serve first.

    Args:
        connection: Where.
        only: Names of searches (``articles.search``, ``schema.articles.search``) or collections; empty for all that
            are not synced by hand.
    """
    ids = connection.scalars(_WITH_WORK, {"only": list(only)}).all()
    found = {space.id: space for space in read_spaces(connection, Space.id.in_(ids))}
    return [found[id_] for id_ in ids if id_ in found]


def unknown(connection: sa.Connection, names: Sequence[str]) -> list[str]:
    """Return which of these are names of no space."""
    return list(connection.scalars(_UNKNOWN, {"only": list(names)}))


def heartbeat(connection: sa.Connection, worker: str, host: str, process: int) -> None:
    """Note that a worker lives; forget those that have not been seen for an hour, and what was done before."""
    connection.execute(_SEEN, {"id": worker, "host": host, "process": process})
    connection.execute(_FORGET)


def explain(connection: sa.Connection, space: int, problem: str | None) -> None:
    """Note why workers leave a space alone; None where they do not."""
    connection.execute(sa.update(Space).where(Space.id == space).values(problem=problem))


def deregister(connection: sa.Connection, worker: str) -> None:
    """Note that a worker has stopped."""
    connection.execute(sa.delete(Worker).where(Worker.id == worker))


def add(connection: sa.Connection, space: int, worker: str, done: Sequence[float]) -> None:
    """Add to what a worker did for a space: rows, chunks encoded, chunks reused, seconds encoding and writing."""
    rows, encoded, reused, encode_seconds, write_seconds = done
    values = {"space": space, "worker": worker, "rows": rows, "encoded": encoded, "reused": reused}
    connection.execute(_ADD, {**values, "encode_seconds": encode_seconds, "write_seconds": write_seconds})


NAMES = """ARRAY[
       CASE s.source WHEN 'neural.documents' THEN s.attribute END, s.source || '.' || s.attribute,
       (parse_ident(s.source))[2] || '.' || s.attribute]"""
"""How a person may name the search of ``neural.spaces s``: a collection, ``schema.table.search``, ``table.search``."""

NAMED = f"{NAMES} && CAST(:only AS text[])"
"""The condition on ``neural.spaces s`` that a space is of one of these searches or collections."""

_WITH_WORK = sa.text(f"""
SELECT s.id FROM neural.spaces s
 WHERE s.kind = 'dense' AND s.reads IS NOT NULL
   AND CASE WHEN CAST(:only AS text[]) = '{{}}' THEN s.sync <> 'manual' OR s.state <> 'serving'
            OR s.source = 'neural.documents' ELSE {NAMED} END
   AND (EXISTS (SELECT FROM neural.changes c WHERE c.space_id = s.id)
        OR EXISTS (SELECT FROM neural.pending p WHERE p.space_id = s.id AND p.due <= now()))
   AND (s.state = 'serving' OR coalesce(s.resumes_at, now()) <= now())
 ORDER BY s.state = 'serving' DESC, s.id""")  # noqa: S608

_STATUSES = sa.text("""
SELECT s.id, s.source, s.attribute, s.name, s.state, s.encoder, s.dimensions, s.distance, s.language, s.max_tokens,
       s.sync, t.pending, t.oldest_seconds, t.failed, t.rows_per_second, t.encoded_per_second, s.problem,
       neural.readiness_problem(s.id) AS readiness_problem,
       coalesce((SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(k.chunks)), 0) AS chunks,
       coalesce(pg_total_relation_size(to_regclass(k.chunks)), 0)
           + coalesce(pg_total_relation_size(to_regclass(k.terms)), 0)
           + coalesce((SELECT sum(pg_total_relation_size(to_regclass(e))) FROM neural.extra_tables(s.id) e), 0)::bigint
           AS bytes,
       ARRAY(SELECT e.kind FROM neural.spaces e
              WHERE (e.source, e.attribute, e.name) = (s.source, s.attribute, s.name) AND e.kind <> 'dense'
              ORDER BY 1) AS extra
  FROM neural.spaces s JOIN neural.status t ON t.id = s.id
 CROSS JOIN LATERAL neural.space_tables(s.id) k
 WHERE CAST(:source AS text) IS NULL OR (s.source, s.attribute) = (:source, :attribute)
 ORDER BY s.source, s.attribute, s.state <> 'serving', s.id""")

_UNKNOWN = sa.text(f"""
SELECT name FROM unnest(CAST(:only AS text[])) AS name
 WHERE NOT EXISTS (SELECT FROM neural.spaces s WHERE {NAMED.replace(":only AS text[])", "ARRAY[name] AS text[])")})""")  # noqa: S608

_SEEN = sa.text("""
INSERT INTO neural.workers (id, host, process) VALUES (:id, :host, :process)
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()""")

_FORGET = sa.text("""
WITH silent AS (DELETE FROM neural.workers WHERE seen_at < now() - interval '1 hour')
DELETE FROM neural.work WHERE minute < now() - interval '1 hour'""")

_ADD = sa.text("""
INSERT INTO neural.work AS w (space_id, worker, minute, rows, encoded, reused, encode_seconds, write_seconds)
SELECT id, :worker, date_trunc('minute', clock_timestamp()), :rows, :encoded, :reused, :encode_seconds, :write_seconds
  FROM neural.spaces WHERE id = :space
    ON CONFLICT (space_id, worker, minute) DO UPDATE
   SET rows = w.rows + excluded.rows, encoded = w.encoded + excluded.encoded, reused = w.reused + excluded.reused,
       encode_seconds = w.encode_seconds + excluded.encode_seconds,
       write_seconds = w.write_seconds + excluded.write_seconds""")
