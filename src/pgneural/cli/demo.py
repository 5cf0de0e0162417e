"""The main job on what every machine has: Python's documentation, pictures that we draw, and a few recordings."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

from pgneural import transcribers
from pgneural.cli import drawn, output
from pgneural.cli.options import interactive
from pgneural.database import Database
from pgneural.errors import MissingExtra
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


PICTURES = "pictures"

PICTURE_QUESTIONS = ("what time is it", "made by bees", "a game of words")


RECORDINGS = "recordings"

SPOKEN = Path(__file__).parent / "spoken"
"""Recordings of a voice of eSpeak NG, and a question."""

SPOKEN_QUESTIONS = ("where did they hide the key", "is my car repaired")


def run(database: Database) -> None:
    """Index (a second run re-encodes nothing), then answer the questions: of texts, of pictures, of recordings."""
    _texts(database)
    for name, show in ((PICTURES, _pictures), (RECORDINGS, _recordings)):
        try:
            show(database)
        except MissingExtra as error:
            output.say(f"\n{name} are left out: {error}")


def _texts(database: Database) -> None:
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


def _pictures(database: Database) -> None:
    """Draw pictures, and find them by texts and by another drawing."""
    output.say("\ndrawing pictures")
    records = [{"id": name, "title": name, "image": image} for name, image in drawn.drawings()]
    started = time.monotonic()
    collection = database.collection(PICTURES, encoder="conse")
    output.say(output.summary(collection.index(records), PICTURES, time.monotonic() - started))
    for question in PICTURE_QUESTIONS:
        output.say("")
        output.print_hits(collection.search(question, mode="semantic", limit=2), title=question)
    output.say("")
    output.print_hits(collection.search(drawn.clock(7, 30), limit=2), title="a drawing of a clock at half past seven")
    output.say(f"\nask your own: {_program()} search {PICTURES} photo.jpg")


def _recordings(database: Database) -> None:
    """Transcribe recordings, and find them by texts and by a spoken question, with the second."""
    output.say("\nlistening to recordings")
    question = SPOKEN / "question.opus"
    transcribers.transcribe(question)
    files = [str(file) for file in sorted(SPOKEN.glob("*.opus")) if file != question]
    started = time.monotonic()
    collection = database.collection(RECORDINGS)
    output.say(output.summary(collection.index(files), RECORDINGS, time.monotonic() - started))
    for text in SPOKEN_QUESTIONS:
        output.say("")
        output.print_hits(collection.search(text, limit=1), title=text)
    output.say("")
    output.print_hits(collection.search(question, limit=1), title=f"{question.name}, which asks how insects survive")
    output.say(f"\nask your own: {_program()} search {RECORDINGS} 'your question'")


def _program() -> str:
    program = Path(sys.argv[0])
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)
