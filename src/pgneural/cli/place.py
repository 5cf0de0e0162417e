"""Where a hit stands in the file that it came from: a page, or a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pgneural.load.formats import FORMATS, SUFFIXES
from pgneural.search import Hit
from pgneural.store.schema import Document

LINED = frozenset({"text", "code", "markdown"})
"""Formats whose text is that of the file, line by line."""
assert FORMATS.keys() >= LINED


def place_of(hit: Hit[Any]) -> dict[str, Any]:
    """Return ``path`` and ``page`` or ``line`` of a document that is one file; of all others nothing."""
    document = hit.entity
    if not isinstance(document, Document) or not (document.uri or "").startswith("file:"):
        return {}
    parts = urlsplit(document.uri or "")
    if parts.fragment:
        return {}
    path = unquote(parts.path)
    place: dict[str, Any] = {"path": path}
    if "page" in hit.chunk.locator:
        place["page"] = hit.chunk.locator["page"]
    elif "content" in hit.chunk.locator and SUFFIXES.get(Path(path).suffix.lower(), "text") in LINED:
        content, start = document.content, hit.chunk.locator["content"][0]
        start += len(hit.chunk.text) - len(hit.chunk.text.lstrip())
        place["line"] = content.count("\n", 0, start) + 1
    return place


def written(place: dict[str, Any]) -> str:
    """Return a place in one line: ``notes/a.md:12``, ``notes/b.pdf, page 3``."""
    path = place.get("path", "")
    here = os.getcwd() + os.sep
    path = path.removeprefix(here)
    if "page" in place:
        return f"{path}, page {place['page']}"
    return f"{path}:{place['line']}" if "line" in place else path
