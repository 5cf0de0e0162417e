"""Word documents: paragraphs and tables in their order."""

from __future__ import annotations

import io
import re
from typing import Any


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with headings as in Markdown, and who made it when."""
    import docx

    document = docx.Document(io.BytesIO(data))
    blocks = [_block(block) for block in document.iter_inner_content()]
    first = next((block.lstrip("# ") for block in blocks if block.startswith("#")), "")
    about = document.core_properties
    metadata = {"author": about.author, "created": about.created and about.created.date().isoformat()}
    return {"title": about.title or first, "text": "\n\n".join(filter(None, blocks)), "metadata": metadata}


def _block(block: Any) -> str:
    if hasattr(block, "rows"):
        return "\n".join(" | ".join(dict.fromkeys(cell.text.strip() for cell in row.cells)) for row in block.rows)
    text, style = block.text.strip(), block.style.name if block.style is not None else ""
    heading = re.fullmatch(r"(?:Heading (\d)|Title)", style or "")
    return f"{'#' * int(heading[1] or 1)} {text}" if heading and text else str(text)
