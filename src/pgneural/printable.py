r"""Text on its way to a terminal or a log: what would steer it is shown as an escape, ``\x1b`` or ``\u202e``.

Documents, names and messages of a server come from others, and a terminal does what control characters say. Whatever
prints goes through here: the command line, the text of our errors, our warnings and our loggers.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import unicodedata
import warnings
from typing import Any

_JOINERS = "\u200c\u200d"
"""They change how letters of some scripts and emoji join, and show nothing of their own."""

_FIRST_JOINED = 0x0600
"""The first character of a script that has joiners is beyond this: in Latin, Greek or Cyrillic they only deceive."""


def counted(number: int, one: str, many: str) -> str:
    """Return a number with what is counted.

    Example:
        >>> counted(1, "row passes", "rows pass"), counted(1200, "row passes", "rows pass")
        ('1 row passes', '1,200 rows pass')
    """
    return f"{number:,} {one if number == 1 else many}"


def printable(value: object, keep: str = "") -> str:
    r"""Return a text in which every character can be seen; odd blanks become plain ones.

    Args:
        value: It, or what has it as its text.
        keep: Characters that are layout, such as the line break between lines of our own.

    Example:
        >>> printable("red\x1b[31m")
        'red\\x1b[31m'
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else _shown(text, at)
        for at, character in enumerate(text)
    )


def _shown(text: str, at: int) -> str:
    character = text[at]
    if unicodedata.category(character) == "Zs":
        return " "
    if character in _JOINERS and _joins(text[at - 1 : at]) and _joins(text[at + 1 : at + 2]):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _joins(neighbour: str) -> bool:
    if not neighbour or ord(neighbour) < _FIRST_JOINED:
        return False
    return unicodedata.category(neighbour)[0] in "LM" or unicodedata.category(neighbour) in ("So", "Sk")


_UNPRINTABLE = re.compile(r"[^\x20-\x7e\n]")


def printable_json(value: Any, *, ascii_only: bool = False, **options: Any) -> str:
    """Return a value as JSON in which every character can be seen: the escapes are JSON's own, the values are whole.

    Args:
        value: What `json.dumps` takes, with its `options`.
        ascii_only: Escape everything else, too.
    """
    written = json.dumps(value, ensure_ascii=ascii_only, **options)
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], written)


class _Printable(logging.Filter):
    """Makes the message of each record printable, whoever handles it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with its text as it may be shown."""
        record.msg, record.args = printable(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = printable("".join(traceback.format_exception(*record.exc_info)).rstrip(), "\n")
        return True


def logger(name: str) -> logging.Logger:
    """Return a logger of ours: what it says can be printed as it is."""
    found = logging.getLogger(name)
    if not any(isinstance(each, _Printable) for each in found.filters):
        found.addFilter(_Printable())
    return found


def warn(message: str, *, stacklevel: int = 1) -> None:
    """Warn, as `warnings.warn` does, in text that can be printed as it is."""
    warnings.warn(printable(message), stacklevel=stacklevel + 1)


class PrintableFormatter(logging.Formatter):
    """Formats the records of any logger for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return printable(super().format(record), "\n")


def tolerant_streams() -> None:
    """Have the standard streams escape what their encoding has not, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", "") != "backslashreplace" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
