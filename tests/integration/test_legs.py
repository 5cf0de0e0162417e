"""Legs are an open set: any number over vectors beside the words, each asked what it is to answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import RRF, Collection, Database, Searchable, WeightedSum
from pgneural.errors import DimensionMismatch, InvalidQuery
from pgneural.explain import stages_of
from pgneural.statement import Page, Query, Target, Vectors
from pgneural.store.schema import Space
from pgneural.store.space import chunks_of, indexed_of, read_spaces
from pgneural.types import Mode
from pgneural.worker import Worker
from tests.fixtures.orm import Create

TEXTS = ["a red fox", "a grey owl", "a red owl", "an old fox of the woods", "a cat", "a dog that barks"]


@pytest.fixture
def notes(db: Database) -> Collection:
    collection = db.collection("notes", encoder="hash")
    collection.index([{"id": str(n), "text": text} for n, text in enumerate(TEXTS)])
    return collection


def ids(hits: Any) -> list[str]:
    return [hit.entity.external_id for hit in hits]


def test_a_leg_may_be_asked_another_thing(notes: Collection) -> None:
    hits = notes.search("fox", inputs={"lexical": "owl"})
    assert {hit.entity.external_id for hit in hits if hit.legs["lexical"] > 0} == {"1", "2"}
    assert ids(sorted(hits, key=lambda hit: -hit.legs["semantic"]))[0] == "0"
    vector = notes.encoder.encode_query("cat")
    given = notes.search("red", inputs={"semantic": vector}, limit=6)
    assert max(given, key=lambda hit: hit.legs["semantic"]).entity.external_id == "4"
    also = notes.search(vector, inputs={"lexical": "red"}, limit=6)
    assert [(*ids([hit]), hit.score) for hit in also] == [(*ids([hit]), hit.score) for hit in given]
    assert ids(notes.search("fox", inputs={"semantic": {"fox": 1, "red": -1}}, mode="semantic", limit=1)) == ["3"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"semantc": "fox"}, "inputs has 'semantc', but the legs of this search in mode hybrid are lexical, semantic"),
        ({"lexical": [0.5] * 256}, "the input of leg lexical is .*, expected a text"),
        ({"semantic": " "}, "expected a text"),
        (["fox"], "expected a mapping of the names of legs"),
    ],
)
def test_inputs_that_fit_no_leg_are_refused(notes: Collection, inputs: Any, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        notes.search("fox", inputs=inputs)
    with pytest.raises(DimensionMismatch):
        notes.search("fox", inputs={"semantic": [1.0, 2.0]})


def test_weights_are_of_legs_that_there_are(notes: Collection) -> None:
    assert ids(notes.search("red owl", fusion=WeightedSum(lexical=9), limit=1)) == ["2"]
    for fusion in (WeightedSum(semantc=2), RRF(photo=1)):
        with pytest.raises(InvalidQuery, match="has a weight for leg '(semantc|photo)', but the search has semantic"):
            notes.search("fox", fusion=fusion)
    assert WeightedSum(semantic=3) == WeightedSum(semantic=3) != WeightedSum(semantic=2)
    assert repr(RRF(20, lexical=2)) == "RRF(constant=20, lexical=2.0)"
    assert len({WeightedSum(), WeightedSum(), RRF(), RRF(60)}) == 2


@pytest.mark.parametrize("fusion", [WeightedSum(), RRF()])
def test_a_leg_that_says_nothing_of_a_row_is_missing_and_not_zero(db: Database, fusion: Any) -> None:
    """A picture has no words: it must not rank below texts that do not match."""
    shown = db.collection("shown", encoder="vectors:2")
    rng = np.random.default_rng(1)
    angles = rng.uniform(0.5, 2.5, 40)
    shown.index(
        [
            {"id": "picture", "text": "!!!", "embedding": [1.0, 0.0]},
            {"id": "twin", "text": "something else", "embedding": [1.0, 0.0]},
            *(
                {"id": f"text {n}", "text": f"a fox number {n}", "embedding": [float(np.cos(a)), float(np.sin(a))]}
                for n, a in enumerate(angles)
            ),
        ]
    )
    hits = shown.search([1.0, 0.0], inputs={"lexical": "fox"}, fusion=fusion, limit=42)
    found = {hit.entity.external_id: hit for hit in hits}
    assert "lexical" not in found["picture"].legs
    assert found["twin"].legs["lexical"] == 0
    assert found["picture"].score > found["twin"].score
    if isinstance(fusion, WeightedSum):
        assert ids(hits)[0] == "picture"


@pytest.mark.parametrize("fusion", [WeightedSum(), RRF(), WeightedSum(semantic=0), RRF(semantic=0, lexical=0)])
def test_a_row_without_words_does_not_win_by_that(db: Database, fusion: Any) -> None:
    """Where the leg that is left counted alone, a middling picture stood above texts as near that match."""
    mixed = db.collection("mixed", encoder="vectors:2")
    at = [0.1 * n for n in range(20)]
    vectors = [[float(np.cos(angle)), float(np.sin(angle))] for angle in at]
    mixed.index(
        [
            {"id": "picture", "text": "!!!", "embedding": vectors[3]},
            *({"id": f"fox {n}", "text": f"fox of number {n}", "embedding": v} for n, v in enumerate(vectors[:8])),
            *({"id": f"owl {n}", "text": f"owl of number {n}", "embedding": v} for n, v in enumerate(vectors)),
        ]
    )
    hits = mixed.search([1.0, 0.0], inputs={"lexical": "fox"}, fusion=fusion, limit=29)
    assert len(hits) == 29
    assert all(isinstance(hit.score, float) for hit in hits)
    place = {id_: place for place, id_ in enumerate(ids(hits))}
    if any(fusion.weight(leg) for leg in ("semantic", "lexical")):
        assert place["fox 3"] < place["picture"] < place["owl 3"]


def test_more_legs_over_vectors(db: Database, notes: Collection) -> None:
    """Another space of the same documents, as a leg of its own: names, parameters and columns follow from it."""
    db.create_space("notes", "coarse", encoder="hash", options={"dimensions": 16})
    Worker(db.url, as_superuser=True).run(once=True)
    with db.engine.begin() as connection:
        found = read_spaces(connection, Space.attribute == "notes", Space.kind == "dense")
        spaces = {space.name: space for space in found}
        coarse = spaces["coarse"]
        target: Target = notes.searcher.target(connection)
        extra = Vectors("coarse", chunks_of(coarse), indexed_of(coarse))
        target = replace(target, vectors=(*target.vectors, extra))
        assert target.legs == ["semantic", "coarse", "lexical"]
        assert {"coarse_near", "coarse_exact", "coarse_fallback"} <= stages_of(target).keys()
        asked = {
            "semantic": notes.encoder.encode_query("red owl"),
            "coarse": np.ones(16, dtype=np.float32),
            "lexical": "owl",
        }
        query = Query(Mode.HYBRID, Page(6), asked, fusion=WeightedSum(coarse=0.5))
        rows = connection.execute(query.select(target), query.parameters(target)).mappings().all()
        assert len(rows) == 6
        for row in rows:
            assert row["semantic"] is not None
            assert row["coarse"] is not None
        assert sum(row["lexical"] > 0 for row in rows) == 2
        alone = Query(Mode.SEMANTIC, Page(3), {"coarse": asked["coarse"]})
        nearest = connection.execute(alone.select(target), alone.parameters(target)).mappings().all()
        assert [row["score"] for row in nearest] == sorted((row["coarse"] for row in rows), reverse=True)[:3]
        with pytest.raises(InvalidQuery, match="no leg 'photo'; it has semantic, coarse, lexical"):
            Query(Mode.SEMANTIC, Page(3), {"photo": asked["coarse"]}).select(target)


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


def test_of_mapped_classes(create: Create) -> None:
    with create(Base.metadata) as session:
        session.add_all(Memo(text=text) for text in TEXTS)
        session.flush()
        Memo.search.sync(session)
        _check(session)


def _check(session: Session) -> None:
    hits = Memo.search("fox").inputs(lexical="owl").all(session)
    assert {hit.entity.text for hit in hits if hit.legs["lexical"] > 0} == {"a grey owl", "a red owl"}
    vector = Memo.search.encoder.encode_query("cat")
    given = Memo.search(vector).inputs(lexical="red").all(session)
    assert max(given, key=lambda hit: hit.legs["semantic"]).entity.text == "a cat"
    rows = session.execute(Memo.search("fox").inputs(semantic=vector).select().limit(2)).all()
    assert {"semantic", "lexical"} <= set(rows[0]._fields)
    with pytest.raises(InvalidQuery, match="inputs has 'photo'"):
        Memo.search("fox").inputs(photo="x").all(session)
    assert session.scalar(sa.select(sa.func.count()).select_from(Memo)) == 6
