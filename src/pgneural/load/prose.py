"""Files that are one document each: text, Markdown, notebooks, web pages, and what only a parser can read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pgneural.errors import MissingExtra, UnreadableInput
from pgneural.load import charset, extraction
from pgneural.load.lines import MAX_BYTES, whole, whole_bytes
from pgneural.types import BadRecord, Modality, Record


def text(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the file as one record; its title is its name."""
    content = whole(file, name)
    yield content if isinstance(content, BadRecord) else _record(name, "", content)


def markdown(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the file as one record, headings and all; its title is its first heading."""
    content = whole(file, name)
    if isinstance(content, BadRecord):
        yield content
        return
    yield _record(name, _first_heading(content), content)


def _first_heading(content: str) -> str:
    """Return the text of the first heading, outside front matter and code; empty where there is none."""
    lines = content.splitlines()
    closing = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    before, fenced = "", False
    for line in lines[closing + 1 if lines[:1] == ["---"] else 0 :]:
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if not fenced and re.match(r"#{1,6}\s", line):
            return line.strip().strip("#").strip()
        if not fenced and before.strip() and re.fullmatch(r"=+|-{3,}", line.rstrip()):
            return before.strip()
        before = line
    return ""


def html(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the main text of the page as one record, without menus and footers."""
    data = whole_bytes(file, name)
    content = data if isinstance(data, BadRecord) else charset.page(data, name)
    yield content if isinstance(content, BadRecord) else _extracted("html", content.encode("utf-8", "replace"), name)


LARGEST = 256 * 2**20
"""The largest file that only a parser can read: with pictures in it, it may have little text."""


def parsed(kind: str, file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the text of a file that only a parser can read as one record.

    Args:
        kind: One of `extraction.EXTRACTORS`.
        file: The file.
        name: Its name, for messages.
    """
    data = whole_bytes(file, name, LARGEST)
    yield data if isinstance(data, BadRecord) else _extracted(kind, data, name)


def notebook(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the cells of a Jupyter notebook as one record, without what they printed."""
    content = whole(file, name)
    if isinstance(content, BadRecord):
        yield content
        return
    try:
        book = json.loads(content)
        cells = ["".join(cell["source"]).strip() for cell in book["cells"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        yield BadRecord(name, "it is no notebook of Jupyter, version 4; save it again, or give it the suffix .json")
        return
    text = "\n\n".join(filter(None, cells))
    yield _record(name, _first_heading(text), text)


def _extracted(kind: str, data: bytes, name: str) -> Record | BadRecord:
    if not data:
        return BadRecord(name, "the file is empty")
    try:
        found = extraction.extract(kind, data)
    except (extraction.Unparsable, MissingExtra, UnreadableInput, OSError) as error:
        return BadRecord(name, str(error))
    if found.data is not None:
        return _media(Modality(kind), found, name)
    if len(found.text) > MAX_BYTES:
        return BadRecord(name, f"it has more than {MAX_BYTES // 2**20} Mi characters of text; split it")
    return _record(name, found.title, found.text, found.metadata)


def _media(modality: Modality, found: extraction.Extracted, name: str) -> Record:
    title = found.title or Path(name).name
    return Record(name, found.text, title, found.metadata, modality=modality, origin=name, data=found.data)


def _record(name: str, title: str, content: str, metadata: Mapping[str, Any] | None = None) -> Record | BadRecord:
    if not content.strip():
        return BadRecord(name, "the file has no text")
    title = title or Path(name).name
    return Record(external_id=name, title=title, content=content, metadata=metadata or {}, origin=name)
