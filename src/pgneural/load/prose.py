"""Files that are one document each: plain text, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pgneural.errors import MissingExtra, UnreadableInput
from pgneural.load import charset, pages
from pgneural.load.lines import whole, whole_bytes
from pgneural.types import BadRecord, Record


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
    if isinstance(content, BadRecord):
        yield content
        return
    try:
        title, main = pages.extract(content)
    except (pages.Unparsable, MissingExtra, UnreadableInput, OSError) as error:
        yield BadRecord(name, str(error))
        return
    yield _record(name, title, main)


def _record(name: str, title: str, content: str) -> Record | BadRecord:
    if not content.strip():
        return BadRecord(name, "the file has no text")
    return Record(external_id=name, title=title or Path(name).name, content=content, origin=name)
