"""PDF: the text layer of each page. Pages that are pictures have none."""

from __future__ import annotations

import functools
import re
from typing import Any

from . import told

PAGES = 10_000
"""The most pages of a file: some twenty books."""

_HYPHEN = re.compile("(?<=\\w)[\x02\ufffe](?:\r?\n)?(?=\\w)")
"""A hyphen at the end of a line that is none in the middle of one, as PDFium marks it."""


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with a form feed between pages, and who made it when."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            return {"refused": "it needs a password; save a copy without one"}
        raise
    try:
        return _document(document)
    finally:
        document.close()


def _document(document: Any) -> dict[str, Any]:
    if len(document) > PAGES:
        return {"refused": f"it has {len(document):,} pages, at most {PAGES:,} are read; split it"}
    pages = [_page(document, at) for at in range(len(document))]
    if not any(page.strip() for page in pages):
        return {"refused": f"none of its {len(pages)} pages has a text: they are pictures; run OCR on the file first"}
    title, author, created = (
        told(functools.partial(document.get_metadata_value, name)) or "" for name in ("Title", "Author", "CreationDate")
    )
    metadata = {"author": author, "created": _day(created), "pages": len(pages)}
    return {"title": title, "text": "\f".join(pages), "metadata": metadata}


def _page(document: Any, at: int) -> str:
    import pypdfium2

    try:
        text = document[at].get_textpage().get_text_bounded()
    except pypdfium2.PdfiumError:  # a broken page among good ones
        return ""
    return _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\f", "\n")


def _day(date: str) -> str | None:
    """Return the day of a date as PDF writes it: ``D:20090612103045+02'00'``."""
    found = re.match(r"D:(\d{4})(\d\d)?(\d\d)?", date)
    return "-".join(filter(None, found.groups())) if found else None
