"""Which files a path stands for, and which reader a file needs."""

from __future__ import annotations

import glob
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

from pgneural.errors import UnreadableInput
from pgneural.load import csvfile, jsonl, prose
from pgneural.load.lines import open_binary
from pgneural.load.records import Fields
from pgneural.types import BadRecord, Record

Reader = Callable[[IO[bytes], str, Fields], Iterator[Record | BadRecord]]

FORMATS: dict[str, Reader] = {
    "jsonl": jsonl.records,
    "csv": csvfile.records,
    "text": lambda file, name, _: prose.text(file, name),
    "markdown": lambda file, name, _: prose.markdown(file, name),
    "html": lambda file, name, _: prose.html(file, name),
}

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}


def read(
    paths: Iterable[str | Path], *, format: str | None = None, fields: Fields | None = None
) -> Iterator[Record | BadRecord]:
    """Yield the records of files, folders (all files of a known kind below), glob patterns and ``-``.

    The external id of a file that is one document is its absolute path, so that two folders with a
    ``README.md`` each never overwrite one another.

    Args:
        paths: Where to read; ``-`` is standard input.
        format: One of `FORMATS`; by default the file name's suffix decides.
        fields: Which fields of CSV and JSONL hold id, title and text.

    Raises:
        UnreadableInput: A path does not exist, holds nothing, or is of no known kind.
    """
    for path in [str(path) for path in paths]:
        if path == "-":
            file, reader = _standard_input(format)
            yield from reader(file, "stdin", fields or Fields())
        else:
            for found in _files(path, format):
                yield from _read_file(found, format, fields or Fields())


def _read_file(path: Path, format: str | None, fields: Fields) -> Iterator[Record | BadRecord]:
    reader = FORMATS[format or _format(path) or "text"]
    try:
        with open_binary(path) as file:
            for record in reader(file, str(path), fields):
                uri = path.absolute().as_uri()
                if isinstance(record, Record) and record.external_id == str(path):
                    record = replace(record, external_id=path.absolute().as_posix(), uri=uri)
                yield record
    except (OSError, EOFError, zlib.error) as error:
        yield BadRecord(str(path), f"cannot be read: {error.__class__.__name__}: {error}")


def _format(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return SUFFIXES.get(name.suffix.lower())


def _files(path: str, format: str | None) -> Iterator[Path]:
    if Path(path).is_dir():
        found = [file for file in sorted(Path(path).rglob("*")) if file.is_file() and _format(file)]
    elif Path(path).exists():
        found = [Path(path)]
        if not format and not _format(found[0]):
            known = ", ".join(SUFFIXES)
            raise UnreadableInput(
                f"{path}: no reader for {found[0].suffix or 'a name without a suffix'}; "
                f"known are {known}; or say --format {' or '.join(FORMATS)}"
            )
    else:
        found = [Path(file) for file in sorted(glob.glob(path, recursive=True)) if Path(file).is_file()]
        found = [file for file in found if format or _format(file)]
    if not found:
        raise UnreadableInput(f"{path}: no such file, and no file of a known kind ({', '.join(SUFFIXES)}) there")
    yield from found


def _standard_input(format: str | None) -> tuple[IO[bytes], Reader]:
    if sys.stdin is None:
        raise UnreadableInput("standard input is closed; name a file")
    file = sys.stdin.buffer
    if format is None:
        start = file.peek(1)[:64].lstrip() if hasattr(file, "peek") else b""
        format = "jsonl" if start.startswith(b"{") else "text"
    return cast(IO[bytes], file), FORMATS[format]
