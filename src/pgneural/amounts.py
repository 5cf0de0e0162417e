"""Numbers that a caller gives: of Python or of numpy, but nothing that only passes for one."""

from __future__ import annotations

import math
import numbers
import sys
from decimal import Decimal

from pgneural.errors import InvalidQuery


def whole(name: str, value: object, least: int, most: int = sys.maxsize) -> int:
    """Return a whole number, of Python or of numpy, as one of Python.

    Raises:
        InvalidQuery: It is another thing, or out of range.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and least <= int(value) <= most:
        return int(value)
    raise InvalidQuery(f"{name} is {value!r}, expected a whole number {_span(least, most)}")


def _span(least: int, most: int) -> str:
    return f"of at least {least}" if most == sys.maxsize else f"from {least} to {most}"


def number(name: str, value: object) -> float:
    """Return a number, of Python or of numpy, as one of Python.

    Raises:
        InvalidQuery: It is another thing, or not finite.
    """
    if isinstance(value, (numbers.Real, Decimal)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InvalidQuery(f"{name} is {value!r}, expected a finite number")
