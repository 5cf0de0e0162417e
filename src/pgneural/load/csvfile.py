"""CSV with a header line, whatever stands between the columns: comma, semicolon, tab or pipe.

Quotes are read strictly. A quote that is not closed as it should be spoils the line that it begins in and no other:
the lines after it are read anew.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from pgneural.load.lines import MAX_BYTES, Utf8, numbered
from pgneural.load.records import EMBEDDING_FIELD, METADATA_FIELD, Fields, from_mapping
from pgneural.types import BadRecord, Record

DELIMITERS = (",", ";", "\t", "|")

SAMPLE_ROWS = 20
"""By so many of the first rows the delimiter is chosen."""


def records(file: IO[bytes], name: str, fields: Fields, base: str) -> Iterator[Record | BadRecord]:
    """Yield one record for each row; without an id column, a row's id is ``base:line``.

    Bytes that are not UTF-8 travel on as lone surrogates, and are found with the row they stand in.
    """
    csv.field_size_limit(MAX_BYTES)
    source = Utf8(file)
    separator = re.match(rb"(?i)sep=([^\r\n])\r?\n", source.head)  # how Excel names the delimiter
    delimiter = separator[1].decode("latin-1") if separator else _delimiter(source.head, name, fields)
    rows = _Rows(cast(IO[bytes], io.BufferedReader(source, HEAD_BUFFER)), name, delimiter)
    if separator:
        rows.skip_line()
    header: list[str] | None = None
    for line, row in rows:
        if isinstance(row, BadRecord):
            yield row
            if header is None:
                return
        elif header is None:
            header = row
            if problem := _unusable(header, fields):
                yield BadRecord(f"{name}:{line}", problem)
                return
        else:
            yield _record(line, header, row, fields, name, base)


HEAD_BUFFER = 2**18


class _Rows:
    """The rows of a file, each with the number of its last line; what cannot be read comes as a `BadRecord`."""

    def __init__(self, file: IO[bytes], name: str, delimiter: str) -> None:
        self._name = name
        self._source = numbered(file, name)
        self._again: deque[tuple[int, str | BadRecord]] = deque()
        self._taken: list[tuple[int, str]] = []
        self._size = 0
        self._reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)

    def skip_line(self) -> None:
        """Pass over the next line."""
        next(self._source, None)

    def __iter__(self) -> Iterator[tuple[int, list[str] | BadRecord]]:
        while True:
            self._taken, self._size = [], 0
            try:
                row = next(self._reader, None)
            except (_Spoiled, csv.Error) as error:
                yield self._spoiled(error)
                self._reader = csv.reader(self._lines(), self._reader.dialect)
                continue
            if row is None:
                return
            if row:
                yield self._taken[-1][0], row

    def _lines(self) -> Iterator[str]:
        while (found := self._again.popleft() if self._again else self._next()) is not None:
            number, line = found
            if isinstance(line, BadRecord):
                self._again.appendleft(found)
                raise _Spoiled
            self._taken.append((number, line))
            self._size += len(line)
            if self._size > MAX_BYTES:
                raise _Spoiled
            yield line

    def _next(self) -> tuple[int, str | BadRecord] | None:
        number, line = next(self._source, (0, None))
        if line is None or isinstance(line, BadRecord):
            return None if line is None else (number, line)
        return number, line.decode("utf-8", "surrogateescape")

    def _spoiled(self, error: Exception) -> tuple[int, BadRecord]:
        """Say what is wrong with the line where the row begins, and have the others read once more."""
        if not self._taken:  # a line that is bad by itself
            number, bad = self._again.popleft()
            assert isinstance(bad, BadRecord)
            return number, bad
        (number, _), *others = self._taken
        self._again.extendleft(reversed(others))
        message = str(error)
        if others or not message or "end of data" in message:
            reason = "invalid CSV: a quote that begins in this line is not closed as it should be; close or double it"
        else:
            reason = f"invalid CSV: {message}; put quotes around the whole field and double those within"
        return number, BadRecord(f"{self._name}:{number}", reason)


class _Spoiled(Exception):
    """A row is not at its end where it has to be."""


def _delimiter(head: bytes, name: str, fields: Fields) -> str:
    """Choose the delimiter by which the header has the fields and most rows have as many columns as the header."""
    preferred = "\t" if name.lower().removesuffix(".gz").endswith(".tsv") else ","
    candidates = sorted(DELIMITERS, key=lambda delimiter: delimiter != preferred)
    complete = head[: head.rfind(b"\n") + 1] or head
    judged = {delimiter: _fit(complete, delimiter, fields) for delimiter in candidates}
    return max(candidates, key=lambda delimiter: judged[delimiter])


def _fit(head: bytes, delimiter: str, fields: Fields) -> tuple[bool, float, bool]:
    rows = _Rows(cast(IO[bytes], io.BytesIO(head)), "", delimiter)
    sample = [row for (_, row), _ in zip(rows, range(SAMPLE_ROWS + 1), strict=False) if not isinstance(row, BadRecord)]
    if not sample:
        return False, 0.0, False
    header, *others = sample
    even = sum(len(row) == len(header) for row in others) / max(len(others), 1)
    return not _unusable(header, fields), even, len(header) > 1


def _unusable(header: Sequence[str], fields: Fields) -> str | None:
    _, title, text = fields.find(dict.fromkeys(header))
    columns = ", ".join(header)
    if len(set(header)) < len(header):
        return f"the columns {columns} do not all have names of their own; rename them"
    if (text or title) not in header or not {fields.title or title, fields.text or text} <= {*header, None}:
        return f"no column {text or 'text, content or body'}; the columns are {columns}; name one with --text-field"
    return None


def _record(line: int, header: list[str], row: list[str], fields: Fields, name: str, base: str) -> Record | BadRecord:
    origin = f"{name}:{line}"
    if len(row) != len(header):
        return BadRecord(origin, f"the row has {len(row)} columns, expected {len(header)} as in the header")
    named = _typed(dict(zip(header, row, strict=True)), fields)
    return from_mapping(named, origin, fields, default_id=f"{base}:{line}")


def _typed(row: dict[str, str], fields: Fields) -> dict[str, Any]:
    """Give the columns ``metadata`` and ``embedding`` the types that the fields of JSON have.

    ``metadata`` that is no JSON object, and ``embedding`` that is no JSON list, are metadata like any other column.
    """
    typed: dict[str, Any] = dict(row)
    reserved = {METADATA_FIELD, EMBEDDING_FIELD} & row.keys() - set(fields.find(row))
    if not reserved:
        return typed
    plain = {name: typed.pop(name) for name in reserved}
    found = {name: _json(text) for name, text in plain.items()}
    metadata = found.get(METADATA_FIELD)
    typed[METADATA_FIELD] = metadata if isinstance(metadata, dict) else {}
    if METADATA_FIELD in plain and not isinstance(metadata, dict) and plain[METADATA_FIELD]:
        typed[METADATA_FIELD] = {METADATA_FIELD: plain[METADATA_FIELD]}
    if isinstance(found.get(EMBEDDING_FIELD), list):
        typed[EMBEDDING_FIELD] = found[EMBEDDING_FIELD]
    elif plain.get(EMBEDDING_FIELD):
        typed[METADATA_FIELD] = {**typed[METADATA_FIELD], EMBEDDING_FIELD: plain[EMBEDDING_FIELD]}
    return typed


def _json(text: str) -> Any:
    """Return what a text is as JSON; None where it is none."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
