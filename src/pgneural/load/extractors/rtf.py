"""Rich Text Format."""

from __future__ import annotations

from typing import Any


def extract(data: bytes) -> dict[str, Any]:
    """Return the text."""
    from striprtf.striprtf import rtf_to_text

    if not data.lstrip().startswith(b"{\\rtf"):
        return {"refused": "it is no RTF: it does not begin with {\\rtf; give it the suffix of what it is"}
    return {"text": rtf_to_text(data.decode("latin-1"), errors="replace")}  # type: ignore[no-untyped-call]
