"""JSON lines, also BEIR's ``corpus.jsonl`` as it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import IO, cast

from pgneural.load.lines import Utf8, numbered, undecodable
from pgneural.load.records import Fields, from_mapping
from pgneural.types import BadRecord, Record


def records(file: IO[bytes], name: str, fields: Fields, _: str) -> Iterator[Record | BadRecord]:
    """Yield one record for each line that is not blank."""
    for number, line in numbered(cast(IO[bytes], io.BufferedReader(Utf8(file), 2**18)), name):
        if isinstance(line, BadRecord):
            yield line
        elif line.strip():
            yield _record(f"{name}:{number}", line, fields)


def _record(origin: str, line: bytes, fields: Fields) -> Record | BadRecord:
    try:
        row = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        return undecodable(origin, error)
    except json.JSONDecodeError as error:
        return BadRecord(origin, f"invalid JSON at character {error.pos}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return BadRecord(origin, f"invalid JSON: {error}")
    if not isinstance(row, dict):
        return BadRecord(origin, f"the line holds {type(row).__name__}, expected a JSON object")
    return from_mapping(row, origin, fields)
