"""Readers and writers throughout a change of the model: every answer is of one space, and right for it."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np

from bench.corpus import private_server
from bench.faults import kill, started
from pgneural import Database, encoders
from pgneural.active_space import PREPARE_JITTER_SECONDS
from pgneural.cli.output import print_table

OLD: dict[str, Any] = {"dimensions": 256}
NEW: dict[str, Any] = {"dimensions": 96}

WORDS = [f"{a}{b}{c}" for a in ("ba", "do", "fi", "gu", "ke") for b in ("la", "mo", "ni", "ru") for c in "bdkmnpst"]

PAUSE_SECONDS = 0.25
"""Of a reader between two searches: who measures a pause must not make it by wanting more than the processors give."""

TOLERANCE = 2e-3
"""Of a score: the index keeps 16 bits of a number."""


@dataclass
class ResolvedSpace:
    """One search.

    Attributes:
        at: When it began.
        seconds: How long it took.
        spaces: Under which encoders the scores of all its hits are right: of the old space, of the new one.
        found: Whether the row that was asked for came first.
    """

    at: float
    seconds: float
    spaces: frozenset[str]
    found: bool


@dataclass
class Outcome:
    """What the test gave.

    Attributes:
        answers: All searches.
        events: When each step was done.
        errors: What readers and writers met.
        writes: How many statements the writers made.
    """

    answers: list[ResolvedSpace] = field(default_factory=list)
    events: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    writes: int = 0

    @property
    def wrong(self) -> int:
        """How many answers are of no space, or do not find what was asked for."""
        return sum(not answer.spaces or not answer.found for answer in self.answers)

    def during(self, since: float, until: float) -> list[float]:
        """Return how long the searches took that overlap a time, in milliseconds."""
        return [a.seconds * 1000 for a in self.answers if a.at + a.seconds > since and a.at < until]


@click.command("switch")
@click.option("--rows", default=10_000, show_default=True)
@click.option("--readers", default=8, show_default=True)
@click.option("--writers", default=2, show_default=True)
def command(rows: int, readers: int, writers: int) -> None:
    """Create a space, fill, index, switch, go back, switch again; meanwhile, read and write."""
    outcome = trial(rows, readers, writers)
    for error in outcome.errors[:5]:
        click.echo(error)
    if not outcome.answers:
        raise SystemExit(1)
    times = np.array([answer.seconds for answer in outcome.answers]) * 1000
    of = {name: sum(answer.spaces == {name} for answer in outcome.answers) for name in ("old", "new")}
    click.echo(
        f"{len(times):,} answers ({of['old']:,} of the old space, {of['new']:,} of the new), {outcome.wrong} wrong; "
        f"{outcome.writes:,} writes; {len(outcome.errors)} errors; p50 {np.median(times):.1f} ms, "
        f"p99 {np.percentile(times, 99):.1f} ms"
    )
    steps = list(outcome.events.items())
    results = []
    for (name, at), (_, end) in zip(steps, [*steps[1:], ("", float("inf"))], strict=True):
        during = outcome.during(at, end)
        results.append((name, len(during), *(f"{np.percentile(during or [np.nan], p):.1f}" for p in (50, 99, 100))))
    print_table(("from this step to the next", "searches", "p50, ms", "p99, ms", "longest, ms"), results)
    raise SystemExit(1 if outcome.wrong or outcome.errors else 0)


def trial(rows: int, readers: int, writers: int, *, pause: float = PREPARE_JITTER_SECONDS + 2) -> Outcome:
    """Run the test; all readers have time to follow every step."""
    outcome = Outcome()
    spawn = multiprocessing.get_context("spawn")
    results: Any = spawn.Queue()
    ending = spawn.Event()
    with private_server() as server, Database(server.start()) as db:
        db.upgrade()
        notes = db.collection("notes", encoder="hash", **OLD)
        notes.index({"id": str(n), "text": text(n)} for n in range(rows))
        worker = started(db.url)
        there = spawn.Barrier(readers + 1)
        reading = [spawn.Process(target=read, args=(db.url, rows, n, results, there, ending)) for n in range(readers)]
        writing = [threading.Thread(target=write, args=(db, rows, n, outcome, ending)) for n in range(writers)]
        gathering = threading.Thread(target=gather, args=(outcome, results, readers))
        clients: list[Any] = [*writing, *reading, gathering]
        for each in clients:
            each.start()
        try:
            with contextlib.suppress(threading.BrokenBarrierError):  # a reader tells what it met
                there.wait(120)
                steps(db, outcome, worker, pause)
        finally:
            ending.set()
            for each in clients:
                each.join(60)
            kill(worker)
    return outcome


def steps(db: Database, outcome: Outcome, worker: subprocess.Popen[bytes], pause: float) -> None:
    """Change the model, and back, and again."""

    def step(name: str, do: Callable[[], object]) -> None:
        outcome.events[name] = time.time()
        do()
        time.sleep(pause)

    def until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not done():
            assert time.monotonic() < deadline, db.spaces("notes")
            assert worker.poll() is None, "the worker ended by itself"
            time.sleep(0.2)

    def other() -> Any:
        return next(space for space in db.spaces("notes") if space.name == "new")

    def switched() -> None:
        until(lambda: other().pending < 50)
        db.switch_space("notes", "new", force=True)  # writers never end: a few rows are always on their way

    step("before", lambda: time.sleep(pause))
    step("create", lambda: db.create_space("notes", "new", encoder="hash", options=NEW))
    step("fill", lambda: until(lambda: other().pending < 50))
    step("index", lambda: db.index_space("notes", "new"))
    step("switch", switched)
    step("rollback", lambda: db.rollback_space("notes"))
    step("switch again", switched)


def text(number: int) -> str:
    """Return the text of a row that stays as it is."""
    return " ".join(random.Random(number).choices(WORDS, k=12)) + f" n{number}"


def read(url: str, rows: int, number: int, results: Any, there: Any, ending: Any) -> None:
    """Search for stable rows, and check every score by both encoders."""
    rng = random.Random(number)
    both = {"old": encoders.get("hash", **OLD), "new": encoders.get("hash", **NEW)}
    try:
        with Database(url) as db:
            notes = db.existing("notes")
            notes.search(text(0), mode="semantic", limit=5)
            there.wait(120)
            while not ending.is_set():
                wanted = rng.randrange(rows)
                query = text(wanted)
                at, begun = time.time(), time.perf_counter()
                hits = notes.search(query, mode="semantic", limit=5)
                seconds = time.perf_counter() - begun
                right = frozenset(name for name, encoder in both.items() if agrees(encoder, query, hits))
                results.put(ResolvedSpace(at, seconds, right, bool(hits) and hits[0].entity.external_id == str(wanted)))
                time.sleep(rng.uniform(0, 2 * PAUSE_SECONDS))
    except Exception as error:
        there.abort()
        results.put(f"reader: {type(error).__name__}: {error}")
    results.put(None)


def agrees(encoder: Any, query: str, hits: Sequence[Any]) -> bool:
    """Whether the scores of hits are those of an encoder."""
    asked = encoder.encode_query(query)
    vectors = encoder.encode_documents([hit.chunk.text for hit in hits])
    return all(abs(float(vector @ asked) - hit.score) < TOLERANCE for vector, hit in zip(vectors, hits, strict=True))


def write(db: Database, rows: int, number: int, outcome: Outcome, ending: Any) -> None:
    """Add, change and delete other rows."""
    rng = random.Random(1000 + number)
    notes = db.existing("notes")
    while not ending.is_set():
        try:
            ids = [f"w{number}-{rng.randrange(300)}" for _ in range(rng.randrange(1, 6))]
            if rng.random() < 0.2:
                notes.delete(ids)
            else:
                notes.index({"id": id_, "text": " ".join(rng.choices(WORDS, k=12))} for id_ in ids)
            outcome.writes += 1
        except Exception as error:
            outcome.errors.append(f"writer: {type(error).__name__}: {error}")
        time.sleep(0.1)


def gather(outcome: Outcome, results: Any, readers: int) -> None:
    """Take what the readers tell."""
    left = readers
    while left:
        try:
            told = results.get(timeout=400)
        except queue.Empty:
            outcome.errors.append("a reader is silent")
            return
        if told is None:
            left -= 1
        elif isinstance(told, ResolvedSpace):
            outcome.answers.append(told)
        else:
            outcome.errors.append(told)
