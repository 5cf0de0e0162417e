"""The queue of changed rows: collecting, claiming, and saying how it went (``sql/45_queue.sql``)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pgneural.store.space_tables import as_json

COLLECT_ROWS = 1000
"""About how many rows a transaction makes the words of: some tenths of a second."""

LEASE_SECONDS = 30
"""For so long a claimed row is nobody else's. A worker that died leaves its rows to the others after it."""

ATTEMPTS = 5
"""After so many failures a row is given up: with waits of 1, 4, 16 and 64 seconds between them."""


@dataclass(frozen=True)
class Claim:
    """Rows of one space that a worker has to itself for a while.

    Attributes:
        space: The id of the space.
        worker: Who has them.
        versions: The version of each, by its key as JSON.
    """

    space: int
    worker: str
    versions: Mapping[str, int]


def collect(connection: sa.Connection, space: int) -> int:
    """Index the words of about `COLLECT_ROWS` noted rows and make them pending; return how many."""
    statement = sa.text("SELECT neural.collect(:space, :most)")
    return connection.scalar(statement, {"space": space, "most": COLLECT_ROWS}) or 0


def take(connection: sa.Connection, space: int, most: int, *, own: bool) -> list[str]:
    """Take rows off the queue, to be stored in the same transaction; their words are indexed already.

    Args:
        connection: In the transaction.
        space: The id of the space.
        most: About how many.
        own: Only those that the transaction itself has changed.
    """
    statement = sa.text("SELECT jsonb_array_elements(neural.take(:space, :most, :own))::text")
    return list(connection.scalars(statement, {"space": space, "most": most, "own": own}))


def claim(connection: sa.Connection, space: int, worker: str, most: int) -> Claim:
    """Claim pending rows, those that have waited longest first; it may be fewer, or none."""
    statement = sa.text("SELECT key::text, version FROM neural.claim(:space, :worker, :most, :lease * interval '1 s')")
    values = {"space": space, "worker": worker, "most": most, "lease": LEASE_SECONDS}
    rows = connection.execute(statement, values).all()
    return Claim(space, worker, {row[0]: row[1] for row in rows})


def still_ours(connection: sa.Connection, claim: Claim, keys: Sequence[str]) -> set[str]:
    """Lock those of the claimed rows that have not changed, and were given to nobody else."""
    seen = json.dumps([{"key": json.loads(key), "version": claim.versions[key]} for key in keys])
    values = {"space": claim.space, "worker": claim.worker, "versions": seen}
    return set(connection.scalars(_LOCK, values))


@contextlib.contextmanager
def renewed(engine: sa.Engine, claims: Sequence[Claim]) -> Iterator[None]:
    """Renew the leases of claims for as long as the block runs, from a thread."""
    finished = threading.Event()

    def renew() -> None:
        while not finished.wait(LEASE_SECONDS / 3):
            with contextlib.suppress(sa.exc.SQLAlchemyError), engine.begin() as connection:
                for claim in claims:
                    values = {"space": claim.space, "worker": claim.worker, "keys": as_json(claim.versions)}
                    connection.execute(_RENEW, {**values, "lease": LEASE_SECONDS})

    thread = threading.Thread(target=renew, name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def done(connection: sa.Connection, claim: Claim, keys: Sequence[str]) -> None:
    """Take stored rows off the queue."""
    connection.execute(_DONE, {"space": claim.space, "keys": as_json(keys)})


def release(connection: sa.Connection, claim: Claim, keys: Sequence[str], seconds: float = 0.0) -> None:
    """Give claimed rows back; nobody gets them for so many seconds."""
    statement = sa.text("SELECT neural.release(:space, :worker, (:keys)::jsonb, :seconds * interval '1 s')")
    values = {"space": claim.space, "worker": claim.worker, "keys": as_json(keys), "seconds": seconds}
    connection.execute(statement, values)


def fail(connection: sa.Connection, claim: Claim, errors: Mapping[str, str]) -> None:
    """Say why claimed rows failed; they are tried again later, or given up."""
    failures = json.dumps([{"key": json.loads(key), "error": error} for key, error in errors.items()])
    statement = sa.text("SELECT neural.fail(:space, :worker, (:failures)::jsonb, :most)")
    values = {"space": claim.space, "worker": claim.worker, "failures": failures, "most": ATTEMPTS}
    connection.execute(statement, values)


def retry(connection: sa.Connection) -> int:
    """Have all rows that were given up tried again; return how many."""
    return connection.scalar(sa.text("SELECT neural.retry()")) or 0


def waiting(connection: sa.Connection, space: int) -> int:
    """Return how many rows are to be encoded."""
    return connection.scalar(sa.text(_WAITING), {"space": space}) or 0


def with_others(connection: sa.Connection, space: int) -> tuple[int, int] | None:
    """Return the lowest and the highest version of the rows that others are at work on; None if there are none."""
    lowest, highest = connection.execute(_WITH_OTHERS, {"space": space}).one()
    return None if lowest is None else (lowest, highest)


_LOCK = sa.text("""
SELECT p.key::text
  FROM jsonb_to_recordset((:versions)::jsonb) AS seen(key jsonb, version bigint)
  JOIN neural.pending p
    ON p.space_id = :space AND p.key = seen.key AND p.version = seen.version AND p.claimed_by = :worker
 ORDER BY p.key FOR UPDATE OF p SKIP LOCKED""")

_WITH_OTHERS = sa.text("""
SELECT min(version), max(version) FROM neural.pending WHERE space_id = :space AND claimed_by IS NOT NULL""")

_RENEW = sa.text("""
UPDATE neural.pending p SET due = now() + :lease * interval '1 s'
  FROM jsonb_array_elements((:keys)::jsonb) AS k(key)
 WHERE p.space_id = :space AND p.key = k.key AND p.claimed_by = :worker""")

_DONE = sa.text("""
DELETE FROM neural.pending p USING jsonb_array_elements((:keys)::jsonb) AS k(key)
 WHERE p.space_id = :space AND p.key = k.key""")

_WAITING = """
SELECT count(*) FROM (
    SELECT key FROM neural.pending WHERE space_id = :space
    UNION SELECT jsonb_array_elements(keys) FROM neural.changes WHERE space_id = :space) AS every"""
