"""The main job on real text that is on every machine: the documentation of Python's standard library."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

from pgneural.cli import output
from pgneural.cli.options import interactive
from pgneural.database import Database
from pgneural.load import stdlib

COLLECTION = "stdlib"


class Question(NamedTuple):
    """A question, and the SQL predicate that narrows it."""

    text: str
    where: str | None = None


QUESTIONS = (
    Question("run a task every few seconds in the background"),
    Question("how do I temporarily change the working directory"),
    Question("compare two files line by line", "metadata->>'kind' = 'function'"),
    Question("delete a file", "metadata->>'module' = 'os'"),
    Question("parse dates", "metadata->>'kind' = 'method' AND metadata->>'module' = 'datetime'"),
)


def run(database: Database) -> None:
    """Index (a second run re-encodes nothing), then answer the questions."""
    output.say("reading the docstrings of the standard library")
    records = list(stdlib.read())
    started = time.monotonic()
    collection = database.collection(COLLECTION)
    with output.progress_bar(interactive(), total=len(records)) as bar:
        report = collection.index(records, progress=bar.documents, build_progress=bar.build)
    output.say(output.summary(report, COLLECTION, time.monotonic() - started))
    for question in QUESTIONS:
        filtered = f"   WHERE {question.where}" if question.where else ""
        output.say("")
        output.print_hits(
            collection.search(question.text, where=question.where, limit=5), title=f"{question.text}{filtered}"
        )
    output.say(f"\nask your own: {_program()} search {COLLECTION} 'your question'")


def _program() -> str:
    program = Path(sys.argv[0])
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)
