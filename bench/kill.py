"""Kills in the middle of indexing: of the process and of the server; afterwards, a clean run's rows."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import psutil
import sqlalchemy as sa

from bench.corpus import private_server
from pgneural import Database
from pgneural.load import stdlib
from pgneural.store.embedded import EmbeddedServer

TRIAL = "trial"

logger = logging.getLogger(__name__)

DIFFERENCES = """
WITH clean AS (
    SELECT d.external_id, d.title, d.content, d.metadata, d.uri, c.ordinal, c.text, c.locator, c.hash, c.source_hash,
           c.embedding
      FROM neural.documents d JOIN neural."documents_{clean}" c ON c.source_id = d.id WHERE d.collection = '{clean}'
), trial AS (
    SELECT d.external_id, d.title, d.content, d.metadata, d.uri, c.ordinal, c.text, c.locator, c.hash, c.source_hash,
           c.embedding
      FROM neural.documents d LEFT JOIN neural.documents_trial c ON c.source_id = d.id WHERE d.collection = 'trial'
)
SELECT (SELECT count(*) FROM (TABLE clean EXCEPT ALL TABLE trial) a)
     + (SELECT count(*) FROM (TABLE trial EXCEPT ALL TABLE clean) b)
"""

WITHOUT_WORDS = """
SELECT count(*) FROM neural.documents d
 WHERE d.collection = 'trial' AND NOT EXISTS (SELECT FROM neural.documents_trial_terms t WHERE t.source_id = d.id)"""


@dataclass
class Outcome:
    """What the trials gave."""

    kills: int = 0
    in_the_middle: int = 0
    without_words: int = 0
    differences: int = 0


@click.command("kill")
@click.option("--documents", default=5000, show_default=True)
@click.option("--processes", default=50, show_default=True, help="kill -9 of the indexing process.")
@click.option("--servers", default=10, show_default=True, help="kill -9 of the server.")
@click.option("--seed", default=0, show_default=True)
def command(documents: int, processes: int, servers: int, seed: int) -> None:
    """Kill, run again, compare row by row with a clean run."""
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    for victim, outcome in trials(documents, processes, servers, seed).items():
        click.echo(
            f"{outcome.kills} kills of the {victim}, {outcome.in_the_middle} of them before it was done: "
            f"{outcome.without_words} documents without words, then {outcome.differences} rows differ from a clean run"
        )
        if outcome.differences or outcome.without_words:
            raise SystemExit(1)


def trials(documents: int, processes: int, servers: int, seed: int) -> dict[str, Outcome]:
    """Index two versions of the same documents in turn, so that every trial has all of them to change."""
    rng = random.Random(seed)
    outcomes = {"process": Outcome(), "server": Outcome()}
    with private_server() as server, tempfile.TemporaryDirectory() as folder:
        versions = write_versions(Path(folder), documents)
        for name, path in versions.items():
            finish(server, path, name)  # the clean runs; what follows finds their vectors in the cache
            whole = finish(server, path, TRIAL)
        idle = finish(server, path, TRIAL)
        for number in range(processes + servers):
            victim = "process" if number < processes else "server"
            name, path = list(versions.items())[number % 2]
            outcome = outcomes[victim]
            outcome.kills += 1
            outcome.in_the_middle += killed(server, path, victim, rng.uniform(idle / 2, whole))
            outcome.without_words += counted(server, WITHOUT_WORDS)
            finish(server, path, TRIAL)
            outcome.differences += counted(server, DIFFERENCES.format(clean=name))
            logger.info("trial %d: %s", number + 1, outcomes)
    return outcomes


def write_versions(folder: Path, documents: int) -> dict[str, Path]:
    """Write docstrings of the standard library, and a version in which every text is another."""
    versions = {name: folder / f"{name}.jsonl" for name in ("clean_a", "clean_b")}
    records = list(islice(stdlib.read(), documents))
    for path, change in zip(versions.values(), ("", "Revised. "), strict=True):
        rows = ({"_id": r.external_id, "text": change + r.content * 3, "metadata": r.metadata} for r in records)
        path.write_text("\n".join(map(json.dumps, rows)))
    return versions


def start(server: EmbeddedServer, path: Path, collection: str) -> subprocess.Popen[bytes]:
    """Start an indexing process."""
    arguments = [
        "index",
        str(path),
        "--collection",
        collection,
        "--encoder",
        "hash",
        "--data-dir",
        str(server.directory),
    ]
    program = [sys.executable, "-c", "from pgneural.cli import main; main()"]
    return subprocess.Popen([*program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(server: EmbeddedServer, path: Path, collection: str) -> float:
    """Index to the end; return the seconds it took."""
    started = time.monotonic()
    status = start(server, path, collection).wait()
    assert status == 0, f"the run after a kill failed with status {status}"
    return time.monotonic() - started


def killed(server: EmbeddedServer, path: Path, victim: str, after: float) -> bool:
    """Kill the victim a while after the start; return whether indexing was not yet done."""
    process = start(server, path, TRIAL)
    time.sleep(after)
    working = process.poll() is None
    if victim == "process":
        process.kill()  # no matter if it has just ended
    else:
        pid = int((server.cluster / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        for victims in (postmaster, *postmaster.children()):  # the server first, or it would make new backends
            with contextlib.suppress(psutil.NoSuchProcess):
                victims.kill()
    process.wait()
    return working


def counted(server: EmbeddedServer, query: str) -> int:
    """Return a number from the database; it is 0 before the trial's collection is made."""
    with Database(server.start()) as db, db.engine.connect() as connection:
        if not any(status.name == TRIAL for status in db.status().collections):
            return 0
        result: Any = connection.scalar(sa.text(query))
        return int(result)
