"""Where a hit stands in the file that it came from: a page, a line, or a second."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pgneural.load.formats import SUFFIXES, unpacked
from pgneural.search import Hit
from pgneural.store.schema import Document

LINED = frozenset({"text", "code", "markdown"})
"""Formats whose text is that of the file, line by line."""

_LINE_END = re.compile(r"\r\n?|\n")


def place_of(hit: Hit[Any]) -> dict[str, Any]:
    """Return ``path`` and ``page``, ``line`` or ``seconds`` of a document that is one file; of all others nothing."""
    path = _path(hit.entity.uri or "") if isinstance(hit.entity, Document) else None
    if path is None:
        return {}
    format_ = SUFFIXES.get(unpacked(Path(path)).suffix.lower(), "text")
    place: dict[str, Any] = {"path": path}
    if "seconds" in hit.chunk.locator:
        place["seconds"] = hit.chunk.locator["seconds"][0]
    elif "page" in hit.chunk.locator and format_ != "code":
        place["page"] = hit.chunk.locator["page"]
    elif "content" in hit.chunk.locator and format_ in LINED:
        start = hit.chunk.locator["content"][0] + len(hit.chunk.text) - len(hit.chunk.text.lstrip())
        place["line"] = len(_LINE_END.findall(hit.entity.content, 0, start)) + 1
    return place


def _path(uri: str) -> str | None:
    """Return the path of a file by its uri; None where that is another uri, or of one of many in a file."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # whoever stored it, wrote it
        return None
    if parts.scheme != "file" or parts.fragment:
        return None
    path = unquote(parts.path)
    if parts.netloc:
        return f"//{parts.netloc}{path}"
    return path[1:] if re.match(r"/[A-Za-z]:/", path) else path


def written(place: dict[str, Any]) -> str:
    """Return a place in one line: ``notes/a.md:12``, ``notes/b.pdf, page 3``, ``talks/c.mp3, 1:02:33``."""
    if not place:
        return ""
    path = place["path"]
    with contextlib.suppress(OSError):  # the folder that we are in may be gone
        path = path.removeprefix(os.getcwd() + os.sep)
    if "page" in place:
        return f"{path}, page {place['page']}"
    if "seconds" in place:
        return f"{path}, {_clock(place['seconds'])}"
    return f"{path}:{place['line']}" if "line" in place else path


def _clock(seconds: float) -> str:
    """Return a moment as players show it: ``0:07``, ``1:02:33``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
