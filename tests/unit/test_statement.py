"""The statements as text: readable, stable, and changed only on purpose.

To accept a change: ``PGNEURAL_UPDATE_SNAPSHOTS=1 pytest tests/unit/test_statement.py``, and read the difference.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pgneural.statement import Page, Query, Target, Threshold, Vectors, facets
from pgneural.store.schema import DOCUMENTS, Document, chunk_table, terms_table
from pgneural.store.vectors import Indexed, Storage, VectorIndex
from pgneural.types import Distance, Mode

SNAPSHOTS = Path(__file__).parent / "snapshots"
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@pytest.fixture
def target() -> Target:
    chunks = chunk_table(DOCUMENTS, "notes", 3, metadata=sa.MetaData())
    terms = terms_table(DOCUMENTS, "notes", metadata=sa.MetaData())
    indexed = Indexed(VectorIndex(), Storage.VECTOR, Distance.COSINE, 3)
    dense = Vectors("semantic", chunks, indexed)
    return Target(DOCUMENTS, dense, terms, 1, DOCUMENTS.c.collection == "notes")


def text_of(select: sa.Select[object]) -> str:
    """Return the statement with a line for each part."""
    sql = str(select.compile(dialect=DIALECT))
    return re.sub(r" *\n+ *", "\n", sql).strip() + "\n"


def ctes(text: str) -> list[str]:
    return re.findall(r"(\w+) AS MATERIALIZED", text)


QUERIES = {
    "semantic": Query(Mode.SEMANTIC, Page(10), np.array([1, 2, 3], np.float32)),
    "semantic_filtered_second_page": Query(
        Mode.SEMANTIC,
        Page(10, 50),
        np.array([1, 2, 3], np.float32),
        where=Document.title == "a",
        threshold=Threshold(0.5),
    ),
    "lexical": Query(Mode.LEXICAL, Page(10), text="a fox", where=Document.title == "a"),
    "hybrid": Query(Mode.HYBRID, Page(10), np.array([1, 2, 3], np.float32), "a fox", where=Document.title == "a"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_statements_are_those_of_the_snapshots(target: Target, name: str) -> None:
    path, text = SNAPSHOTS / f"{name}.sql", text_of(QUERIES[name].select(target))
    if os.environ.get("PGNEURAL_UPDATE_SNAPSHOTS"):
        path.write_text(text)
    assert text == path.read_text()


def test_parts_are_named_as_the_documentation_says(target: Target) -> None:
    hybrid = ctes(text_of(QUERIES["hybrid"].select(target)))
    semantic = {"settings", "probe", "passing", "asked", "query", "near", "found", "exact", "fallback", "semantic"}
    lexical = {"probe", "passing", "question", "few_words", "rare_words", "more_words", "lexical"}
    assert set(ctes(text_of(QUERIES["semantic"].select(target)))) == semantic | {"many"}
    assert set(ctes(text_of(QUERIES["lexical"].select(target)))) == lexical
    assert set(hybrid) == semantic | lexical | {"pool", "scored", "fused"}
    assert len(hybrid) == len(set(hybrid))


def test_queries_of_one_shape_differ_in_their_parameters_only(target: Target) -> None:
    one = Query(Mode.HYBRID, Page(10), np.array([1, 2, 3], np.float32), "a fox")
    other = Query(Mode.HYBRID, Page(10), np.array([4, 5, 6], np.float32), "a hound")
    assert one.shape() == other.shape() is not None
    assert text_of(one.select(target)) == text_of(other.select(target))
    parameters = other.parameters(target)
    sent = {name: str(value) for name, value in parameters.items()}
    assert sent == {"neural_vector": "{4.0,5.0,6.0}", "neural_text": "a hound"}
    compiled = other.select(target).compile(dialect=DIALECT)
    assert all(str(compiled.params[name]) == str(value) for name, value in parameters.items())
    assert QUERIES["hybrid"].shape() == replace(QUERIES["hybrid"], where=Document.title == "b").shape()


def test_facets(target: Target) -> None:
    text = text_of(facets(target, Document.title, "fox", None, 5))
    assert "GROUP BY 1" in text
    assert "ORDER BY 2 DESC, 1" in text
    assert "EXISTS" in text
