"""The statements as text: readable, stable, and changed only on purpose.

To accept a change: ``PGNEURAL_UPDATE_SNAPSHOTS=1 pytest tests/unit/test_statement.py``, and read the difference.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pgneural.filter import condition
from pgneural.statement import (
    RRF,
    Aggregate,
    Boost,
    Page,
    Query,
    Target,
    Threshold,
    Vectors,
    WeightedSum,
    facets,
)
from pgneural.store.schema import DOCUMENTS, Document
from pgneural.store.tables import chunk_table, terms_table
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
    return Target(DOCUMENTS, (dense,), terms, 1, DOCUMENTS.c.collection == "notes")


def text_of(select: sa.Select[object]) -> str:
    """Return the statement with a line for each part."""
    sql = str(select.compile(dialect=DIALECT))
    return re.sub(r" *\n+ *", "\n", sql).strip() + "\n"


def ctes(text: str) -> list[str]:
    return re.findall(r"(\w+) AS MATERIALIZED", text)


BOTH = {"semantic": np.array([1, 2, 3], np.float32), "lexical": "a fox"}

QUERIES = {
    "semantic": Query(Mode.SEMANTIC, Page(10), {"semantic": np.array([1, 2, 3], np.float32)}),
    "semantic_filtered_second_page": Query(
        Mode.SEMANTIC,
        Page(10, 50),
        {"semantic": np.array([1, 2, 3], np.float32)},
        where=Document.title == "a",
        threshold=Threshold(0.5),
    ),
    "lexical": Query(Mode.LEXICAL, Page(10), {"lexical": "a fox"}, where=Document.title == "a"),
    "hybrid": Query(
        Mode.HYBRID,
        Page(10),
        {"semantic": np.array([1, 2, 3], np.float32), "lexical": "a fox"},
        where=Document.title == "a",
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_statements_are_those_of_the_snapshots(target: Target, name: str) -> None:
    path, text = SNAPSHOTS / f"{name}.sql", text_of(QUERIES[name].select(target))
    if os.environ.get("PGNEURAL_UPDATE_SNAPSHOTS"):
        path.write_text(text)
    assert text == path.read_text()


def test_parts_are_named_as_the_documentation_says(target: Target) -> None:
    hybrid = ctes(text_of(QUERIES["hybrid"].select(target)))
    semantic = {
        "settings",
        "probe",
        "passing",
        "query_vector",
        "query",
        "near",
        "found",
        "exact",
        "fallback",
        "semantic",
    }
    lexical = {"probe", "passing", "question", "few_words", "rare_words", "more_words", "lexical"}
    assert set(ctes(text_of(QUERIES["semantic"].select(target)))) == semantic | {"many"}
    assert set(ctes(text_of(QUERIES["lexical"].select(target)))) == lexical
    assert set(hybrid) == semantic | lexical | {"pool", "scored", "fused"}
    assert len(hybrid) == len(set(hybrid))


def test_queries_of_one_shape_differ_in_their_parameters_only(target: Target) -> None:
    one = Query(Mode.HYBRID, Page(10), {"semantic": np.array([1, 2, 3], np.float32), "lexical": "a fox"})
    other = Query(Mode.HYBRID, Page(10), {"semantic": np.array([4, 5, 6], np.float32), "lexical": "a hound"})
    assert one.shape() == other.shape() is not None
    assert text_of(one.select(target)) == text_of(other.select(target))
    parameters = other.parameters(target)
    sent = {name: str(value) for name, value in parameters.items()}
    assert sent == {"neural_semantic": "{4.0,5.0,6.0}", "neural_text": "a hound"}
    compiled = other.select(target).compile(dialect=DIALECT)
    assert all(str(compiled.params[name]) == str(value) for name, value in parameters.items())
    assert QUERIES["hybrid"].shape() == replace(QUERIES["hybrid"], where=Document.title == "b").shape()


VALUES: dict[str, Any] = {
    "mode": Mode.LEXICAL,
    "page": Page(10, 5),
    "inputs": {"semantic": sa.func.avg(DOCUMENTS.c.id)},
    "text": "a fox",
    "tokens": np.ones((2, 3), np.float32),
    "where": DOCUMENTS.c.title == "a",
    "fusion": RRF(),
    "boosts": (Boost(DOCUMENTS.c.id),),
    "threshold": Threshold(0.5),
    "aggregate": Aggregate.parse("mean"),
}
"""For each field of a query another value than `PLAIN` has. Whoever adds a field adds one here."""

PLAIN = Query(Mode.SEMANTIC, Page(10), {"semantic": np.array([1, 2, 3], np.float32)})


@pytest.mark.parametrize("field", [field.name for field in fields(Query)])
def test_every_field_of_a_query_is_part_of_its_shape(field: str) -> None:
    other = replace(PLAIN, **{field: VALUES[field]})
    assert other.shape() not in (None, PLAIN.shape())
    assert other.shape() == replace(PLAIN, **{field: VALUES[field]}).shape()


@dataclass(frozen=True, eq=False)
class Longer(Query):
    """A query with one more field, which nobody has thought of."""

    extra: Any = None


def test_a_field_that_nobody_thought_of_is_part_of_the_shape() -> None:
    def asked(extra: Any) -> Longer:
        return Longer(Mode.SEMANTIC, Page(10), PLAIN.inputs, extra=extra)

    values = [None, 1, 2, 1.0, True, "1", ("1",), ("1", "2"), Page(1), Page(2), Threshold(), DOCUMENTS.c.id, sa.true()]
    shapes = [asked(value).shape() for value in values]
    assert None not in shapes
    assert len(set(shapes)) == len(values)
    untold: list[Any] = [[1], {"a": 1}, {1}, object(), sa.text("1"), np.ones(2), lambda: 1]
    assert [asked(value).shape() for value in untold] == [None] * len(untold)


def test_weights_and_options_are_part_of_the_shape() -> None:
    def shape(**options: Any) -> Any:
        return replace(PLAIN, **options).shape()

    up, down = DOCUMENTS.c.id, DOCUMENTS.c.created_at
    options: list[dict[str, Any]] = [
        {"boosts": (Boost(up),)},
        {"boosts": (Boost(up, 2),)},
        {"boosts": (Boost(down),)},
        {"boosts": (Boost(up), Boost(down))},
        {"boosts": (Boost(down), Boost(up))},
        {"boosts": (Boost("id"),)},
        {"boosts": (Boost("id + 1"),)},
        {"fusion": RRF(1)},
        {"fusion": RRF(2)},
        {"fusion": WeightedSum()},
        {"fusion": WeightedSum(semantic=3)},
        {"where": sa.true()},
        {"where": condition("true")},
        {"where": condition("false")},
        {"where": condition(("title = :a", {"a": 1}))},
        {"where": condition(("title <> :a", {"a": 1}))},
    ]
    assert len({shape(**option) for option in options}) == len(options)
    assert shape(boosts=(Boost(up, 2),)) == shape(boosts=(Boost(up, 2.0),))
    same = (condition(("title = :a", {"a": 1})), condition(("title = :a", {"a": "x"})))
    assert shape(where=same[0]) == shape(where=same[1])


def test_names_with_a_colon_are_parameters_outside_of_quotations_only() -> None:
    def said(text: str, *names: str) -> str:
        return re.sub(r"\s+", " ", str(condition((text, dict.fromkeys(names, 1)))))

    assert said("a = :a AND b = :b", "a", "b") == "(a = (:a_1) AND b = (:b_1) )"
    assert said("a = :a OR b = :a", "a") == "(a = (:a_1) OR b = (:a_1) )"
    assert said("':x' = :a::text", "a") == "(':x' = (:a_1)::text )"
    assert said("\":x\" = E'\\':x' OR $$:x$$ = :a -- :x", "a") == "(\":x\" = E'\\':x' OR $$:x$$ = (:a_1) -- :x )"
    assert said("/* :x */ b[1:n] = c[x:y] AND d\\:x = :a", "a") == "(/* :x */ b[1:n] = c[x:y] AND d:x = (:a_1) )"
    assert str(condition("':x' = :a\\:b")) == "(':x' = :a\\:b\n)"


def test_facets(target: Target) -> None:
    text = text_of(facets(target, Document.title, "fox", None, 5))
    assert "GROUP BY 1" in text
    assert "ORDER BY 2 DESC, 1" in text
    assert "EXISTS" in text
