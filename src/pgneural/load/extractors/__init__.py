"""From the bytes of a file to its text, a module for each format.

Each is loaded by its path into a process apart (`program`), and has one function, ``extract(data)``. It returns
``title``, ``text`` and ``metadata``, or ``refused``: why there is no text. Nothing of pgneural is imported here, so
that the process starts within a fraction of a second. In a text with pages, slides or sheets a form feed ends each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


def told(read: Callable[[], Any]) -> Any:
    """Return what a file says about itself, None where that is broken: its text is worth more."""
    with contextlib.suppress(Exception):
        return read()
    return None


def day_told(read: Callable[[], Any]) -> str | None:
    """Return the day of a moment that a file tells."""
    day: str | None = told(lambda: read().date().isoformat())
    return day
