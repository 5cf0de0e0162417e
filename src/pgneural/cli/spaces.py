"""The commands that change the model of a search: another space is built, compared, switched to."""

from __future__ import annotations

import json
from typing import Any, Literal

import click

from pgneural.cli import output
from pgneural.cli.options import Option, Target, json_option, target_options
from pgneural.printable import counted
from pgneural.store.vectors import Method, Precision, VectorIndex
from pgneural.types import Distance, Mode


@click.group()
def space() -> None:
    """Change the encoder, the chunks, the distance or the vector index of a search without downtime.

    SEARCH is a collection, or table.search. Workers fill the new space while the old one answers searches.
    """


@space.command()
@click.argument("search")
@click.argument("name")
@click.option(
    "--encoder",
    help="The encoder of the new space: a registered name, or a sentence-transformers folder.  [default: the same]",
    cls=Option,
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the encoder. Repeat it for several.",
    cls=Option,
)
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="The length of the vectors. Give it if the encoder is not installed here.",
    cls=Option,
)
@click.option(
    "--distance",
    type=click.Choice([d.value for d in Distance]),
    help="The distance between vectors.  [default: the same]",
    cls=Option,
)
@click.option("--language", help="The text search configuration of the words.  [default: the same]", cls=Option)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="The greatest number of tokens of a chunk.  [default: the same]",
    cls=Option,
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    help="The number of tokens that neighbouring chunks share.  [default: the same share]",
    cls=Option,
)
@click.option(
    "--title-boost",
    type=float,
    help="How often a word of a title counts, from 0 to 1000.  [default: the same]",
    cls=Option,
)
@click.option(
    "--method",
    type=click.Choice([m.value for m in Method]),
    help="The type of the vector index.  [default: the same]",
    cls=Option,
)
@click.option(
    "--precision",
    type=click.Choice([p.value for p in Precision]),
    help="The precision of the vectors in the index.  [default: the same]",
    cls=Option,
)
@click.option(
    "--rows-per-second",
    type=float,
    help="The greatest number of rows that workers encode for the space in a second.  [default: no limit]",
    cls=Option,
)
@json_option
@target_options
def create(
    target: Target,
    search: str,
    name: str,
    encoder: str | None,
    options: tuple[str, ...],
    method: str | None,
    precision: str | None,
    as_json: bool,
    **changes: Any,
) -> None:
    """Create the space NAME. What you do not give is as in the space that serves."""
    index = None
    if method or precision:
        index = VectorIndex(Method(method or Method.HNSW), Precision(precision or Precision.HALF))
    encoder_options = {key: _value(value) for key, _, value in (option.partition("=") for option in options)}
    with target.open() as database:
        database.require_current()
        database.create_space(search, name, encoder=encoder, options=encoder_options or None, index=index, **changes)
        spaces = database.spaces(search)
    _show(spaces, as_json)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@space.command()
@click.argument("search")
@json_option
@target_options
def status(target: Target, search: str, as_json: bool) -> None:
    """Show the spaces of a search and how many rows they lack."""
    with target.open() as database:
        spaces = database.spaces(search)
    _show(spaces, as_json)


@space.command()
@click.argument("search")
@click.argument("name")
@json_option
@target_options
def index(target: Target, search: str, name: str, as_json: bool) -> None:
    """Build the vector index of a space without blocking writers."""
    with target.open() as database:
        database.index_space(search, name)
        spaces = database.spaces(search)
    _show(spaces, as_json)


@space.command()
@click.argument("search")
@click.argument("name")
@click.option(
    "--queries",
    type=click.Path(),
    help="The queries: a BEIR JSONL file, or lines of id<TAB>text.  [default: titles of rows]",
    cls=Option,
)
@click.option(
    "--qrels", type=click.Path(), help="The relevance judgements of these queries: a BEIR or TREC file.", cls=Option
)
@click.option(
    "--k",
    default=10,
    type=click.IntRange(min=1),
    help="The number of results of a query that are compared.",
    cls=Option,
)
@click.option(
    "--mode",
    type=click.Choice([m.value for m in Mode]),
    default="hybrid",
    help="The mode in which both spaces are searched.",
    cls=Option,
)
@json_option
@target_options
def compare(
    target: Target, search: str, name: str, queries: str | None, qrels: str | None, k: int, mode: str, as_json: bool
) -> None:
    """Compare the space NAME with the one that serves: overlap, quality, latency and size."""
    with target.open() as database:
        result = database.compare_spaces(search, name, queries, qrels, k=k, mode=Mode(mode))
    if as_json:
        output.print_json(result)
        return
    output.say(f"{counted(result.queries, 'query', 'queries')}: overlap@{k} {result.overlap:.3f}")
    measures = list(result.spaces[0].mean)
    rows = [
        (
            *(s.name, s.state, s.encoder, f"{s.p50_ms:.1f}", f"{s.p95_ms:.1f}", f"{s.encode_ms:.1f}"),
            f"{s.bytes / 1e6:.1f}",
            *(f"{s.mean[measure]:.4f}" for measure in measures),
        )
        for s in result.spaces
    ]
    output.print_table(("space", "state", "encoder", "p50 ms", "p95 ms", "encode ms", "MB", *measures), rows)


@space.command()
@click.argument("search")
@click.argument("name")
@click.option(
    "--force", is_flag=True, help="Switch even if rows are not encoded yet or the vector index is missing.", cls=Option
)
@json_option
@target_options
def switch(target: Target, search: str, name: str, force: bool, as_json: bool) -> None:
    """Let the space NAME answer searches. The space that answered before stays up to date for a rollback."""
    with target.open() as database:
        database.switch_space(search, name, force=force)
        spaces = database.spaces(search)
    _show(spaces, as_json)


@space.command()
@click.argument("search")
@json_option
@target_options
def rollback(target: Target, search: str, as_json: bool) -> None:
    """Let the space that served before answer searches again."""
    with target.open() as database:
        database.rollback_space(search)
        spaces = database.spaces(search)
    _show(spaces, as_json)


@space.command()
@click.argument("search")
@click.argument("name")
@json_option
@target_options
def drop(target: Target, search: str, name: str, as_json: bool) -> None:
    """Drop the space NAME. The space that serves cannot be dropped."""
    with target.open() as database:
        database.drop_space(search, name)
        spaces = database.spaces(search)
    _show(spaces, as_json)


@space.command()
@click.argument("search")
@click.option(
    "--sparse-encoder",
    metavar="FOLDER",
    help="A folder with a learned sparse encoder (SPLADE). Its vectors are a further leg of hybrid searches.",
    cls=Option,
)
@click.option(
    "--late-encoder",
    metavar="FOLDER",
    help="A folder with a late interaction encoder (ColBERT). Searches with --late compare its token vectors.",
    cls=Option,
)
@json_option
@target_options
def add_vectors(
    target: Target, search: str, sparse_encoder: str | None, late_encoder: str | None, as_json: bool
) -> None:
    """Give the rows of a search further vectors: of a learned sparse encoder, or of each token. Workers make them."""
    if sparse_encoder is None and late_encoder is None:
        raise click.UsageError("give --sparse-encoder, --late-encoder, or both")
    with target.open() as database:
        database.add_vectors(search, sparse=sparse_encoder, late=late_encoder)
        spaces = database.spaces(search)
    _show(spaces, as_json)


@space.command()
@click.argument("search")
@click.argument("kind", type=click.Choice(["sparse", "tokens"]))
@json_option
@target_options
def drop_vectors(target: Target, search: str, kind: Literal["sparse", "tokens"], as_json: bool) -> None:
    """Drop the sparse vectors, or the token vectors, of a search."""
    with target.open() as database:
        database.drop_vectors(search, kind)
        spaces = database.spaces(search)
    _show(spaces, as_json)


def _show(spaces: Any, as_json: bool) -> None:
    if as_json:
        output.print_json([vars(each) for each in spaces])
        return
    columns = ["space", "state", "encoder", "dimensions", "pending", "failed", "MB", "ready"]
    extra = any(space.extra for space in spaces)
    rows = [
        [s.name, s.state, s.encoder, s.dimensions, s.pending, s.failed, f"{s.bytes / 1e6:.1f}"]
        + [s.readiness_problem or "yes"]
        + ([", ".join(s.extra)] if extra else [])
        for s in spaces
    ]
    output.print_table(columns + ["further vectors"] * extra, rows)
