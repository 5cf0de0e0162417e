"""Printing: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

import click
import sqlalchemy as sa
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pgneural.cli.place import place_of, written
from pgneural.evaluation import Evaluation
from pgneural.explain import Explanation
from pgneural.printable import counted, printable, printable_json
from pgneural.report import Report
from pgneural.search import Hit, Hits
from pgneural.store.indexes import BuildProgress
from pgneural.store.schema import Document

PIPE_WIDTH = 200
"""The width of a table that no terminal shows."""


def say(text: object, *, err: bool = False) -> None:
    """Print lines: all that the command line says goes through here, through `print_table` or through `print_json`."""
    click.echo(printable(text, "\n"), sys.stderr if err else sys.stdout)


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()  # an escape of the stream's would be no JSON
    click.echo(printable_json(value, ascii_only=ascii_only, indent=2, default=_plain), sys.stdout)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table; numbers to the right."""
    heading = None if title is None else Text(printable(title))
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    listed = [list(row) for row in rows]
    for at, column in enumerate(columns):
        numeric = all(isinstance(row[at], (int, float)) for row in listed)
        table.add_column(Text(printable(column)), justify="right" if numeric and listed else "left", overflow="fold")
    for row in listed:
        table.add_row(*(Text(printable(_cell(value))) for value in row))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def hits_as_json(hits: Hits[Any]) -> dict[str, Any]:
    """Return what ``search --json`` prints."""
    found = [_hit_as_json(hit) for hit in hits]
    return {"exhausted": hits.exhausted, "relaxed": hits.relaxed, "strategy": hits.strategy, "hits": found}


def _hit_as_json(hit: Hit[Any]) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "score": hit.score,
        **_row_as_json(hit.entity),
        "snippet": hit.chunk.snippet(),
        "place": place_of(hit) or None,
        "chunk": {"ordinal": hit.chunk.ordinal, "text": hit.chunk.text, "locator": hit.chunk.locator},
        "legs": dict(hit.legs),
        "relaxed": hit.relaxed,
    }


def _row_as_json(row: Any) -> dict[str, Any]:
    """Return what is to be known of a document, or the columns of a table's row."""
    if isinstance(row, Document):
        return {"external_id": row.external_id, "title": row.title, "uri": row.uri, "metadata": row.metadata_}
    columns = sa.inspect(type(row)).column_attrs
    return {"row": {each.key: getattr(row, each.key) for each in columns if not _is_vector(each.columns[0].type)}}


def _is_vector(type_: Any) -> bool:
    return isinstance(type_, (VECTOR, HALFVEC, SPARSEVEC, BIT))


def _heading(row: Any) -> str:
    """Return what names a document, or the primary key of a table's row."""
    if isinstance(row, Document):
        return row.title or row.external_id
    return ",".join(map(str, sa.inspect(type(row)).primary_key_from_instance(row)))


def print_hits(hits: Hits[Any], *, title: str | None = None) -> None:
    """Print hits as a table."""
    named = "key" if hits and not isinstance(hits[0].entity, Document) else "title"
    places = [written(place_of(hit)) for hit in hits]
    columns = ("rank", "score", named, "place", "snippet") if any(places) else ("rank", "score", named, "snippet")
    rows = [
        (hit.rank, hit.score, _heading(hit.entity), *([place] if any(places) else []), hit.chunk.snippet(160))
        for hit, place in zip(hits, places, strict=True)
    ]
    print_table(columns, rows, title=title)
    if hits.relaxed:
        say("too few documents have the phrase in quotation marks; those without it follow", err=True)
    if hits.exhausted:
        passing = ("row passes", "rows pass") if named == "key" else ("document passes", "documents pass")
        say(f"these are all: {counted(len(hits), *passing)}", err=True)


def explanation_as_json(explanation: Explanation) -> dict[str, Any]:
    """Return what ``search --explain --json`` adds."""
    names = ("strategy", "words", "warnings", "stages", "planning_ms", "total_ms", "plan")
    return {name: getattr(explanation, name) for name in names}


def print_explanation(explanation: Explanation) -> None:
    """Print what each leg gave to each hit, what the search did, and what each stage cost."""
    legs = sorted({leg for hit in explanation.hits for leg in hit.legs}, reverse=True)
    parts = [(hit.rank, hit.score, *(hit.legs.get(leg) for leg in legs)) for hit in explanation.hits]
    print_table(("rank", "score", *legs), parts, title="score parts")
    stages = [(s.name, s.what, s.rows, s.ms, ", ".join(s.indexes)) for s in explanation.stages]
    print_table(("stage", "what", "rows", "ms", "indexes"), stages, title="stages")
    say(explanation)
    say(f"{explanation.planning_ms:.1f} ms planning, {explanation.total_ms:.1f} ms executing")


def print_evaluation(evaluation: Evaluation) -> None:
    """Print what each mode reached."""
    rows = [(mode, *result.as_json().values()) for mode, result in evaluation.modes.items()]
    print_table(("mode", *next(iter(evaluation.modes.values())).as_json()), rows)
    say(f"{counted(evaluation.queries, 'query', 'queries')} of {evaluation.collection}", err=True)


def summary(report: Report, collection: str, seconds: float) -> str:
    """Say in one line what a run did."""
    return (
        f"{collection}: {counted(report.documents, 'document', 'documents')} "
        f"({report.inserted:,} new, {report.updated:,} changed, {report.unchanged:,} unchanged), "
        f"{report.rejected:,} bad; {counted(report.chunks_encoded, 'chunk', 'chunks')} encoded in {seconds:.1f} s"
    )


class IndexProgress:
    """A bar for documents, then one for the vector index."""

    def __init__(self, bar: Progress, total: int | None) -> None:
        self._bar = bar
        self._documents = bar.add_task("documents", total=total)
        self._index = bar.add_task("vector index", total=None, visible=False)

    def documents(self, report: Report) -> None:
        """Show a report."""
        self._bar.update(self._documents, completed=report.documents)

    def build(self, progress: BuildProgress) -> None:
        """Show how far the index is."""
        self._bar.update(self._index, visible=True, completed=progress.done, total=progress.total or None)


@contextmanager
def counting_bar(visible: bool, what: str) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many things are done."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def progress_bar(visible: bool, total: int | None = None) -> Iterator[IndexProgress]:
    """Show progress on standard error, where a person watches."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        yield IndexProgress(bar, total)
