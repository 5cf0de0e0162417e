"""Texts and presentations of OpenDocument, as LibreOffice writes them."""

from __future__ import annotations

import io
from typing import Any

from . import day_told, told


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with headings as in Markdown and a form feed between slides, and who made it when."""
    import odfdo

    document = odfdo.Document(io.BytesIO(data))
    body, about = document.body, told(lambda: document.meta)
    slides = body.get_elements("//draw:page")
    parts = ["\n\n".join(_blocks(part)) for part in slides or [body]]
    metadata = {"author": told(lambda: about.creator), "created": day_told(lambda: about.creation_date)}
    if slides:
        metadata["pages"] = len(slides)
    return {"title": told(lambda: about.title) or "", "text": "\f".join(parts), "metadata": metadata}


def _blocks(part: Any) -> list[str]:
    blocks = []
    for block in part.get_elements(
        "(descendant::text:h | descendant::text:p)[not(ancestor::text:tracked-changes) and not(ancestor::text:p)]"
    ):
        text = block.inner_text.strip()
        if block.tag == "text:h":
            text = f"{'#' * int(block.get_attribute('text:outline-level') or 1)} {text}"
        blocks.append(text)
    return list(filter(None, blocks))
