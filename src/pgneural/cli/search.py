"""The commands that read: search, what is like a document, counts, and how good all that is."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from click.core import ParameterSource

from pgneural.cli import output
from pgneural.cli.file_filter import both, file_filter, file_options
from pgneural.cli.options import Option, Target, interactive, json_option, target_options
from pgneural.cli.quality_gate import QualityBar
from pgneural.evaluation import evaluate as judge
from pgneural.filter import Filter
from pgneural.load.formats import MEDIA, SUFFIXES
from pgneural.options import QueryInput
from pgneural.query import Query
from pgneural.rerank import LateInteraction
from pgneural.types import Mode

F = TypeVar("F", bound=Callable[..., Any])


def where_option(command: F) -> F:
    """Add ``--where`` and ``--param`` and those of files; the command gets one filter of all, as ``where``."""

    @functools.wraps(command)
    def run(
        *args: Any,
        where: str | None,
        parameters: tuple[tuple[str, str], ...],
        types: tuple[str, ...],
        paths_like: tuple[str, ...],
        since: str | None,
        **options: Any,
    ) -> Any:
        if parameters and where is None:
            raise click.UsageError("--param fills a name in --where; give --where, too")
        values = dict(parameters)
        if len(values) < len(parameters):
            raise click.UsageError("--param names a parameter twice; give each one value")
        given = (where, values) if where is not None and parameters else where
        return command(*args, where=both(given, file_filter(types, paths_like, since)), **options)

    predicate = click.option(
        "--where",
        metavar="SQL",
        help="An SQL predicate over the columns of documents or of the table, for example metadata->>'lang' = 'en'."
        " PostgreSQL executes it with your rights.",
        cls=Option,
    )
    parameter = click.option(
        "--param",
        "parameters",
        multiple=True,
        callback=_named,
        metavar="NAME=VALUE",
        help="The value of :NAME in --where, for example --where \"metadata->>'lang' = :lang\" --param lang=en.",
        cls=Option,
    )
    return predicate(parameter(file_options(run)))  # type: ignore[return-value]


def _named(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Read ``NAME=VALUE``."""
    named = []
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE, for example lang=en")
        named.append((name, text))
    return tuple(named)


limit_option: Callable[[F], F] = click.option(
    "--limit", type=click.IntRange(min=1), default=10, help="The number of results.", cls=Option
)


def _of_legs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read ``LEG=TEXT``."""
    return dict(_named(context, parameter, values))


def _weighted(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Read ``SQL=WEIGHT``, or an expression alone, which weighs 1."""
    boosts = {}
    for value in values:
        weighted = re.fullmatch(r"(.*[^<>=!\s])=([-+]?[\d.]+(?:e[-+]?\d+)?)", value, re.DOTALL)
        by, weight = weighted.groups() if weighted else (value, "1")
        try:
            boosts[by] = float(weight)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not SQL=WEIGHT, for example ln(1 + likes)=0.5") from error
    return boosts


@click.command()
@click.argument("searched", metavar="NAME")
@click.argument("query", required=False)
@click.option(
    "--query-json",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="A file with a stored query (Query.to_json), or - for standard input. Its SQL is executed with your rights.",
    cls=Option,
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE",
    help="A picture to search by, or - for standard input. With QUERY, or with several pictures, the search is for what"
    " is like all of them.",
    cls=Option,
)
@click.option(
    "--audio",
    "sounds",
    multiple=True,
    metavar="FILE",
    help="A sound to search by, or - for standard input. Where the encoder does not accept sounds, the search is for"
    " what is spoken in it.",
    cls=Option,
)
@where_option
@limit_option
@click.option("--offset", type=click.IntRange(min=0), default=0, help="The number of results to skip.", cls=Option)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    help="semantic searches by meaning, lexical by words (BM25), sparse by a learned sparse encoder, hybrid by all."
    "  [default: hybrid for a text, semantic for a picture]",
    cls=Option,
)
@click.option(
    "--aggregate",
    default="max",
    help="How the scores of the chunks become one score: max, mean, sum, or topN (the mean of the best N).",
    cls=Option,
)
@click.option(
    "--boost",
    "boosts",
    multiple=True,
    callback=_weighted,
    metavar="SQL=WEIGHT",
    help="An SQL expression that is added to the score with this weight. Repeat the option for several.",
    cls=Option,
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=_of_legs,
    metavar="LEG=TEXT",
    help="A text for one leg instead of QUERY, for example lexical=vaccine. Repeat the option for several.",
    cls=Option,
)
@click.option("--max-distance", type=float, help="The greatest distance of a result.", cls=Option)
@click.option("--min-score", type=float, help="The least score of a result.", cls=Option)
@click.option(
    "--rerank", metavar="MODEL", help="A folder with a cross-encoder, which reorders the best results.", cls=Option
)
@click.option(
    "--late", is_flag=True, help="Reorder the best results by their token vectors (late interaction).", cls=Option
)
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="How much results should differ from each other (MMR), from 0 to 1.",
    cls=Option,
)
@click.option(
    "--group-by",
    metavar="SQL",
    help="An SQL expression. Only the best results of each of its values are returned.",
    cls=Option,
)
@click.option(
    "--per-group", type=click.IntRange(min=1), default=1, help="The number of results of each group.", cls=Option
)
@click.option(
    "--fresh",
    type=click.Choice(["any", "require"]),
    default="any",
    help="With require, the search waits until all changed rows are encoded.",
    cls=Option,
)
@click.option("--patience", type=float, default=5.0, help="How many seconds --fresh require waits.", cls=Option)
@click.option(
    "--explain",
    "explained",
    is_flag=True,
    help="Explain how the search found its results and what each step took.",
    cls=Option,
)
@json_option
@target_options
@click.pass_context
def search(
    context: click.Context,
    /,
    target: Target,
    searched: str,
    query: str | None,
    query_json: IO[str] | None,
    images: tuple[str, ...],
    sounds: tuple[str, ...],
    rerank: str | None,
    late: bool,
    explained: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Search a collection, or a table by TABLE.SEARCH or SCHEMA.TABLE.SEARCH.

    QUERY is a text, or the name of a file with a picture, a sound or a mesh. A text is searched by meaning and by
    words. In it, "a phrase" comes first, -word excludes, and word* matches all words that begin so. Options that are
    given with --query-json take the place of those that are stored.
    """
    media = (*images, *sounds)
    if media.count("-") > 1:
        raise click.UsageError("standard input can be read once; name the other file")
    if (query is None and not media) == (query_json is None):
        raise click.UsageError("give either QUERY, --image or --audio, or --query-json")
    if late and rerank:
        raise click.UsageError("--rerank and --late cannot be combined; give one of them")
    again = LateInteraction() if late else rerank
    if explained and (again or options["diversity"] or options["group_by"]):
        raise click.UsageError(
            "--explain describes the statement alone; leave out --rerank, --late, --diversity and --group-by"
        )
    stored = None if query_json is None else _stored(query_json)
    question = stored or _question(query, media)
    if stored is not None:
        options = {name: value for name, value in options.items() if _is_explicit(context, name)}
    if again or stored is None:
        options["rerank"] = again
    with target.open() as database:
        asked = database.find(searched)
        explanation = asked.explain(question, **options) if explained else None
        hits = explanation.hits if explanation else asked.search(question, **options)
    if as_json:
        explained_as = {"explanation": output.explanation_as_json(explanation)} if explanation else {}
        value = (query or " ".join(media)) if stored is None else stored.input
        output.print_json({"collection": searched, "query": value, **output.hits_as_json(hits), **explained_as})
        return
    output.print_hits(hits)
    if explanation:
        output.print_explanation(explanation)


def _question(query: str | None, media: tuple[str, ...]) -> QueryInput:
    """Return what is asked: a text, a picture, a sound, or several of these that count alike."""
    files: list[Path | bytes] = [sys.stdin.buffer.read() if name == "-" else Path(name) for name in media]
    if query and SUFFIXES.get(Path(query).suffix.lower()) in MEDIA and os.path.isfile(query):
        files.append(Path(query))
        query = None
    terms: list[Any] = [*([] if query is None else [query]), *files]
    question: QueryInput = terms[0] if len(terms) == 1 else dict.fromkeys(terms, 1.0)
    return question


def _stored(file: IO[str]) -> Query:
    """Read a query that was stored; whoever names the file answers for its SQL and models, as of a script for psql."""
    try:
        value = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"{file.name} is no JSON: {error}", param_hint="--query-json") from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{file.name} has {value!r}, expected an object", param_hint="--query-json")
    return Query.from_json(value, sql=True, models=True)


def _is_explicit(context: click.Context, name: str) -> bool:
    """Whether an option was given, and is not what it is by default."""
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


@click.command()
@click.argument("searched", metavar="NAME")
@click.argument("external_ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--unlike",
    multiple=True,
    metavar="ID",
    help="The id of a document that results should not be like. Repeat the option for several.",
    cls=Option,
)
@where_option
@limit_option
@json_option
@target_options
def like(
    target: Target,
    searched: str,
    external_ids: tuple[str, ...],
    unlike: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Find documents or rows that are like stored ones and unlike others."""
    with target.open() as database:
        hits = database.find(searched).recommend(external_ids, unlike, **options)
    output.print_json({"collection": searched, **output.hits_as_json(hits)}) if as_json else output.print_hits(hits)


@click.command()
@click.argument("searched", metavar="NAME")
@click.argument("query", required=False)
@click.option(
    "--pair",
    "pairs",
    type=(str, str),
    multiple=True,
    required=True,
    metavar="GOOD BAD",
    help="The ids of two documents. Results should be nearer to the first than to the second.",
    cls=Option,
)
@where_option
@limit_option
@json_option
@target_options
def discover(
    target: Target,
    searched: str,
    query: str | None,
    pairs: tuple[tuple[str, str], ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Find documents or rows by pairs of a good and a bad example, nearest to a query."""
    with target.open() as database:
        hits = database.find(searched).discover(query, pairs, **options)
    output.print_json({"collection": searched, **output.hits_as_json(hits)}) if as_json else output.print_hits(hits)


@click.command()
@click.argument("searched", metavar="NAME")
@click.argument("by", metavar="SQL")
@click.option("--query", help="Count only documents or rows that match these words.", cls=Option)
@where_option
@click.option("--limit", type=click.IntRange(min=1), default=20, help="The number of values.", cls=Option)
@json_option
@target_options
def facets(target: Target, searched: str, by: str, as_json: bool, **options: Any) -> None:
    """Count documents or rows by the value of an expression, e.g. metadata->>'lang'."""
    with target.open() as database:
        counts = database.find(searched).facets(by, **options)
    rows = [{"value": value, "documents": documents} for value, documents in counts.items()]
    if as_json:
        output.print_json({"collection": searched, "facets": rows})
    else:
        output.print_table(("value", "documents"), [tuple(row.values()) for row in rows])


@click.command()
@click.argument("searched", metavar="NAME")
@click.option("--query", help="Count only documents or rows that match these words.", cls=Option)
@where_option
@json_option
@target_options
def count(target: Target, searched: str, as_json: bool, **options: Any) -> None:
    """Count the documents of a collection, or the rows of a table."""
    with target.open() as database:
        total = database.find(searched).total(**options)
    output.print_json({"collection": searched, "total": total}) if as_json else output.say(f"{total:,}")


@click.command()
@click.argument("searched", metavar="NAME")
@click.option(
    "--queries",
    required=True,
    metavar="FILE",
    help="The queries: a BEIR JSONL file, or lines of id<TAB>text.",
    cls=Option,
)
@click.option(
    "--qrels", required=True, metavar="FILE", help="The relevance judgements: a BEIR or TREC file.", cls=Option
)
@click.option(
    "--modes",
    metavar="MODE,…",
    help="The modes to judge, with commas between them.  [default: all modes of the search]",
    cls=Option,
)
@where_option
@click.option("--per-query", is_flag=True, help="Print the measures of every query, together with --json.", cls=Option)
@click.option(
    "--fail-below",
    multiple=True,
    type=QualityBar.parse,
    metavar="[MODE:]MEASURE=VALUE",
    help="Exit 1 if a mode stays below this value, for example hybrid:ndcg@10=0.5.",
    cls=Option,
)
@json_option
@target_options
def evaluate(
    target: Target,
    searched: str,
    queries: str,
    qrels: str,
    modes: str | None,
    where: Filter | None,
    per_query: bool,
    fail_below: tuple[QualityBar, ...],
    as_json: bool,
) -> None:
    """Measure how good and how quick the answers of a collection, or of a table, are in each mode."""
    chosen = modes.replace(",", " ").split() if modes else None
    with target.open() as database, output.counting_bar(interactive(), "searches") as progress:
        result = judge(database.find(searched), queries, qrels, modes=chosen, where=where, progress=progress)
    output.print_json(result.as_json(per_query=per_query)) if as_json else output.print_evaluation(result)
    if missed := [message for bar in fail_below for message in bar.missed(result)]:
        raise click.ClickException("; ".join(missed))
