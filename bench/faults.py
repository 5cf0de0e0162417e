"""Rows that change without a pause, workers and the server killed; afterwards, the chunks of a clean rebuild."""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click
import psutil
import psycopg
import sqlalchemy as sa

from bench.corpus import private_server
from pgneural import Database
from pgneural.store.embedded import EmbeddedServer
from pgneural.store.engine import libpq_url
from pgneural.worker import Worker

logger = logging.getLogger(__name__)

WRITERS = 3

WORDS = [
    f"{a}{b}" for a in ("fox", "owl", "ibis", "gnu", "zebra", "wolf", "cat") for b in ("", "es", "ed", "ing", "ly")
]


@dataclass
class Outcome:
    """What the test gave.

    Attributes:
        statements: Those that the server took.
        worker_kills: How often a worker was killed.
        server_kills: How often the server was.
        rows: How many there were in the end.
        seconds: How long the workers took to finish after the last change.
        faults: Chunks, and rows of words, that are missing, stale, there twice, or of no row.
    """

    statements: int = 0
    worker_kills: int = 0
    server_kills: int = 0
    rows: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)


@click.command("faults")
@click.option("--seconds", default=600, show_default=True)
@click.option("--rows", default=30_000, show_default=True)
@click.option("--workers", default=4, show_default=True)
@click.option("--worker-every", default=10.0, show_default=True, help="Seconds between two kill -9 of a worker.")
@click.option("--server-every", default=60.0, show_default=True, help="Seconds between two kill -9 of the server.")
@click.option("--seed", default=0, show_default=True)
def command(seconds: float, rows: int, workers: int, worker_every: float, server_every: float, seed: int) -> None:
    """Change rows at random under kills, then compare every chunk with those of a clean rebuild."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    outcome = trial(seconds, rows, workers, worker_every, server_every, seed)
    click.echo(
        f"{outcome.statements:,} statements, {outcome.worker_kills} kills of a worker, {outcome.server_kills} of the "
        f"server; {outcome.rows:,} rows in the end, up to date {outcome.seconds:.0f} s after the last change"
    )
    click.echo(", ".join(f"{count} {kind}" for kind, count in outcome.faults.items()))
    raise SystemExit(1 if any(outcome.faults.values()) else 0)


def trial(seconds: float, rows: int, workers: int, worker_every: float, server_every: float, seed: int) -> Outcome:
    """Run the test."""
    outcome, ending = Outcome(), threading.Event()
    rng = random.Random(seed)
    with private_server() as server:
        url = prepared(server, rows)
        running = [started(url) for _ in range(workers)]
        writers = [Writer(url, random.Random(seed + number), rows, number, ending) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        end = time.monotonic() + seconds
        next_worker, next_server = time.monotonic() + worker_every, time.monotonic() + server_every
        try:
            while time.monotonic() < end:
                time.sleep(0.1)
                if time.monotonic() > next_worker:
                    number = rng.randrange(workers)
                    kill(running[number])
                    running[number] = started(url)
                    outcome.worker_kills += 1
                    next_worker += worker_every
                if time.monotonic() > next_server:
                    kill_server(server)
                    server.start()
                    outcome.server_kills += 1
                    next_server += server_every
                    logger.info("%d s left: %s", end - time.monotonic(), outcome)
            ending.set()
            for writer in writers:
                writer.join()
            outcome.statements = sum(writer.statements for writer in writers)
            outcome.seconds = until_idle(url, running)
        finally:
            ending.set()
            for process in running:
                kill(process)
        outcome.rows, outcome.faults = compared(url)
    return outcome


def prepared(server: EmbeddedServer, rows: int) -> str:
    """Make the table and its search; return where the server is."""
    with Database(server.start()) as db:
        db.upgrade()
        with db.engine.begin() as connection:
            for statement in (TABLE, FILL.format(rows=rows), WATCH.format(table="articles")):
                connection.exec_driver_sql(statement.replace("%", "%%"))
        return db.url


def started(url: str) -> subprocess.Popen[bytes]:
    """Start a worker."""
    program = [
        sys.executable,
        "-c",
        "from pgneural.cli import main; main()",
        "worker",
        "--as-superuser",
        "--database",
        url,
    ]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process without warning."""
    process.kill()
    process.wait()


def kill_server(server: EmbeddedServer) -> None:
    """Kill the server without warning, first the postmaster, which would make new backends."""
    postmaster = psutil.Process(int((server.cluster / "postmaster.pid").read_text().split()[0]))
    for victim in (postmaster, *postmaster.children()):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()


class Writer(threading.Thread):
    """Changes rows at random, in statements and transactions of all kinds."""

    def __init__(self, url: str, rng: random.Random, rows: int, number: int, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._rng, self._rows, self._ending = libpq_url(url), rng, rows, ending
        self._next = self._own = (number + 1) * 10_000_000
        self.statements = 0

    def run(self) -> None:
        """Write until it is told to end; when the server is gone, connect again."""
        while not self._ending.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as connection:
                while not self._ending.is_set():
                    self._write(connection)
            time.sleep(0.1)

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        kinds: list[Callable[[psycopg.Connection[Any]], None]] = [
            self._insert, self._update, self._update, self._remove, self._again, self._bulk_update, self._bulk_delete,
            self._copy, self._rolled_back, self._savepoints, self._key, self._merge,
        ]  # fmt: skip
        weights = [8, 12, 8, 6, 4, 1, 1, 1, 2, 2, 1, 1]
        try:
            self._rng.choices(kinds, weights)[0](connection)
            self.statements += 1
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
            pass
        time.sleep(self._rng.expovariate(15))

    def _some(self) -> int:
        """Return the key of one of the first rows, or of those that this writer has added."""
        if self._rng.random() < 0.5:
            return self._rng.randrange(1, self._rows)
        return self._rng.randrange(self._own, self._next + 1)

    def _text(self) -> str:
        return " ".join(self._rng.choices(WORDS, k=self._rng.randrange(0, 60)))

    def _new(self) -> int:
        self._next += 1
        return self._next

    def _insert(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("INSERT INTO articles VALUES (%s, %s, %s)", (self._new(), self._text(), self._text()))

    def _update(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("UPDATE articles SET body = %s WHERE id = %s", (self._text(), self._some()))

    def _remove(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("DELETE FROM articles WHERE id = %s", (self._some(),))

    def _again(self, connection: psycopg.Connection[Any]) -> None:
        with connection.transaction():
            key = self._some()
            row = connection.execute("DELETE FROM articles WHERE id = %s RETURNING *", (key,)).fetchone()
            if row:
                connection.execute("INSERT INTO articles VALUES (%s, %s, %s)", row)

    def _bulk_update(self, connection: psycopg.Connection[Any]) -> None:
        first = self._some()
        connection.execute(
            "UPDATE articles SET title = title || ' ' || %s WHERE id BETWEEN %s AND %s",
            (self._rng.choice(WORDS), first, first + 300),
        )

    def _bulk_delete(self, connection: psycopg.Connection[Any]) -> None:
        first = self._some()
        connection.execute("DELETE FROM articles WHERE id BETWEEN %s AND %s", (first, first + 150))

    def _copy(self, connection: psycopg.Connection[Any]) -> None:
        with connection.cursor() as cursor, cursor.copy("COPY articles FROM STDIN") as copy:
            for _ in range(self._rng.randrange(1, 200)):
                copy.write_row((self._new(), self._text(), self._text()))

    def _rolled_back(self, connection: psycopg.Connection[Any]) -> None:
        with connection.transaction(force_rollback=True):
            self._insert(connection)
            self._bulk_update(connection)
            self._remove(connection)

    def _savepoints(self, connection: psycopg.Connection[Any]) -> None:
        with connection.transaction():
            self._update(connection)
            with connection.transaction(force_rollback=True):
                self._remove(connection)
                self._insert(connection)
            self._insert(connection)
            time.sleep(self._rng.random() / 5)

    def _key(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("UPDATE articles SET id = %s WHERE id = %s", (self._new(), self._some()))

    def _merge(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(
            "MERGE INTO articles a USING (SELECT %s + n AS id, %s AS body FROM generate_series(1, 20) n) s"
            " ON a.id = s.id WHEN MATCHED AND s.id %% 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET body = s.body"
            " WHEN NOT MATCHED THEN INSERT VALUES (s.id, '', s.body)",
            (self._some(), self._text()),
        )


def until_idle(url: str, running: list[subprocess.Popen[bytes]]) -> float:
    """Wait until nothing is pending; return how long it took."""
    begun = time.monotonic()
    with Database(url) as db:
        while any(status.pending for status in db.work()):
            assert time.monotonic() < begun + 1800, f"still pending: {db.work()}"
            assert all(process.poll() is None for process in running), "a worker ended by itself"
            time.sleep(0.2)
    return time.monotonic() - begun


def compared(url: str) -> tuple[int, dict[str, int]]:
    """Encode a copy of the rows from nothing; return how many there are, and what differs."""
    with Database(url) as db:
        with db.engine.begin() as connection:
            for statement in (COPY, WATCH.format(table="clean"), "TRUNCATE neural.vectors"):
                connection.exec_driver_sql(statement.replace("%", "%%"))
        Worker(url, as_superuser=True).run(once=True)
        with db.engine.begin() as connection:
            faults = {kind: int(connection.scalar(sa.text(sql)) or 0) for kind, sql in FAULTS.items()}
            return connection.scalar(sa.text("SELECT count(*) FROM articles")) or 0, faults


TABLE = "CREATE TABLE articles (id bigint PRIMARY KEY, title text NOT NULL, body text NOT NULL)"

FILL = (
    "INSERT INTO articles SELECT n, 'title ' || n, 'fox ' || md5(n::text) || ' owls' FROM generate_series(1, {rows}) n"
)

WATCH = "SELECT neural.watch('{table}', '{{title,body}}', encoder => 'hash', dimensions => 256, max_tokens => 32)"

COPY = "CREATE TABLE clean (LIKE articles INCLUDING ALL); INSERT INTO clean TABLE articles"

_CHUNKS = ("search", "source_id, ordinal", "text, locator, hash, source_hash, embedding")
_WORDS = ("search_terms", "source_id", "language, lexemes, length")


def _faults(table: str, key: str, columns: str) -> dict[str, str]:
    ours, clean = f"articles_{table}", f"clean_{table}"
    return {
        f"missing in {table}": f"SELECT count(*) FROM (SELECT {key} FROM {clean} EXCEPT SELECT {key} FROM {ours}) m",  # noqa: S608
        f"stale in {table}": "SELECT count(*) FROM ("  # noqa: S608
        f"SELECT {key}, {columns} FROM {ours} EXCEPT SELECT {key}, {columns} FROM {clean}) s",
        f"twice in {table}": f"SELECT count(*) FROM (SELECT 1 FROM {ours} GROUP BY {key} HAVING count(*) > 1) d",  # noqa: S608
        f"orphan in {table}": f"SELECT count(*) FROM {ours} o"  # noqa: S608
        " WHERE NOT EXISTS (SELECT FROM articles a WHERE a.id = o.source_id)",
    }


FAULTS = {
    **_faults(*_CHUNKS),
    **_faults(*_WORDS),
    "failed rows": "SELECT count(*) FROM neural.failed",
    "wrong document frequencies": """
        SELECT count(*) FROM (
            SELECT lexeme, sum(documents) FROM neural.term_counts
             WHERE space_id = (SELECT id FROM neural.spaces WHERE source = 'public.articles') GROUP BY 1
            HAVING sum(documents) <> 0
            EXCEPT SELECT lexeme, count(*) FROM articles_search_terms, unnest(lexemes) GROUP BY 1) f""",
}
