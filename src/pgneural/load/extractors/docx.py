"""Word documents: paragraphs and tables in their order, as they read once all changes are accepted."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from . import day_told, told

SKIPPED = frozenset({"delText", "instrText", "Fallback"})
"""What was deleted, the codes of fields, and the second form of a drawing."""


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with headings as in Markdown, and who made it when."""
    import docx

    document = docx.Document(io.BytesIO(data))
    styles = {style.style_id: style.name or "" for style in document.styles}
    blocks = list(filter(None, _blocks(document.element.body, styles)))
    first = next((block.lstrip("# ") for block in blocks if block.startswith("#")), "")
    about = told(lambda: document.core_properties)
    metadata = {"author": told(lambda: about.author), "created": day_told(lambda: about.created)}
    return {"title": told(lambda: about.title) or first, "text": "\n\n".join(blocks), "metadata": metadata}


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _blocks(parent: Any, styles: Mapping[str, str]) -> Iterator[str]:
    """Yield paragraphs and tables, also those within controls and insertions."""
    for child in parent:
        name = _name(child)
        if name == "p":
            yield _paragraph(child, styles)
        elif name == "tbl":
            yield "\n".join(_row(row, styles) for row in child.iter("{*}tr") if _table_of(row) is child)
        elif name in ("sdt", "sdtContent", "ins", "customXml", "smartTag", "moveTo"):
            yield from _blocks(child, styles)


def _table_of(row: Any) -> Any:
    while _name(row) != "tbl":
        row = row.getparent()
    return row


def _row(row: Any, styles: Mapping[str, str]) -> str:
    cells = (cell for cell in row.iter("{*}tc") if _table_of(cell) is _table_of(row))
    return " | ".join(" ".join(filter(None, _blocks(cell, styles))) for cell in cells)


def _paragraph(paragraph: Any, styles: Mapping[str, str]) -> str:
    text = "".join(_texts(paragraph)).strip()
    style = next(paragraph.iter("{*}pStyle"), None)
    written = next(iter(style.attrib.values()), "") if style is not None else ""
    heading = re.fullmatch(r"(?:[Hh]eading (\d)|Title)", styles.get(written, ""))
    return f"{'#' * int(heading[1] or 1)} {text}" if heading and text else text


def _texts(element: Any) -> Iterator[str]:
    for child in element:
        name = _name(child)
        if name == "t":
            yield child.text or ""
        elif name in ("tab", "br", "cr"):
            yield "\t" if name == "tab" else "\n"
        elif name not in SKIPPED:
            yield from _texts(child)
