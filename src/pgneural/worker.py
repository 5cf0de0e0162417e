"""The worker: encodes what changed, on as many hosts and in as many processes as there are.

::

    listening thread    wakes the others when something was noted, and says that the worker lives
    working threads     collect → claim → encode → store, each by itself; what one encodes, another stores meanwhile

Workers know nothing of each other: the queue gives each row to one of them, and takes it back when its lease ends. A
worker that is killed loses nothing, and one that cannot reach the server tries again until it can.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgneural.encoders.permitted import permitted
from pgneural.errors import MissingPrivilege
from pgneural.ingest.batch import BATCH_ROWS
from pgneural.ingest.job import EncodeJob
from pgneural.printable import logger as logger_of
from pgneural.report import Report
from pgneural.store import lexical, monitoring, queue, vector_cache
from pgneural.store.engine import create_engine, libpq_url, translated
from pgneural.store.failures import BUSY, of_a_space, sqlstate
from pgneural.store.indexes import build
from pgneural.store.owner import AsOwner
from pgneural.store.reconcile import Reconciling
from pgneural.store.schema import Space
from pgneural.store.space_tables import SpaceTables
from pgneural.store.spaces import set_index_aside, to_be_indexed
from pgneural.types import Encoder

logger = logger_of("pgneural.worker")

CHANNEL = "neural_changes"
"""What triggers notify."""

POLL_SECONDS = 5.0
"""After so long a worker that heard nothing looks by itself: a notification may be lost, a failed row be due again."""

SHORTEST_POLL_SECONDS = 0.05
"""After work it looks again so soon, then less and less often: while it is busy, writers do not notify it."""

SEEN_SECONDS = 10.0
"""So often a worker says that it lives."""

LONGEST_PAUSE_SECONDS = 30.0
"""Between attempts to reach a server that is not there, or whose disk is full."""

READ_ONLY = "25006"
"""The SQLSTATE of what would write and may not."""

ONLY_READS = "the server only reads: a standby, or default_transaction_read_only; the worker waits until it writes"

READ_ONLY_SECONDS = 1.0
"""So often a worker looks whether a server that only reads writes by now."""

PATIENCE_SECONDS = 10
"""For so long an index that is built waits for each transaction that is open; then it is tried again."""

INDEX_SECONDS = 10.0
"""So often a worker looks whether a vector index is to be built."""

PAUSE_SECONDS = 60.0
"""For so long a space is let be after an error that is its own, such as a model that is not on this host."""

PRECOMPUTED = "vectors:"
"""Names of encoders that encode nothing."""


@dataclass
class _Shared:
    """What the threads of a worker share."""

    totals: dict[int, Report] = field(default_factory=dict)
    paused: dict[int, float] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)
    waits: bool = False
    indexes_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Worker:
    """Encodes the changed rows of all searches that are not synced by hand, and of spaces that are being built.

    Args:
        url: Where the server is.
        concurrency: How many threads work: with two, one encodes while the other stores.
        only: Names of searches, ``articles.search``, or of collections; all by default.
        make: Returns an encoder by its name and options; by default only of those that this host permits
            (`pgneural.encoders.permitted.permit`).
        as_superuser: Whether it may connect as a superuser.
    """

    def __init__(
        self,
        url: str,
        *,
        concurrency: int = 2,
        only: Sequence[str] = (),
        make: Callable[..., Encoder] = permitted,
        as_superuser: bool = False,
    ) -> None:
        self.url, self.only, self._concurrency, self._make = url, list(only), concurrency, make
        self._as_superuser = as_superuser
        self.id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.engine = create_engine(url, connections=2 * concurrency + 2)
        sa.event.listen(self.engine, "connect", _find_names_of_the_server_first)
        self._stopping, self._woken = threading.Event(), threading.Condition()
        self._shared = _Shared()
        sa.event.listen(self.engine, "checkout", self._make_anew)
        self._indexing, self._following = threading.Lock(), threading.RLock()
        self._reconciling = Reconciling(self.engine, self.only)
        self._checked = False

    @property
    def totals(self) -> dict[int, Report]:
        """What was done, by the id of the space."""
        with self._shared.lock:
            return dict(self._shared.totals)

    @property
    def problems(self) -> list[str]:
        """Why spaces are let be."""
        with self._shared.lock:
            return sorted(self._shared.problems.values())

    def stop(self) -> None:
        """Have it finish what it has begun, and end."""
        self._stopping.set()
        with self._woken:
            self._woken.notify_all()

    def run(self, *, once: bool = False) -> None:
        """Work until it is stopped.

        Args:
            once: Only until nothing is left to do. The first error of the server is then raised.
        """
        self._require_role(once)
        errors: list[BaseException] = []

        def work_on() -> None:
            try:
                self._work(once)
            except BaseException as error:
                errors.append(error)
                self.stop()

        threads = [threading.Thread(target=work_on, name=f"work {n}") for n in range(self._concurrency)]
        listening = threading.Thread(target=self._listen, name="listen", daemon=True)
        for thread in threads if once else [listening, *threads]:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self.stop()
            for thread in threads:
                thread.join()
            if not once:
                listening.join()
            self.engine.dispose()
        if errors:
            with translated():
                raise errors[0]

    def _require_role(self, once: bool) -> None:
        """Refuse to run as a superuser unless told: what the owners of tables have made would run with all rights.

        Raises:
            MissingPrivilege: The role is a superuser.
        """
        try:
            with self.engine.begin() as connection:
                superuser = connection.scalar(sa.text(_SUPERUSER))
        except (SQLAlchemyError, psycopg.Error):
            if once:
                raise
            return  # a server that is not there yet; the first turn asks again
        self._checked = True
        if superuser and not self._as_superuser:
            self.engine.dispose()
            raise MissingPrivilege(
                f"the worker is to run as {superuser}, a superuser, whose rights the owners of tables could then get; "
                "connect as a role that neural.grant_worker was called for, or say --as-superuser"
            )

    def _work(self, once: bool) -> None:
        pause, failures = SHORTEST_POLL_SECONDS, 0
        while not self._stopping.is_set():
            self._be_idle(False)
            try:
                worked = self._turn()
                self._index_now_and_then(once)
                failures = 0
            except (SQLAlchemyError, psycopg.Error) as error:
                if once:
                    raise
                failures += 1
                self._wait(self._told(error, failures))
                continue
            self._be_idle(not worked)
            if worked:
                pause = SHORTEST_POLL_SECONDS
            elif once and self._all_idle():
                self._index_what_is_filled(wait=True)
                break
            elif once:  # what another collects just now is there to be claimed in a moment
                self._wait(random.uniform(1, 2) * SHORTEST_POLL_SECONDS)
            else:
                self._wait(pause)
                pause = min(2 * pause, POLL_SECONDS)

    def _be_idle(self, idle: bool) -> None:
        with self._shared.lock:
            (self._shared.idle.add if idle else self._shared.idle.discard)(threading.get_ident())

    def _all_idle(self) -> bool:
        with self._shared.lock:
            return len(self._shared.idle) == self._concurrency

    def _told(self, error: Exception, failures: int) -> float:
        """Log what the server said; return how long to wait."""
        if sqlstate(error) == READ_ONLY:
            return self._told_to_wait()
        seconds = min(0.2 * 2**failures, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
        cause = error.orig if isinstance(error, DBAPIError) else error
        logger.warning("%s; next attempt in %.1f s", " ".join(str(cause).split())[:300], seconds)
        return float(seconds)

    def _told_to_wait(self) -> float:
        """Say once that nothing can be written here, as on a standby; it may be promoted, and then there is work."""
        with self._shared.lock:
            told, self._shared.waits = self._shared.waits, True
        if not told:
            logger.warning(ONLY_READS)
        return READ_ONLY_SECONDS

    def _make_anew(self, connection: psycopg.Connection[Any], record: Any, _: Any) -> None:
        """Have a connection that was made to read only made again, while it is waited for: settings may be others."""
        only_reads = connection.info.parameter_status("default_transaction_read_only") == "on"
        if self._shared.waits and only_reads and "left" in record.info:
            raise sa.exc.DisconnectionError("it only reads")

    def _wait(self, seconds: float) -> None:
        with self._woken:
            if not self._stopping.is_set():
                self._woken.wait(seconds)

    def _turn(self) -> bool:
        """Do one round; return whether there was anything to do."""
        if not self._checked:
            self._require_role(True)
        compared = self._reconcile()
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            spaces = [space for space in monitoring.spaces_with_work(connection, self.only) if self._ready(space)]
            earlier = [space for space in lexical.outdated(connection, self.only) if self._ready(space)]
        collected = sum(self._guarded(space, self._collect) for space in spaces)
        serving = [space for space in spaces if space.state == "serving"]
        claimed = self._encode(serving) or self._encode([space for space in spaces if space not in serving])
        refreshed = sum(self._guarded(space, self._refresh_words) for space in earlier)
        return bool(compared or collected or claimed or refreshed)

    def _index_now_and_then(self, once: bool) -> None:
        if not once and time.monotonic() >= self._shared.indexes_at:
            self._shared.indexes_at = time.monotonic() + INDEX_SECONDS
            self._index_what_is_filled()

    def _index_what_is_filled(self, *, wait: bool = False) -> None:
        """Build the vector index of spaces that are filled."""
        if not self._indexing.acquire(blocking=wait):
            return
        try:
            with self.engine.begin() as connection:
                found = to_be_indexed(connection)
            for space in found:
                self._guarded(space, self._indexed)
        finally:
            self._indexing.release()

    def _indexed(self, space: Space) -> int:
        """Build the vector index of a space; where a transaction stays open too long, the next look tries again."""
        try:
            return build(self.engine, space, patience=PATIENCE_SECONDS, as_owner=True)
        except (SQLAlchemyError, psycopg.Error) as error:
            if sqlstate(error) not in BUSY:
                raise
            logger.info("the vector index of %s waits for other transactions", space.search)
            return 0

    def _reconcile(self) -> int:
        """Compare tables with what is kept of them, from time to time; return how many differences were found."""
        found = 0
        with self._following:  # names and keys first: until they are right nobody works with them
            due = [space for space in self._reconciling.due() if self._ready(space)]
            for space in due:
                found += self._guarded(space, self._reconciling.follow)
        for space in due:
            if self._ready(space):
                found += self._guarded(space, self._reconciling.compare)
        return found

    def _ready(self, space: Space) -> bool:
        return not space.encoder.startswith(PRECOMPUTED) and self._shared.paused.get(space.id, 0.0) < time.monotonic()

    def _guarded(self, space: Space, do: Callable[[Space], int]) -> int:
        """Do something for a space; an error that is its own makes it wait, and not the others."""
        try:
            return do(space)
        except (SQLAlchemyError, psycopg.Error) as error:
            if not of_a_space(error):
                raise
            if self._followed(space):
                return 1  # something was renamed meanwhile: the next turn knows
            self._pause(space, error)
        except Exception as error:  # a model that is broken, or too large for this host, among others
            self._pause(space, error)
        return 0

    def _followed(self, space: Space) -> bool:
        """Whether what is kept of a space had to follow its table."""
        try:
            with self._following:
                return bool(self._reconciling.follow(space, repaired=True))
        except (SQLAlchemyError, psycopg.Error):
            return False

    def _pause(self, space: Space, error: Exception) -> None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        message = f"{space.search} is let be for now: {' '.join(str(cause).split())[:500]}"
        with self._shared.lock:
            self._shared.paused[space.id] = time.monotonic() + PAUSE_SECONDS
            self._shared.problems[space.id] = message
        logger.error("%s", message)
        self._say_of(space.id, " ".join(str(cause).split())[:500])

    def _collect(self, space: Space) -> int:
        owner = AsOwner(self.engine, space.id)
        with owner.begin() as connection:
            collected = queue.collect(connection, space.id)
        if collected and random.random() < collected / lexical.FOLD_EVERY:
            with owner.begin() as connection:
                terms = SpaceTables.of(connection, space).terms
            lexical.settle_apart(owner, space.id, terms)
            lexical.fold(owner, space.id)
        return collected

    def _refresh_words(self, space: Space) -> int:
        return lexical.refresh_words(AsOwner(self.engine, space.id), space.id)

    def _encode(self, spaces: Sequence[Space]) -> int:
        """Do a job of the first space that has rows to be encoded, with others of the same encoder."""
        job: EncodeJob | None = None
        encoder: tuple[str, str] | None = None
        for space in spaces:
            key = space.encoder, json.dumps(space.options, sort_keys=True)
            if encoder not in (None, key):
                continue

            def add(space: Space, key: tuple[str, str] = key) -> int:
                nonlocal job
                with AsOwner(self.engine, space.id).begin() as connection:
                    tables = SpaceTables.of(connection, space)
                    set_index_aside(connection, space.id)
                if tables.chunks is None:
                    return 0
                loaded = self._make(key[0], **json.loads(key[1]))  # before rows are claimed: it may take long
                with self.engine.begin() as connection:
                    tables.claim_revision(connection, loaded.name, loaded.revision)
                if job is None or not job.shares:  # the space before may have had nothing, and another encoder
                    job = EncodeJob(self.engine, f"{self.id}:{threading.get_ident()}", lambda: loaded, as_owner=True)
                return job.add(tables, random.randint(BATCH_ROWS // 2, BATCH_ROWS))  # lest all store at once

            if self._guarded(space, add):
                encoder = key
        if job is None or not job.shares:
            return 0
        self._run(job)
        return len(job.shares)

    def _run(self, job: EncodeJob) -> None:
        try:
            self._guarded(job.shares[0].tables.space, lambda _: job.run(self._stopping.is_set))
        finally:
            for share in job.shares:
                self._count(share.tables.space.id, share.done)
        for share in job.shares:
            if share.broken is not None:
                self._guarded(share.tables.space, functools.partial(_raise, share.broken))

    def _count(self, space: int, done: Report) -> None:
        with self._shared.lock:
            totals = self._shared.totals.setdefault(space, Report())
            totals.add(done)
            solved = bool(done.rows) and self._shared.problems.pop(space, None) is not None
        values = [done.rows, done.chunks_encoded, done.chunks_reused, done.encode_seconds, done.write_seconds]
        with self.engine.begin() as connection:
            monitoring.add(connection, space, self.id, values)
        if solved:
            self._say_of(space, None)

    def _say_of(self, space: int, problem: str | None) -> None:
        """Say in the catalog why a space is left alone, as far as the server can be reached."""
        with contextlib.suppress(SQLAlchemyError, psycopg.Error), self.engine.begin() as connection:
            monitoring.explain(connection, space, problem)

    def _listen(self) -> None:
        """Wake the others when something was noted, and say that the worker lives, until it stops."""
        failures = 0
        while not self._stopping.is_set():
            try:
                with psycopg.connect(libpq_url(self.url), autocommit=True, application_name="pgneural") as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._wake()  # of what came before
                    failures = 0
                    self._hear(connection)
            except (SQLAlchemyError, psycopg.Error) as error:
                failures += 1
                self._stopping.wait(self._told(error, failures))

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        last_beat = 0.0
        while not self._stopping.is_set():
            if time.monotonic() > last_beat + SEEN_SECONDS:
                self._say()
                with self._shared.lock:
                    self._shared.waits = False
                last_beat = time.monotonic()
            for _ in connection.notifies(timeout=0.5, stop_after=1):
                self._wake()
        with self.engine.begin() as saying:
            monitoring.deregister(saying, self.id)

    def _say(self) -> None:
        with self.engine.begin() as connection:
            monitoring.heartbeat(connection, self.id, socket.gethostname(), os.getpid())
            vector_cache.evict(connection)

    def _wake(self) -> None:
        with self._woken:
            self._woken.notify_all()


def _find_names_of_the_server_first(connection: psycopg.Connection[Any], _: Any) -> None:
    """Find names in the server's own schema and in pgvector's; those of a source are found as its owner only."""
    connection.execute(_PATH)
    connection.commit()


_PATH = """
SELECT set_config('search_path', concat_ws(', ', 'pg_catalog', extnamespace::regnamespace::text, 'pg_temp'), false)
  FROM pg_catalog.pg_extension WHERE extname = 'vector'"""

_SUPERUSER = "SELECT rolname FROM pg_roles WHERE rolname IN (current_user, session_user) AND rolsuper LIMIT 1"


def _raise(error: Exception, _: Space) -> int:
    raise error


def unknown_spaces(engine: sa.Engine, names: Sequence[str]) -> list[str]:
    """Return which of these are names of no search and no collection."""
    with engine.connect() as connection:
        return monitoring.unknown(connection, names)
