"""CSV with a header line; tab-separated where the name says so."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pgneural.load.lines import MAX_BYTES, numbered
from pgneural.load.records import Fields, from_mapping
from pgneural.types import BadRecord, Record


def records(file: IO[bytes], name: str, fields: Fields) -> Iterator[Record | BadRecord]:
    """Yield one record for each row; without an id column, a row's id is ``name:line``.

    Bytes that are not UTF-8 travel on as lone surrogates, and are found with the row they stand in.
    """
    bad: list[BadRecord] = []
    csv.field_size_limit(MAX_BYTES)
    delimiter = "\t" if name.lower().removesuffix(".gz").endswith(".tsv") else ","
    reader = csv.reader(_lines(file, name, bad), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield BadRecord(f"{name}:{reader.line_num}", f"invalid CSV: {error}")
            continue
        yield from bad
        bad.clear()
        if row is None:
            return
        if header is None:
            header = row
            if problem := _unusable(header, fields):
                yield BadRecord(f"{name}:1", problem)
                return
        elif row:
            yield _record(f"{name}:{reader.line_num}", header, row, fields)


def _lines(file: IO[bytes], name: str, bad: list[BadRecord]) -> Iterator[str]:
    for _, line in numbered(file, name):
        if isinstance(line, BadRecord):
            bad.append(line)
            yield "\n"  # keeps the reader's count of lines right
        else:
            yield line.decode("utf-8", "surrogateescape")


def _unusable(header: list[str], fields: Fields) -> str | None:
    _, title, text = fields.find(dict.fromkeys(header))
    columns = ", ".join(header)
    if len(set(header)) < len(header):
        return f"the columns {columns} do not all have names of their own; rename them"
    if (text or title) not in header or not {fields.title or title, fields.text or text} <= {*header, None}:
        return f"no column {text or 'text, content or body'}; the columns are {columns}; name one with --text-field"
    return None


def _record(origin: str, header: list[str], row: list[str], fields: Fields) -> Record | BadRecord:
    if len(row) != len(header):
        return BadRecord(origin, f"the row has {len(row)} columns, expected {len(header)} as in the header")
    return from_mapping(dict(zip(header, row, strict=True)), origin, fields, default_id=str(Path(origin).absolute()))
