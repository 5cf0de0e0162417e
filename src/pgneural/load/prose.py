"""Files that are one document each: plain text, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pgneural.load.lines import whole
from pgneural.types import BadRecord, Record


def text(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the file as one record; its title is its name."""
    content = whole(file, name)
    yield content if isinstance(content, BadRecord) else _record(name, Path(name).name, content)


def markdown(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the file as one record, headings and all; its title is its first heading."""
    content = whole(file, name)
    if isinstance(content, BadRecord):
        yield content
        return
    heading = re.search(r"^(?:#{1,6}\s+(.+?)\s*#*|(\S.*)\n(?:=+|-{3,}))\s*$", content, re.MULTILINE)
    title = (heading[1] or heading[2]).strip() if heading else Path(name).name
    yield _record(name, title, content)


def html(file: IO[bytes], name: str) -> Iterator[Record | BadRecord]:
    """Yield the main text of the page as one record, without menus and footers."""
    content = whole(file, name)
    if isinstance(content, BadRecord):
        yield content
        return
    import trafilatura

    found = trafilatura.bare_extraction(content, include_comments=False, favor_recall=True, with_metadata=True)
    document: dict[str, Any] = {} if found is None else found if isinstance(found, dict) else found.as_dict()
    main = document.get("text") or trafilatura.html2txt(content)
    title = document.get("title") or Path(name).name
    yield _record(name, title, main or "")


def _record(name: str, title: str, content: str) -> Record:
    return Record(external_id=name, title=title, content=content, origin=name)
