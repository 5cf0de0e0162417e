"""Numbers that SQL and Python both know: Python says them, and each place in SQL names where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgneural import chunk, encoders, options
from pgneural.store import catalog, indexes, tables, vectors

SQL = Path(__file__).parents[2] / "sql"

FACT = re.compile(r"(\d+) /\* = (.+?) \*/")
"""A number in SQL, and the Python expression that it is."""

NAMES = {
    "catalog": catalog,
    "chunk": chunk,
    "encoders": encoders,
    "indexes": indexes,
    "options": options,
    "tables": tables,
    "vectors": vectors,
}

FACTS = [(file.name, *found) for file in sorted(SQL.glob("*.sql")) for found in FACT.findall(file.read_text())]


def test_sql_has_such_numbers() -> None:
    assert len(FACTS) >= 15
    assert all(name in " ".join(fact for _, _, fact in FACTS) for name in NAMES)


@pytest.mark.parametrize(("file", "number", "fact"), FACTS)
def test_sql_and_python_know_the_same_numbers(file: str, number: str, fact: str) -> None:
    assert int(number) == eval(fact, dict(NAMES)), file  # what our own files say


def test_defaults_of_watch_are_those_of_searchable() -> None:
    text = (SQL / "47_watch.sql").read_text()
    watch = text[text.index("FUNCTION neural.watch(") :]
    assert re.findall(r"max_tokens integer DEFAULT (\d+)", watch)[0] == str(chunk.CHUNK_TOKENS)
    assert f"encoder text DEFAULT '{encoders.DEFAULT}'" in watch
