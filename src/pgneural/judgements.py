"""Reading test collections: queries and the judgements of which documents answer them.

Queries: BEIR JSONL (``_id``, ``text``) or lines of ``id<TAB>text``. Judgements (qrels): BEIR TSV with a header
line (``query-id``, ``corpus-id``, ``score``), or TREC's four columns (query, iteration, document, relevance).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pgneural.errors import UnreadableInput

Queries = Mapping[str, str]
"""The text of each query, by its id."""

Qrels = Mapping[str, Mapping[str, int]]
"""For each query, the relevance of each judged document: 0 is not relevant, larger is better."""


def read_queries(path: str | Path) -> dict[str, str]:
    """Read queries.

    Raises:
        UnreadableInput: The file is missing, or a line is not a query.
    """
    queries: dict[str, str] = {}
    for origin, line in _lines(path):
        id_, text = _json_query(origin, line) if line.startswith("{") else _split_query(origin, line)
        queries[id_] = text
    if not queries:
        raise UnreadableInput(f"{path}: there are no queries")
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements.

    Raises:
        UnreadableInput: The file is missing, or a line is not a judgement.
    """
    qrels: dict[str, dict[str, int]] = {}
    for at, (origin, line) in enumerate(_lines(path)):
        fields = line.split("\t") if "\t" in line else line.split()
        if at == 0 and not fields[-1].strip().lstrip("-").isdigit():
            continue  # a header
        if len(fields) not in (3, 4) or not fields[-1].strip().lstrip("-").isdigit():
            raise UnreadableInput(
                f"{origin}: {line[:80]!r} is not a judgement; expected query, document, score (BEIR) or "
                "query, iteration, document, relevance (TREC)"
            )
        qrels.setdefault(fields[0], {})[fields[-2]] = int(fields[-1])
    if not qrels:
        raise UnreadableInput(f"{path}: there are no judgements")
    return qrels


def _json_query(origin: str, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UnreadableInput(f"{origin}: invalid JSON at character {error.colno}: {error.msg}") from error
    id_ = next((row[name] for name in ("_id", "id", "query_id") if name in row), None)
    text = next((row[name] for name in ("text", "query", "title") if name in row), None)
    if id_ is None or not isinstance(text, str):
        raise UnreadableInput(f"{origin}: expected the fields _id and text, found {', '.join(row)}")
    return str(id_), text


def _split_query(origin: str, line: str) -> tuple[str, str]:
    id_, tab, text = line.partition("\t")
    if not tab:
        raise UnreadableInput(f"{origin}: {line[:80]!r} is not a query; give JSON with _id and text, or id<TAB>text")
    return id_, text


def _lines(path: str | Path) -> Iterator[tuple[str, str]]:
    path = Path(path)
    try:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInput(f"{path}: {getattr(error, 'strerror', None) or error}; give a UTF-8 file") from error
