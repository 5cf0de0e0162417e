"""Spreadsheets of Excel and OpenDocument: the rows of each sheet that say something."""

from __future__ import annotations

import io
from typing import Any


def extract(data: bytes) -> dict[str, Any]:
    """Return the text with a form feed between sheets; each begins with its name, cells are parted by ``|``."""
    import python_calamine

    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    except python_calamine.PasswordError:
        return {"refused": "it needs a password; save a copy without one"}
    sheets = [_sheet(name, workbook.get_sheet_by_name(name).to_python()) for name in workbook.sheet_names]
    return {"text": "\f".join(sheets), "metadata": {"pages": len(sheets)}}


def _sheet(name: str, rows: list[list[Any]]) -> str:
    cells = ([_cell(value) for value in row] for row in rows)
    return "\n".join([f"# {name}", *(" | ".join(filter(None, row)) for row in cells if any(row))])


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
