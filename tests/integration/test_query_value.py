"""A query as a value: one for collections, tables and mapped classes, and one that JSON holds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import RRF, Boost, Database, Document, Query, Searchable, WeightedSum
from pgneural.errors import InvalidFilter, InvalidQuery

TEXTS = ["a red fox", "a grey owl", "a red owl", "an old fox of the woods", "a cat", "a dog that barks"]


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


FULL = (
    Query("red owl")
    .where("id < :most", "id >= 0")
    .limit(3)
    .offset(1)
    .mode("hybrid")
    .fuse(WeightedSum(lexical=3))
    .boost("id", 0.5)
    .threshold(min_score=-9)
)


def test_one_query_for_every_face(db: Database) -> None:
    notes = db.collection("notes", encoder="hash")
    notes.index([{"id": str(n), "text": text} for n, text in enumerate(TEXTS)])
    Base.metadata.create_all(db.engine)
    with Session(db.engine) as session:
        session.add_all(Memo(text=text) for text in TEXTS)
        session.flush()
        Memo.search.sync(session)
        session.commit()
        query = Query("owl").where(("id > :least", {"least": 0})).limit(2)
        by_class = [hit.entity.text for hit in Memo.search(query).all(session)]
        composed = session.scalars(Memo.search(query).select()).all()
    by_table = [hit.entity.text for hit in db.table("memos.search").search(query)]
    by_collection = [hit.entity.content for hit in notes.search(query)]
    assert by_class == by_table == by_collection
    assert [memo.text for memo in composed] == by_class
    assert {*by_class} == {"a grey owl", "a red owl"}
    assert len(notes.search(query, limit=5)) == 5
    assert len(notes.explain(query).hits) == 2
    assert len(notes.search(Query("owl").where(Document.content.like("%red%")))) == 2
    again = Query.from_json(json.loads(json.dumps(query.to_json())), sql=True)
    assert [hit.entity.content for hit in notes.search(again)] == by_collection


def test_is_immutable_and_generative() -> None:
    query = Query("fox")
    assert query.limit(3) is not query
    assert query.search_options == {}
    assert query.where("a = 1").where("b = 2").conditions == ("a = 1", "b = 2")
    with pytest.raises(InvalidQuery, match="a query has no option 'limt'"):
        query.with_options(limt=3)


def test_json_and_back() -> None:
    said = FULL.where(("lang = :lang", {"lang": "en"})).to_json()
    assert said == {
        "query": "red owl",
        "where": ["id < :most", "id >= 0", ["lang = :lang", {"lang": "en"}]],
        "limit": 3,
        "offset": 1,
        "mode": "hybrid",
        "fusion": {"kind": "weighted_sum", "lexical": 3.0},
        "boosts": [{"by": "id", "weight": 0.5}],
        "min_score": -9,
    }
    assert Query.from_json(json.loads(json.dumps(said)), sql=True).to_json() == said
    vector = Query(np.array([1, 2], np.float32)).fuse(RRF(9, semantic=2)).inputs(lexical="fox").group_by("lang", 2)
    said = vector.to_json()
    assert (said["query"], said["fusion"]) == ([1.0, 2.0], {"kind": "rrf", "constant": 9, "semantic": 2.0})
    assert Query.from_json(said, sql=True).to_json() == said


@given(
    st.dictionaries(st.text(min_size=1), st.floats(-9, 9), min_size=1) | st.text() | st.lists(st.floats(-9, 9)),
    st.integers(1, 99),
    st.sampled_from(["semantic", "lexical", "hybrid"]),
)
def test_every_plain_query_comes_back(asked: Any, limit: int, mode: str) -> None:
    query = Query(asked).limit(limit).mode(mode).diverse(0.5)
    said = query.to_json()
    again = Query.from_json(json.loads(json.dumps(said)))
    assert (again.input, again.search_options) == (query.input, query.search_options)


def test_what_json_cannot_hold_is_named() -> None:
    for query, error, message in [
        (Query("fox").where(Document.id > 1), InvalidFilter, "where has .*write it as SQL text"),
        (Query("fox").boost(Document.id), InvalidFilter, "boosts has"),
        (Query("fox").group_by(sa.func.lower(Document.title)), InvalidFilter, "group_by has"),
        (Query([float("nan")]), InvalidQuery, "query is .*JSON cannot hold"),
        (Query("fox").rerank(object()), InvalidQuery, "rerank is"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(error, match=message):
            query.to_json()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"query": "fox", "where": ["true"]}, "the query has SQL in 'where'; pass sql=True"),
        ({"query": "fox", "boosts": [{"by": "id"}]}, "SQL in 'boosts'"),
        ({"query": "fox", "group_by": "id"}, "SQL in 'group_by'"),
        ({"limit": 3}, "the JSON has no 'query'"),
        ({"query": "fox", "limt": 3}, "a query has no option 'limt'"),
        ({"query": "fox", "fusion": {"kind": "magic"}}, "expected one with a kind of weighted_sum, rrf"),
    ],
)
def test_json_that_is_no_query_or_brings_sql_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        Query.from_json(said)
    with pytest.raises(InvalidQuery, match="expected a list of SQL texts"):
        Query.from_json({"query": "fox", "where": "true"}, sql=True)


def test_a_boost_keeps_what_was_said() -> None:
    assert Boost("id").said == "id"
