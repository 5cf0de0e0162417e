"""The commands."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from itertools import chain
from typing import Any

import click

from pgneural import encoders as encoder_registry
from pgneural import load
from pgneural.cli import demo as demonstration
from pgneural.cli import output
from pgneural.cli.gate import Bar
from pgneural.cli.options import Failing, Option, Target, interactive, json_option, root_options, target_options
from pgneural.errors import RefusedRecords, UnreadableInput
from pgneural.evaluation import evaluate as judge
from pgneural.store.engine import libpq_url
from pgneural.types import Mode

CONTEXT = {"auto_envvar_prefix": "PGNEURAL", "show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(cls=Failing, context_settings=CONTEXT)
@root_options
@click.option("--debug", is_flag=True, help="Show tracebacks.", cls=Option)
@click.version_option(package_name="pgneural")
def main(**_: Any) -> None:
    """Neural search inside the PostgreSQL you already have."""


@main.group()
def db() -> None:
    """Look after the database schema and the embedded server."""


@db.command()
@json_option
@target_options
def upgrade(target: Target, as_json: bool) -> None:
    """Bring the database schema up to date."""
    with target.open() as database:
        state = database.upgrade()
    output.print_json(state) if as_json else click.echo(f"schema neural is at revision {state.revision}")


@db.command()
@json_option
@target_options
def check(target: Target, as_json: bool) -> None:
    """Compare the database schema with this version; exit 1 if it differs."""
    with target.open() as database:
        state = database.check()
    if as_json:
        output.print_json({**asdict(state), "current": state.current})
    else:
        for difference in state.differences:
            click.echo(difference)
        click.echo(f"schema neural is {'as it should be' if state.current else 'not as it should be'}")
    raise SystemExit(0 if state.current else 1)


@db.command()
@json_option
@target_options
def status(target: Target, as_json: bool) -> None:
    """Show server, versions, schema revision and collections."""
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
    click.echo("the embedded server is stopped" if stopped else "the embedded server was not running")


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--collection", required=True, help="Where to store the documents; made if it does not exist.", cls=Option
)
@click.option(
    "--encoder", help="For a new collection: a name, or a sentence-transformers folder.  [default: minilm]", cls=Option
)
@click.option(
    "--format", "format_", type=click.Choice(sorted(load.FORMATS)), help="Instead of by file name.", cls=Option
)
@click.option("--id-field", help="The CSV column or JSON key of the id.", cls=Option)
@click.option("--title-field", help="The CSV column or JSON key of the title.", cls=Option)
@click.option("--text-field", help="The CSV column or JSON key of the text.", cls=Option)
@click.option("--bad-records", type=click.Choice(["skip", "refuse"]), default="skip",
              help="refuse: exit 1 if there are any. The good ones are stored either way.", cls=Option)  # fmt: skip
@json_option
@target_options
def index(
    target: Target,
    paths: tuple[str, ...],
    collection: str,
    encoder: str | None,
    format_: str | None,
    id_field: str | None,
    title_field: str | None,
    text_field: str | None,
    bad_records: str,
    as_json: bool,
) -> None:
    """Index files, folders, glob patterns, or - for standard input.

    Reads text, Markdown, HTML, CSV and JSONL (also BEIR corpus.jsonl), each also as .gz. Run it again to
    bring the collection up to date: what has not changed is not encoded again.
    """
    records = load.read(paths, format=format_, fields=load.Fields(id_field, title_field, text_field))
    first = next(records, None)  # a path that does not exist is refused before anything is made
    if first is None:
        raise UnreadableInput(f"{', '.join(paths)}: there are no records")
    started = time.monotonic()
    with target.open() as database, output.progress_bar(interactive()) as bar:
        chosen = database.collection(collection, encoder=encoder)
        report = chosen.index(chain([first], records), progress=bar.documents, build_progress=bar.build)
    for bad in report.bad:
        click.echo(f"bad record: {bad}", err=True)
    if as_json:
        output.print_json({"collection": collection, **asdict(report)})
    else:
        click.echo(output.summary(report, collection, time.monotonic() - started))
    if report.rejected and bad_records == "refuse":
        raise RefusedRecords(f"{report.rejected} bad records; the other {report.documents} documents are stored")


@main.command()
@click.argument("collection")
@click.argument("query")
@click.option(
    "--where",
    metavar="SQL",
    help="A predicate over the columns of documents, e.g. metadata->>'lang' = 'en'.",
    cls=Option,
)
@click.option("--limit", type=click.IntRange(min=1), default=10, help="How many documents.", cls=Option)
@click.option("--offset", type=click.IntRange(min=0), default=0, help="How many to pass over.", cls=Option)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="hybrid",
    help="By meaning, by words, or both.",
    cls=Option,
)
@click.option("--max-distance", type=float, help="Leave out what is farther.", cls=Option)
@click.option("--min-score", type=float, help="Leave out what scores less.", cls=Option)
@click.option("--explain", "explained", is_flag=True, help="Say what the search did, and why.", cls=Option)
@json_option
@target_options
def search(target: Target, collection: str, query: str, explained: bool, as_json: bool, **options: Any) -> None:
    """Search a collection.

    By meaning, by words (BM25: "a phrase" must occur, -word must not, word* is a beginning), or both.
    """
    with target.open() as database:
        asked = database.existing(collection)
        explanation = asked.explain(query, **options) if explained else None
        hits = explanation.hits if explanation else asked.search(query, **options)
    if as_json:
        explained_as = {"explanation": output.explanation_as_json(explanation)} if explanation else {}
        output.print_json({"collection": collection, "query": query, **output.hits_as_json(hits), **explained_as})
        return
    output.print_hits(hits)
    if explanation:
        output.print_explanation(explanation)


@main.command()
@click.argument("collection")
@click.argument("external_id")
@click.option("--where", metavar="SQL", help="A predicate over the columns of documents.", cls=Option)
@click.option("--limit", type=click.IntRange(min=1), default=10, help="How many documents.", cls=Option)
@json_option
@target_options
def like(target: Target, collection: str, external_id: str, where: str | None, limit: int, as_json: bool) -> None:
    """Find documents like a stored one."""
    with target.open() as database:
        hits = database.existing(collection).like(external_id, where=where, limit=limit)
    output.print_json({"collection": collection, **output.hits_as_json(hits)}) if as_json else output.print_hits(hits)


@main.command()
@click.argument("collection")
@click.argument("external_ids", nargs=-1, metavar="[ID]...")
@click.option("--where", metavar="SQL", help="A predicate over the columns of documents.", cls=Option)
@click.option("--all", "everything", is_flag=True, help="Drop the whole collection.", cls=Option)
@json_option
@target_options
def delete(
    target: Target, collection: str, external_ids: tuple[str, ...], where: str | None, everything: bool, as_json: bool
) -> None:
    """Delete documents by id, by filter, or a whole collection."""
    if everything == bool(external_ids or where):
        raise click.UsageError("give ids, --where, or --all")
    with target.open() as database:
        chosen = database.existing(collection)
        deleted = chosen.count() if everything else chosen.delete(external_ids or None, where=where)
        if everything:
            database.drop(collection)
    output.print_json({"collection": collection, "deleted": deleted}) if as_json else click.echo(
        f"{deleted:,} documents deleted"
    )


@main.command()
@click.argument("collection")
@click.option("--queries", required=True, metavar="FILE", help="BEIR JSONL, or lines of id<TAB>text.", cls=Option)
@click.option("--qrels", required=True, metavar="FILE", help="BEIR or TREC judgements.", cls=Option)
@click.option("--modes", metavar="MODE,…", help="By default all: semantic,lexical,hybrid.", cls=Option)
@click.option("--where", metavar="SQL", help="A predicate over the columns of documents.", cls=Option)
@click.option("--per-query", is_flag=True, help="With --json: every query's measures, too.", cls=Option)
@click.option(
    "--fail-below",
    multiple=True,
    type=Bar.parse,
    metavar="[MODE:]MEASURE=VALUE",
    help="Exit 1 where a mode stays below, e.g. hybrid:ndcg@10=0.5.",
    cls=Option,
)
@json_option
@target_options
def evaluate(
    target: Target,
    collection: str,
    queries: str,
    qrels: str,
    modes: str | None,
    where: str | None,
    per_query: bool,
    fail_below: tuple[Bar, ...],
    as_json: bool,
) -> None:
    """Measure how good and how quick the answers of a collection are, in each mode."""
    chosen = modes.replace(",", " ").split() if modes else None
    with target.open() as database, output.counting_bar(interactive(), "searches") as progress:
        result = judge(database.existing(collection), queries, qrels, modes=chosen, where=where, progress=progress)
    output.print_json(result.as_json(per_query=per_query)) if as_json else output.print_evaluation(result)
    if missed := [message for bar in fail_below for message in bar.missed(result)]:
        raise click.ClickException("; ".join(missed))


@main.command()
@json_option
def encoders(as_json: bool) -> None:
    """List the encoders that can be named."""
    listed = encoder_registry.available()
    if as_json:
        output.print_json(listed)
        return
    rows = [
        (info.name, info.dimensions, info.max_tokens, ", ".join(info.modalities), info.ready, info.note)
        for info in listed
    ]
    output.print_table(("name", "dimensions", "max tokens", "modalities", "ready offline", "note"), rows)
    click.echo(
        "also: any sentence-transformers model, by folder or name; vectors:<dimensions> for vectors made elsewhere"
    )


@main.command()
@target_options
def demo(target: Target) -> None:
    """Index the documentation of Python's standard library and ask it questions."""
    with target.open() as database:
        demonstration.run(database)
