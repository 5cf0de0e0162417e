"""Many sessions at once through PgBouncer in transaction mode: right row counts, no setting that leaks, no error."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.corpus import abstracts, private_server
from pgneural import Collection, Database, Record, connect
from pgneural.cli.output import print_table

DOCUMENTS = 5000
SETTINGS = ("hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples")
FILTERS = {None: 1, "n % 2 = 0": 2, "n % 10 = 0": 10, "n % 100 = 0": 100, "n < 0": None}
PORT = 6439
INI = """
[databases]
{name} = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 8
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
user = {owner}
"""


@click.command("pooler")
@click.option("--pgbouncer", default=shutil.which("pgbouncer"), required=True, help="The program.")
@click.option("--sessions", default=200, show_default=True)
@click.option("--seconds", default=60, show_default=True)
def command(pgbouncer: str, sessions: int, seconds: int) -> None:
    """Search with mixed filters, modes and lengths in many sessions; every answer is checked."""
    with private_server() as server, Database(server.start()) as db:
        db.upgrade()
        collection = db.collection("arxiv", encoder="hash")
        collection.index(
            Record(row["_id"], row["text"], row["title"], {"n": n}) for n, row in enumerate(abstracts(DOCUMENTS))
        )
        with psycopg.connect(db.url) as fresh:
            expected = settings(fresh)
        with bouncer(pgbouncer, db.url) as url:
            counts = run(url, expected, sessions, seconds)
    names = ("searches", "wrong row counts", "leaked settings", "errors")
    print_table(("sessions", "seconds", *names), [(sessions, seconds, *(counts[name] for name in names))])


def run(url: str, expected: dict[str, str], sessions: int, seconds: float) -> Counter[str]:
    """Search in so many threads, each with a session of its own, until the time is over."""
    counts: Counter[str] = Counter()
    lock, until = threading.Lock(), time.monotonic() + seconds
    every = [(url, expected, seed, until, counts, lock) for seed in range(sessions)]
    threads = [threading.Thread(target=session, args=arguments) for arguments in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def session(
    url: str, expected: dict[str, str], seed: int, until: float, counts: Counter[str], lock: threading.Lock
) -> None:
    """Search again and again with one connection, and look at the settings that others may have left."""
    source = random.Random(seed)
    with connect(url, prepared=False) as db:
        collection = db.existing("arxiv")
        while time.monotonic() < until:
            found = Counter({"searches": 1})
            try:
                found["wrong row counts"] += not right(collection, source)
                if source.random() < 0.2:
                    with psycopg.connect(url, prepare_threshold=None) as other:
                        found["leaked settings"] += settings(other) != expected
            except Exception as error:
                found["errors"] += 1
                click.echo(f"{type(error).__name__}: {error}", err=True)
            with lock:
                counts.update(found)


def right(collection: Collection, source: random.Random) -> bool:
    """Search once, and tell whether there are as many hits as there must be."""
    where, step = source.choice(list(FILTERS.items()))
    mode, limit = source.choice(["semantic", "hybrid"]), source.choice([1, 10, 40])
    text = source.choice(["magnetic field", "prime numbers", "neural network", "galaxy clusters", "boundary layer"])
    filtered = where and where.replace("n", "(metadata->>'n')::int", 1)
    hits = collection.search(text, mode=mode, limit=limit, where=filtered)
    return len(hits) == min(limit, DOCUMENTS // step if step else 0) and hits.exhausted == (len(hits) < limit)


def settings(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the settings that our statements touch, as a session finds them."""
    connection.execute("SELECT '[1]'::vector")  # loads the extension, which defines them
    return {name: connection.execute(f"SHOW {name}".encode()).fetchone()[0] for name in SETTINGS}  # type: ignore[index]


@contextmanager
def bouncer(program: str, url: str) -> Iterator[str]:
    """Run PgBouncer in transaction mode before a server, with eight server connections for all."""
    parts = conninfo_to_dict(url)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users.txt").write_text(f'"{parts["user"]}" ""\n')
        owner = Path(str(parts["host"])).owner()  # of the server's socket, which nobody else may enter
        server = f"host={parts['host']} port={parts.get('port', 5432)} user={parts['user']}"
        (folder / "pgbouncer.ini").write_text(
            INI.format(name=parts["dbname"], server=server, folder=folder, port=PORT, owner=owner)
        )
        process = subprocess.Popen([program, str(folder / "pgbouncer.ini")], stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            yield make_conninfo(host="127.0.0.1", port=PORT, dbname=parts["dbname"], user=parts["user"])
        finally:
            process.terminate()
            process.wait()
