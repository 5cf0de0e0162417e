"""The commands."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal, cast

import click

from pgneural import encoders as encoder_registry
from pgneural import load, transcribers
from pgneural.cli import demo as demonstration
from pgneural.cli import output, spaces, stored
from pgneural.cli import search as searching
from pgneural.cli import worker as working
from pgneural.cli.options import Failing, Option, Target, interactive, json_option, root_options, target_options
from pgneural.database import Database
from pgneural.errors import RefusedRecords, UnknownCollection, UnreadableInput
from pgneural.filter import Filter
from pgneural.load.walk import NAMED
from pgneural.printable import counted
from pgneural.report import Report
from pgneural.store.engine import libpq_url
from pgneural.store.vectors import Method, Precision, VectorIndex
from pgneural.types import Modality

CONTEXT = {"auto_envvar_prefix": "PGNEURAL", "show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(cls=Failing, context_settings=CONTEXT)
@root_options
@click.option("--debug", is_flag=True, help="Show the traceback of every error.", cls=Option)
@click.version_option(package_name="pgneural")
def main(**_: Any) -> None:
    """Neural search inside the PostgreSQL you already have."""


for command in (searching.search, searching.like, searching.discover, searching.facets, searching.count):
    main.add_command(command)
main.add_command(searching.evaluate)
for command in (stored.list_documents, stored.show, stored.export):
    main.add_command(command)
for command in (working.worker, working.status, spaces.space):
    main.add_command(command)


@main.group()
def db() -> None:
    """Manage the database schema and the embedded server."""


@db.command()
@json_option
@target_options
def upgrade(target: Target, as_json: bool) -> None:
    """Upgrade the database schema to this version."""
    with target.open() as database:
        state = database.upgrade()
    output.print_json(state) if as_json else output.say(f"schema neural is at revision {state.revision}")


@db.command()
@json_option
@target_options
def check(target: Target, as_json: bool) -> None:
    """Compare the database schema with this version. The command exits 1 if they differ."""
    with target.open() as database:
        state = database.check()
    if as_json:
        output.print_json({**asdict(state), "current": state.current})
    else:
        for difference in state.differences:
            output.say(difference)
        output.say(f"schema neural is {'as it should be' if state.current else 'not as it should be'}")
    raise SystemExit(0 if state.current else 1)


@db.command()
@json_option
@target_options
def status(target: Target, as_json: bool) -> None:
    """Show the server, the versions, the schema revision and the collections."""
    with target.open() as database:
        status = database.status()
    if as_json:
        output.print_json(status)
        return
    rows = [(name, value) for name, value in asdict(status).items() if name != "collections"]
    output.print_table(("", ""), rows)
    columns = ("name", "encoder", "dimensions", "documents", "chunks", "indexed")
    listed = [[getattr(collection, column) for column in columns] for collection in status.collections]
    output.print_table(columns, listed)


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL OPTION]...")
@target_options
def psql(target: Target, arguments: tuple[str, ...]) -> None:
    """Open psql in the database."""
    with target.open() as database:
        command = [target.server.client("psql"), libpq_url(database.url), *arguments]
    os.execvp(command[0], command)


@db.command()
@target_options
def stop(target: Target) -> None:
    """Stop the embedded server."""
    stopped = target.server.stop()
    output.say("the embedded server is stopped" if stopped else "the embedded server was not running")


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--collection",
    required=True,
    help="The collection that stores the documents. It is created if it does not exist.",
    cls=Option,
)
@click.option(
    "--encoder",
    help="The encoder of a new collection: a registered name, or a sentence-transformers folder.  [default: minilm;"
    " conse where the first file is a picture, efficientnet-lite0 where it is a mesh]",
    cls=Option,
)
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="The length of the vectors of a new collection, for encoders whose vectors can be cut (Matryoshka).",
    cls=Option,
)
@click.option(
    "--device",
    help="The device that the encoder runs on: cpu, cuda or mps.  [default: the fastest one here]",
    cls=Option,
)
@click.option(
    "--sparse-encoder",
    metavar="MODEL",
    help="A folder with a learned sparse encoder (SPLADE), whose vectors the collection stores as well.",
    cls=Option,
)
@click.option(
    "--late-encoder",
    metavar="MODEL",
    help="A folder with a multi-vector encoder (ColBERT), whose vectors the collection stores as well.",
    cls=Option,
)
@click.option("--language", help="The text search configuration of a new collection.  [default: english]", cls=Option)
@click.option(
    "--language-by",
    metavar="SQL",
    help="An SQL expression for the language of each document of a new collection.",
    cls=Option,
)
@click.option(
    "--title-boost",
    type=float,
    help="How often a word of a title counts in a new collection, from 0 to 1000.  [default: 1]",
    cls=Option,
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(sorted(load.FORMATS)),
    help="The format of all files.  [default: chosen by the file name and its first bytes]",
    cls=Option,
)
@click.option("--id-field", help="The CSV column or JSON key that holds the id.", cls=Option)
@click.option("--title-field", help="The CSV column or JSON key that holds the title.", cls=Option)
@click.option("--text-field", help="The CSV column or JSON key that holds the text.", cls=Option)
@click.option(
    "--transcriber",
    metavar="NAME",
    help="The transcriber that turns the speech of recordings into text: a registered name, or a folder with a speech"
    " recognition model.  [default: that of the stored recordings, else whisper-tiny.en for encoders of texts]",
    cls=Option,
)
@click.option(
    "--bad-records",
    type=click.Choice(["skip", "refuse"]),
    default="skip",
    help="With refuse, bad records make the command exit 1. The good records are stored either way.",
    cls=Option,
)
@click.option(
    "--prune",
    is_flag=True,
    help="Delete the documents that came from these paths and whose files no longer exist.",
    cls=Option,
)
@click.option(
    "--follow-links", is_flag=True, help="Read the files that symbolic links in folders point to as well.", cls=Option
)
@click.option("--hidden", is_flag=True, help="Read the hidden files and folders below folders as well.", cls=Option)
@click.option(
    "--no-ignore", is_flag=True, help="Read the files that a .gitignore in their folders names as well.", cls=Option
)
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="A pattern, written as in .gitignore, of the files of folders that are read, for example 'docs/'."
    " Repeat the option for several.",
    cls=Option,
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="A pattern, written as in .gitignore, of the files and folders that are left out, for example 'drafts/'."
    " Repeat the option for several.",
    cls=Option,
)
@json_option
@target_options
def index(
    target: Target,
    paths: tuple[str, ...],
    collection: str,
    encoder: str | None,
    sparse_encoder: str | None,
    late_encoder: str | None,
    format_: str | None,
    id_field: str | None,
    title_field: str | None,
    text_field: str | None,
    transcriber: str | None,
    bad_records: Literal["skip", "refuse"],
    prune: bool,
    follow_links: bool,
    hidden: bool,
    no_ignore: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Index files, folders and glob patterns, or - for standard input.

    The command reads whatever has a text: PDF, office documents, mails, books, notebooks, HTML, Markdown, source code
    and plain text, CSV and JSONL (BEIR's corpus.jsonl, too), also compressed as .gz. It transcribes the speech of
    recordings. Run it again to bring the collection up to date: it encodes only what has changed. It skips and counts
    hidden files, files that a .gitignore names, symbolic links in folders, pipes and devices. With --prune, it deletes
    the documents of files that are gone or skipped by now, and the records that are gone from a CSV or JSONL file.
    Documents from other paths stay.
    """
    fields = load.Fields(id_field, title_field, text_field)
    selection = load.Selection(hidden, no_ignore, include, exclude)
    reading = load.read(paths, format=format_, fields=fields, follow_links=follow_links, selection=selection)
    if reading.peek() is None:  # a path that does not exist is refused before anything is made
        raise UnreadableInput(f"{', '.join(paths)}: there are no records")
    if prune and set(paths) == {"-"}:
        raise click.UsageError("--prune looks for files; name a file or folder")
    started = time.monotonic()
    with target.open() as database, output.progress_bar(interactive()) as bar:
        settings = {name: value for name, value in options.items() if value is not None}
        encoder = encoder or _by_content(database, collection, reading.modality)
        chosen = database.collection(collection, encoder=encoder, sparse=sparse_encoder, late=late_encoder, **settings)
        try:
            report = chosen.index(
                reading,
                bad_records=bad_records,
                prune=prune,
                transcriber=transcriber,
                progress=bar.documents,
                build_progress=bar.build,
            )
        except RefusedRecords as refused:
            report = cast(Report, refused.report)
    for bad in report.bad:
        output.say(f"bad record: {bad}", err=True)
    if as_json:
        output.print_json({"collection": collection, **asdict(report)})
    else:
        output.say(output.summary(report, collection, time.monotonic() - started))
        for line in _extra(report):
            output.say(line)
    if report.rejected and bad_records == "refuse":
        raise RefusedRecords(
            f"{counted(report.rejected, 'bad record', 'bad records')}; "
            f"the other {counted(report.documents, 'document is', 'documents are')} stored"
        )


def _extra(report: Report) -> Iterator[str]:
    """Say what else happened in a run, where it did."""
    if report.replaced:
        yield f"{counted(report.replaced, 'record was', 'records were')} replaced by later ones with the same id"
    if report.pruned:
        yield f"{counted(report.pruned, 'document was', 'documents were')} removed: their files or records are gone"
    if report.skipped:
        parts = []
        for reason, number in report.skipped.items():
            first = ", ".join(report.skipped_first[reason]) + (", …" if number > NAMED else "")
            parts.append(f"{number:,} {reason}: {first}")
        yield "not read: " + "; ".join(parts)


@main.command()
@click.argument("collection")
@click.option(
    "--method",
    type=click.Choice([kind.value for kind in Method]),
    default="hnsw",
    help="The type of the vector index.",
    cls=Option,
)
@click.option(
    "--precision",
    type=click.Choice([kind.value for kind in Precision]),
    default="half",
    help="The precision of the vectors in the index.",
    cls=Option,
)
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="The number of dimensions that the index stores, from the first.  [default: all]",
    cls=Option,
)
@click.option(
    "--m", type=click.IntRange(min=2), help="The number of neighbours of a vector in an hnsw index (m).", cls=Option
)
@click.option(
    "--ef-construction",
    type=click.IntRange(min=4),
    help="The number of candidates while an hnsw index is built (ef_construction).",
    cls=Option,
)
@click.option("--lists", type=click.IntRange(min=1), help="The number of lists of an ivfflat index.", cls=Option)
@json_option
@target_options
def reindex(
    target: Target, collection: str, method: str, precision: str, dimensions: int | None, as_json: bool, **options: Any
) -> None:
    """Build another vector index for a collection. Searches use the old index until the new one is ready."""
    index_options = {name: value for name, value in options.items() if value is not None}
    chosen = VectorIndex(Method(method), Precision(precision), dimensions, index_options)
    with target.open() as database, output.progress_bar(interactive()) as bar:
        database.existing(collection).reindex(chosen, progress=bar.build)
    if as_json:
        output.print_json({"collection": collection, "vector_index": chosen.as_json()})
    else:
        output.say(f"{collection}: the vectors are indexed by {chosen.method}, {chosen.precision} precision")


@main.command()
@click.argument("collection")
@click.argument("external_ids", nargs=-1, metavar="[ID]...")
@searching.where_option
@click.option("--all", "everything", is_flag=True, help="Drop the collection with all of its documents.", cls=Option)
@json_option
@target_options
def delete(
    target: Target,
    collection: str,
    external_ids: tuple[str, ...],
    where: Filter | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Delete documents by id or by filter, or drop a whole collection."""
    if everything == bool(external_ids or where):
        raise click.UsageError("give ids, --where, or --all")
    with target.open() as database:
        chosen = database.existing(collection)
        deleted = chosen.count() if everything else chosen.delete(external_ids or None, where=where)
        if everything:
            database.drop(collection)
    output.print_json({"collection": collection, "deleted": deleted}) if as_json else output.say(
        f"{counted(deleted, 'document', 'documents')} deleted"
    )


def _by_content(database: Database, collection: str, first: Modality) -> str | None:
    """Return the encoder of a new collection for what is to be indexed; None for the usual one, or if it is not new."""
    name = encoder_registry.BY_CONTENT.get(first)
    if name is None:
        return None
    try:
        database.existing(collection)
    except UnknownCollection:
        return name
    return None


@main.command()
@json_option
def encoders(as_json: bool) -> None:
    """List the registered encoders."""
    listed = encoder_registry.available()
    if as_json:
        output.print_json(listed)
        return
    rows = [
        (info.name, info.dimensions, info.max_tokens, ", ".join(info.modalities), info.ready, info.note)
        for info in listed
    ]
    output.print_table(("name", "dimensions", "max tokens", "modalities", "ready offline", "note"), rows)
    output.say(
        "also: any sentence-transformers model, by folder or name; vectors:<dimensions> for vectors made elsewhere"
    )
    output.say(
        f"transcribers of speech: {', '.join(transcribers.available())}; "
        "also: any speech recognition model, by folder or name"
    )


@main.command()
@target_options
def demo(target: Target) -> None:
    """Index the documentation of Python's standard library and ask it questions."""
    with target.open() as database:
        demonstration.run(database)
