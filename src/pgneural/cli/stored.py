"""The commands that show what is stored in a collection: list, show, export."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pgneural.cli import output
from pgneural.cli.options import Option, Target, json_option, target_options
from pgneural.cli.search import where_option
from pgneural.collection import Collection
from pgneural.errors import UnknownDocument
from pgneural.filter import Filter
from pgneural.load.walk import normal
from pgneural.printable import printable_json
from pgneural.store.schema import Document
from pgneural.types import Modality


def as_record(document: Document) -> dict[str, Any]:
    """Return a document with the fields of a JSONL record."""
    record = {"id": document.external_id, "title": document.title, "text": document.content, "uri": document.uri}
    kind = {"modality": document.modality} if document.modality != Modality.TEXT else {}
    return {**record, **kind, "metadata": document.metadata_}


def as_listed(document: Document) -> dict[str, Any]:
    """Return a document with the length of its text in place of the text."""
    record = as_record(document)
    text = record.pop("text")
    return {**record, "characters": len(text)}


@click.command("list")
@click.argument("collection")
@where_option
@click.option("--limit", type=click.IntRange(min=1), help="The number of documents.  [default: all]", cls=Option)
@json_option
@target_options
def list_documents(target: Target, collection: str, where: Filter | None, limit: int | None, as_json: bool) -> None:
    """List the documents of a collection in the order of their ids."""
    with target.open() as database:
        found = [as_listed(each) for each in database.existing(collection).documents(where=where, limit=limit)]
    if as_json:
        output.print_json(found)
    else:
        rows = [(each["id"], each["title"], each["characters"]) for each in found]
        output.print_table(("id", "title", "characters"), rows)


@click.command()
@click.argument("collection")
@click.argument("document", metavar="ID")
@json_option
@target_options
def show(target: Target, collection: str, document: str, as_json: bool) -> None:
    """Show a document of a collection with its metadata and its whole text. The path of a file is an id, too."""
    with target.open() as database:
        found = as_record(_named(database.existing(collection), document))
    if as_json:
        output.print_json(found)
    else:
        output.say(found["title"])
        for name, value in {"uri": found["uri"], **found["metadata"]}.items():
            output.say(f"{name}: {value}")
        output.say("")
        output.say(found["text"])


def _named(collection: Collection, name: str) -> Document:
    """Return a document by its id, or by the path of its file."""
    try:
        return collection.document(name)
    except UnknownDocument:
        if os.path.exists(name):
            return collection.document(Path(normal(name)).as_posix())
        raise


@click.command()
@click.argument("collection")
@where_option
@target_options
def export(target: Target, collection: str, where: Filter | None) -> None:
    """Write the documents of a collection to standard output as JSONL in UTF-8, which index reads again.

    The vectors are not written: whoever indexes the documents encodes them.
    """
    with target.open() as database:
        for each in database.existing(collection).documents(where=where):
            click.echo(printable_json(as_record(each)).encode())
