"""One job: rows of one or several spaces are claimed, read, encoded together, and stored.

A claim and each store are short transactions; nothing is read or encoded inside of one. So a job may be cut off
anywhere: what is not stored is claimed again by somebody when its lease ends.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.extra_vectors import extra_vectors_of
from pgneural.ingest.batch import BATCH_ROWS, Batch, cached_or_known, encoded
from pgneural.ingest.transaction import WORTH_ANALYZING
from pgneural.printable import warn
from pgneural.report import Report
from pgneural.store import lexical, queue
from pgneural.store.extra_vectors import store_rows
from pgneural.store.failures import BUSY, cause_of, of_a_row, sqlstate
from pgneural.store.indexes import build
from pgneural.store.owner import AsOwner, Transactions
from pgneural.store.queue import Claim
from pgneural.store.schema import Space
from pgneural.store.space_tables import EncodedRow, SpaceTables
from pgneural.store.spaces import set_index_aside, to_be_indexed
from pgneural.store.vector_cache import cache_vectors
from pgneural.types import Encoder, Vector

LOCK_MILLISECONDS = 500
"""For so long a store waits for a row that somebody is deleting: less than PostgreSQL's deadlock_timeout, so that
in a deadlock it is never the application that is cancelled."""

WAIT_SECONDS = 0.1
"""Between two looks whether workers are done with what they have. That of a dead one is free when its lease ends."""

INDEX_PATIENCE_SECONDS = 10
"""For so long the build of an index waits for transactions that began before."""

PATIENCE_SECONDS = 2 * queue.LEASE_SECONDS
"""A worker that has not stored its rows by then is let be."""

BUSY_SECONDS = 1.0
"""After so long a row that somebody was deleting is tried again."""


@dataclass
class SpaceShare:
    """The rows of one space in a job.

    Attributes:
        tables: The tables of the space.
        claim: Which rows.
        left: Their keys, but for those that are done with.
        done: What was done so far.
        broken: The error of the space itself that ended its part; the others go on.
    """

    tables: SpaceTables
    claim: Claim
    left: list[str]
    done: Report = field(default_factory=Report)
    broken: Exception | None = None

    def finish(self, keys: Iterable[str]) -> None:
        """Be done with rows, in one way or another."""
        finished = set(keys)
        self.left = [key for key in self.left if key not in finished]


class EncodeJob:
    """Rows of spaces with one encoder.

    Args:
        engine: Where they are.
        worker: Who works.
        encoder: Makes the encoder; called when the first text is to be cut.
        strict: An error is raised, as by who waits for the rows; otherwise it is noted with its row, and the others
            go on.
        as_owner: Whether each source is worked on as its owner.
    """

    def __init__(
        self,
        engine: sa.Engine,
        worker: str,
        encoder: Callable[[], Encoder],
        *,
        strict: bool = False,
        as_owner: bool = False,
    ) -> None:
        self._engine, self._worker, self._encoder, self._strict = engine, worker, encoder, strict
        self._as_owner = as_owner
        self.shares: list[SpaceShare] = []

    def add(self, tables: SpaceTables, most: int = BATCH_ROWS) -> int:
        """Claim rows of a space; return how many."""
        with self._engine.begin() as connection:
            claim = queue.claim(connection, tables.space.id, self._worker, most)
            tables.look_again(connection)
        if claim.versions:
            self.shares.append(SpaceShare(tables, claim, list(claim.versions)))
        return len(claim.versions)

    def run(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Encode and store what was claimed; where it is to stop, the slice that was begun is finished.

        Returns:
            How many rows were stored.
        """
        try:
            with queue.renewed(self._engine, [share.claim for share in self.shares]):
                while any(share.left for share in self.shares) and not stopping():
                    self._slice([share for share in self.shares if share.left])
        finally:
            self._release()
        return sum(share.done.rows for share in self.shares)

    def _slice(self, shares: Sequence[SpaceShare]) -> None:
        """Take as much of each share as is read at a time."""
        batches: dict[int, Batch] = {}
        for share in shares:
            with self._apart(share):
                batches[id(share)] = self.read(share)
        shares = [share for share in shares if id(share) in batches]
        found, new = self._vectors(shares, batches)
        for share in shares:
            batch = batches[id(share)]
            share.done.add(batch.count(new))
            batch.give(found | new)
            with self._apart(share):
                self._add_extra(share, batch)
                self.store(share, batch)
            share.finish(row.source.key for row in batch.rows)

    @contextlib.contextmanager
    def _apart(self, share: SpaceShare) -> Iterator[None]:
        """Let an error of one space end its part of the job, and not that of the others."""
        try:
            yield
        except Exception as error:
            if self._strict:
                raise
            share.broken = error
            self._give_back(share, share.left)

    def read(self, share: SpaceShare) -> Batch:
        """Read and cut the next rows of a share; those that cannot be are noted."""
        where = self._source(share)
        try:
            return Batch.read(where, share.tables, share.left, self._encoder)
        except Exception as error:
            self._refuse(error)
        batch, errors = Batch(share.tables, [], extra_vectors_of(share.tables)), {}
        for key in share.left:
            try:
                one = Batch.read(where, share.tables, [key], self._encoder)
            except Exception as error:
                errors[key] = self._refuse(error)
            else:
                batch.rows += one.rows
                batch.known |= one.known
        self._fail(share, errors)
        return batch

    def _vectors(
        self, shares: Sequence[SpaceShare], batches: Mapping[int, Batch]
    ) -> tuple[dict[bytes, Vector], dict[bytes, Vector]]:
        """Return the vectors that were known, and those that were made; rows that could not be encoded are left out."""
        every = list(batches.values())
        if not any(piece for batch in every for piece in batch.chunks):
            return {}, {}
        found: dict[bytes, Vector] = {}
        for share in shares:  # each owner has vectors of his own
            with self._source(share).begin() as connection:
                found |= cached_or_known(connection, self._encoder, [batches[id(share)]])
        started = time.perf_counter()
        try:
            new = encoded(self._encoder, every, found)
        except Exception as error:
            self._refuse(error)
            new = {}
            for share in shares:
                new |= self._encoded_singly(share, batches[id(share)], found)
        self._cache(shares, batches, new)
        for share in shares:
            share.done.encode_seconds += (time.perf_counter() - started) / len(shares)
        return found, new

    def _cache(self, shares: Sequence[SpaceShare], batches: Mapping[int, Batch], new: Mapping[bytes, Vector]) -> None:
        """Keep what was made for the owners of the rows it was made for, for each of them once."""
        by_owner: dict[str, set[bytes]] = {}
        for share in shares:
            own = {piece.hash for piece in batches[id(share)].chunks} & new.keys()
            with self._source(share).begin() as connection:
                known = by_owner.setdefault(str(connection.scalar(sa.select(sa.func.current_user()))), set())
                cache_vectors(connection, self._encoder(), {hash_: new[hash_] for hash_ in own - known})
            known |= own

    def _encoded_singly(self, share: SpaceShare, batch: Batch, found: Mapping[bytes, Vector]) -> dict[bytes, Vector]:
        new: dict[bytes, Vector] = {}
        errors = {}
        for row in list(batch.rows):
            try:
                new |= encoded(self._encoder, [batch.only(row)], {**found, **new})
            except Exception as error:
                errors[row.source.key] = self._refuse(error)
                batch.rows.remove(row)
        self._fail(share, errors)
        return new

    def _add_extra(self, share: SpaceShare, batch: Batch) -> None:
        """Make the extra vectors; rows for which that fails are noted, and left out."""
        for extra in batch.extra:
            extra.load()  # a model that is not here is an error of the space, and not of a row
        try:
            batch.add_extra(self._source(share))
        except Exception as error:
            self._refuse(error)
            errors = {}
            for row in list(batch.rows):
                row.extra.clear()
                try:
                    batch.only(row).add_extra(self._source(share))
                except Exception as one:
                    errors[row.source.key] = self._refuse(one)
                    batch.rows.remove(row)
            self._fail(share, errors)

    def store(self, share: SpaceShare, batch: Batch) -> None:
        """Store what was made of the rows of a share; where that fails, row by row."""
        started = time.perf_counter()
        try:
            self._store_together(share, batch, batch.rows)
        except (DBAPIError, psycopg.Error) as error:
            self._refuse(error)
            for row in batch.rows:
                self._store_singly(share, batch, row)
        share.done.write_seconds += time.perf_counter() - started

    def _store_singly(self, share: SpaceShare, batch: Batch, row: EncodedRow) -> None:
        try:
            self._store_together(share, batch, [row])
        except (DBAPIError, psycopg.Error) as error:
            if sqlstate(error) in BUSY or not self._exists(share, row):
                self._give_back(share, [row.source.key], BUSY_SECONDS)  # it is being deleted: that is noted, too
            else:
                self._fail(share, {row.source.key: self._refuse(error)})

    def _exists(self, share: SpaceShare, row: EncodedRow) -> bool:
        with self._source(share).begin() as connection:
            return bool(share.tables.existing(connection, [row.source.key]))

    def _store_together(self, share: SpaceShare, batch: Batch, rows: Sequence[EncodedRow]) -> None:
        """Store what is still ours and as it was; the rest goes back to the queue."""
        tables, keys = share.tables, [row.source.key for row in rows]
        with self._source(share).begin() as connection:
            connection.execute(sa.text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
            ours = queue.still_ours(connection, share.claim, keys)
            batch.claim(connection, self._encoder)
            there = tables.existing(connection, sorted(ours))
            as_read = [row for row in rows if row.source.key in ours and _agrees(row, there)]
            store_rows(connection, tables, as_read)
            finished = [row.source.key for row in as_read]
            queue.done(connection, share.claim, finished)
        share.done.rows += len(finished)
        if others := set(keys) - set(finished):
            self._give_back(share, sorted(others))

    def _refuse(self, error: Exception) -> str:
        """Return what an error says of a row; raise it where it is not the row's."""
        if self._strict or not of_a_row(error):
            raise error
        cause = cause_of(error)
        return f"{type(cause).__name__}: {' '.join(str(cause).split())[:500]}"

    def _fail(self, share: SpaceShare, errors: Mapping[str, str]) -> None:
        if errors:
            with self._engine.begin() as connection:
                queue.fail(connection, share.claim, errors)
            share.done.failed += len(errors)
            share.finish(errors)

    def _give_back(self, share: SpaceShare, keys: Sequence[str], seconds: float = 0.0) -> None:
        with self._engine.begin() as connection:
            queue.release(connection, share.claim, keys, seconds)
        share.finish(keys)

    def _release(self) -> None:
        """Give back what was not begun, as far as the server can be reached."""
        for share in self.shares:
            if share.left:
                self._give_back(share, share.left)

    def _source(self, share: SpaceShare) -> Transactions:
        """Return what begins the transactions that touch the source and what is kept of it."""
        return AsOwner(self._engine, share.tables.space.id) if self._as_owner else self._engine


def _agrees(row: EncodedRow, there: set[str]) -> bool:
    """Whether a row still exists, or still does not."""
    return (row.source.values is not None) == (row.source.key in there)


class _Others:
    """What workers have in hand when there is nothing else left: it is waited for, but not for what they take later."""

    def __init__(self, engine: sa.Engine, space: int) -> None:
        self._engine, self._space = engine, space
        self._last: int | None = None
        self._deadline = 0.0

    def at_work(self) -> bool:
        with self._engine.begin() as connection:
            versions = queue.with_others(connection, self._space)
        if versions is None:
            return False
        if self._last is None:
            self._last, self._deadline = versions[1], time.monotonic() + PATIENCE_SECONDS
        return versions[0] <= self._last and time.monotonic() < self._deadline


def drain(engine: sa.Engine, tables: SpaceTables, encoder: Callable[[], Encoder]) -> Report:
    """Bring a space up to date, for who waits for it; return what was done."""
    report, worker, others = Report(), f"sync {uuid.uuid4()}", _Others(engine, tables.space.id)
    with engine.begin() as connection:
        set_index_aside(connection, tables.space.id)
    while True:
        with engine.begin() as connection:
            collected = queue.collect(connection, tables.space.id)
        report.rows += collected if tables.chunks is None else 0
        if collected:
            continue
        job = EncodeJob(engine, worker, encoder, strict=True)
        if tables.chunks is None or not job.add(tables):
            if tables.chunks is None or not others.at_work():
                break
            time.sleep(WAIT_SECONDS)
            continue
        job.run()
        report.add(job.shares[0].done)
    lexical.settle_apart(engine, tables.space.id, tables.terms)
    lexical.fold(engine, tables.space.id)
    with engine.begin() as connection:
        if report.rows >= WORTH_ANALYZING:
            tables.analyze(connection)
        waits = any(space.id == tables.space.id for space in to_be_indexed(connection))
    if waits:  # set aside now, or by a run that was stopped
        _build_index(engine, tables.space)
    return report


def _build_index(engine: sa.Engine, space: Space) -> None:
    """Build the vector index, unless a transaction stays open too long: perhaps one of this very program."""
    try:
        build(engine, space, patience=INDEX_PATIENCE_SECONDS)
    except (DBAPIError, psycopg.Error) as error:
        if sqlstate(error) not in BUSY:
            raise
        warn(
            f"the vector index of {space.search} is not built yet, because another transaction is "
            "open; a worker, the next sync() or pgneural space index builds it"
        )
