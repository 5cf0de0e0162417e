"""Presentations: the texts of each slide, with its notes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from . import day_told, told


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with a form feed between slides, and who made it when."""
    import pptx

    presentation = pptx.Presentation(io.BytesIO(data))
    slides = ["\n\n".join(filter(None, _slide(slide))) for slide in presentation.slides]
    about = told(lambda: presentation.core_properties)
    metadata = {"author": told(lambda: about.author), "created": day_told(lambda: about.created), "pages": len(slides)}
    title = told(lambda: about.title) or _first_title(presentation.slides)
    return {"title": title, "text": "\f".join(slides), "metadata": metadata}


def _slide(slide: Any) -> Iterator[str]:
    yield from _texts(slide.shapes)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield slide.notes_slide.notes_text_frame.text.strip()


def _texts(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes)
        elif shape.has_text_frame:
            yield shape.text_frame.text.replace("\v", "\n").strip()
        elif getattr(shape, "has_table", False):
            yield "\n".join(" | ".join(cell.text.strip() for cell in row.cells) for row in shape.table.rows)


def _first_title(slides: Any) -> str:
    titles = (slide.shapes.title.text_frame.text for slide in slides if slide.shapes.title is not None)
    return next(filter(None, titles), "")
