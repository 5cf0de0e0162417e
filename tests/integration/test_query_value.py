"""A query as a value: one for collections, tables and mapped classes, and one that JSON holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import RRF, Boost, Database, Document, Query, Record, Searchable, WeightedSum
from pgneural.cli import main
from pgneural.errors import InvalidQuery

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
    narrow = Query("owl").where("id > 0")
    assert [hit.entity.content for hit in notes.search(narrow, where="content LIKE '%red o%'")] == ["a red owl"]
    assert [hit.entity.text for hit in db.table("memos.search").search(narrow, where="text LIKE '%red o%'")] == [
        "a red owl"
    ]
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
        (Query("fox").where(Document.id > 1), InvalidQuery, "where has .*write it as SQL text"),
        (Query("fox").boost(Document.id), InvalidQuery, "boosts has"),
        (Query("fox").group_by(sa.func.lower(Document.title)), InvalidQuery, "group_by has"),
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
        ({"query": "fox", "rerank": "evil/model"}, "names a model in 'rerank'; pass models=True"),
        ({"query": "fox", "fusion": {"kind": []}}, "expected one with a kind of weighted_sum, rrf"),
        ({"query": "fox", "fusion": {"kind": "magic"}}, "expected one with a kind of weighted_sum, rrf"),
    ],
)
def test_json_that_is_no_query_or_brings_sql_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        Query.from_json(said)
    with pytest.raises(InvalidQuery, match="expected a list of SQL texts"):
        Query.from_json({"query": "fox", "where": "true"}, sql=True)
    malformed: list[Any] = [[{}], 5, [3]]
    for boosts in malformed:
        with pytest.raises(InvalidQuery, match="the JSON is no query"):
            Query.from_json({"query": "fox", "boosts": boosts}, sql=True)


def test_a_boost_keeps_what_was_said() -> None:
    assert Boost("id").expression == "id"


def test_the_shell_asks_a_stored_query(db: Database, url: str, tmp_path: Path) -> None:
    notes = db.collection("shelf", encoder="hash")
    notes.index(Record(str(n), f"fox {n}", f"T{n}", metadata={"n": n}) for n in range(9))
    stored = tmp_path / "query.json"
    asked = Query("fox").where("(metadata->>'n')::int > 3").limit(2).mode("lexical")
    stored.write_text(json.dumps(asked.to_json()))

    def run(*arguments: str, **options: Any) -> Result:
        found = CliRunner(env={"PGNEURAL_DATABASE_URL": url}).invoke(main, ["search", "shelf", *arguments], **options)
        return found

    def ids(result: Result) -> list[str]:
        assert result.exit_code == 0, result.output
        return [hit["external_id"] for hit in json.loads(result.output)["hits"]]

    expected = [hit.entity.external_id for hit in notes.search(asked)]
    assert len(expected) == 2
    assert ids(run("--query-json", str(stored), "--json")) == expected
    assert ids(run("--query-json", "-", "--json", input=stored.read_text())) == expected
    assert len(ids(run("--query-json", str(stored), "--json", "--limit", "4"))) == 4
    assert ids(run("--query-json", str(stored), "--json", "--where", "metadata->>'n' = '8'")) == ["8"]
    explained = run("--query-json", str(stored), "--json", "--explain")
    assert "explanation" in json.loads(explained.output)
    for wrong, message in (("[1]", "expected an object"), ("{", "is no JSON"), ('{"mode": "lexical"}', "no 'query'")):
        stored.write_text(wrong)
        failed = run("--query-json", str(stored))
        assert failed.exit_code in (1, 2)
        assert message in failed.output
        assert "Traceback" not in failed.output
    assert "give either QUERY, --image or --audio, or --query-json" in run().output
    assert "give either QUERY, --image or --audio, or --query-json" in run("fox", "--query-json", str(stored)).output
