"""What a query demands and excludes: phrases first, the others after them; what is excluded is in no leg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Boost, Collection, Database, Hits, Record, Searchable, WeightedSum
from pgneural.cli import main
from tests.fixtures.orm import Create, texts

WORDS = ["red", "green", "blue", "fox", "hound", "owl"]


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


def ids(hits: Hits) -> list[str]:
    return [hit.entity.external_id for hit in hits]


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def animals(database: Database) -> Collection:
    made = database.collection("animals", encoder="hash", language="simple")
    rows = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS]
    made.index(Record(str(n), text) for n, text in enumerate(rows))
    return made


def has(text: str, phrase: str) -> bool:
    return f" {phrase} " in f" {text} "


@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    phrase=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
    excluded=st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(" ".join),
    mode=st.sampled_from(["lexical", "hybrid"]),
    limit=st.sampled_from([1, 7, 40, 300]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_phrases_come_first_and_what_is_excluded_not_at_all(
    animals: Collection, words: list[str], phrase: str, excluded: str | None, mode: str, limit: int
) -> None:
    query = f'{" ".join(words)} "{phrase}"' + (f' -"{excluded}"' if excluded else "")
    hits = animals.search(query, mode=mode, limit=limit)
    found = [hit.entity.content for hit in hits]
    rows = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS]
    allowed = [text for text in rows if excluded is None or not has(text, excluded)]
    asked = {*words, *phrase.split()}
    matching = [text for text in allowed if mode == "hybrid" or asked & set(text.split())]
    met = sum(has(text, phrase) for text in allowed)
    assert not excluded or not any(has(text, excluded) for text in found)
    assert len(found) == len(set(found)) == min(limit, len(matching))  # never short
    assert [hit.relaxed for hit in hits if has(hit.entity.content, phrase)] == [False] * sum(
        has(text, phrase) for text in found
    )
    if met < limit:
        assert [has(text, phrase) for text in found] == [True] * met + [False] * (len(found) - met)
        assert hits.relaxed == (len(found) > met)
        assert sum(hit.relaxed for hit in hits) == len(found) - met
    else:
        assert not hits.relaxed
        assert mode == "hybrid" or all(has(text, phrase) for text in found)


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_pages_neither_repeat_nor_lose_a_row(animals: Collection, mode: str) -> None:
    pages = [animals.search('owl "red fox" hound', mode=mode, limit=7, offset=offset) for offset in range(0, 218, 7)]
    found = [id_ for page in pages for id_ in ids(page)]
    assert len(found) == len(set(found))
    assert all("red fox" in hit.entity.content for hit in pages[0])


def test_a_question_with_quotation_marks_is_answered(database: Database) -> None:
    articles = database.collection("articles", encoder="hash")
    articles.index(
        [
            Record("1", "Text formatting systems of the seventies"),
            Record("2", "Articles on typesetting"),
            Record("3", "What you see is what you get"),
        ]
    )
    question = 'Articles on text formatting systems, including "what you hear is what you get" systems'
    for mode in ("lexical", "hybrid"):
        hits = articles.search(question, mode=mode)
        assert hits.relaxed
        assert {"1", "2"} <= set(ids(hits))
        said = str(articles.explain(question, mode=mode))
        assert "the search is relaxed" in said
        assert not articles.search(question.replace('"', ""), mode=mode).relaxed
    assert articles.facets("external_id", query=question) == {"1": 1, "2": 1, "3": 1}
    assert articles.facets("external_id", query='text "you are the"') == {"1": 1}  # nothing but stop words
    assert articles.facets("external_id", query='articles "formatting systems"') == {"1": 1}
    assert articles.facets("external_id", query="articles text -typesetting") == {"1": 1}
    run = CliRunner().invoke(main, ["--database", database.url, "search", "articles", 'text "typesetting systems"'])
    assert run.exit_code == 0
    assert "too few documents have the phrase" in run.stderr


def test_exclusions_hold_in_every_leg_and_near_does_not_come_back_short(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgneural.statement.probe.EXACT_CHUNKS", 20)
    many = database.collection("foxes", encoder="hash")
    many.index(Record(str(n), f"a {'red' if n % 10 else 'grey'} fox number {n}") for n in range(3000))
    hits = many.search("red fox -red", limit=50)
    assert len(hits) == 50
    assert all("grey" in hit.entity.content for hit in hits)
    assert hits.strategy in ("near", "fallback")
    hits = many.search("red fox -red", limit=50, fusion=WeightedSum(), boosts=[Boost("length(content)")])
    assert len(hits) == 50
    assert all("grey" in hit.entity.content for hit in hits)
    plain = many.search("red fox -red", mode="semantic", limit=50)  # which reads no operators
    assert any("red" in hit.entity.content for hit in plain)


def test_mapped_classes_and_rows_that_have_just_changed(create: Create, engine: sa.Engine) -> None:
    with create(Base.metadata) as session:
        session.add_all([Note(text="a red fox"), Note(text="a fox that is red"), Note(text="a grey owl")])
        session.flush()
        Note.search.sync(session)
        session.commit()
        hits = Note.search('"red fox"').mode("lexical").all(session)
        assert texts(hits) == ["a red fox", "a fox that is red"]
        assert [hit.relaxed for hit in hits] == [False, True]
        assert [row.relaxed for row in session.execute(Note.search('"red fox"').select())] == [False, True, True]
        session.add(Note(text="one more red fox, and a badger"))
        session.execute(sa.update(Note).where(Note.text == "a grey owl").values(text="a grey badger"))
        session.commit()
    with Session(engine) as other:
        hits = Note.search('"red fox"').mode("lexical").all(other)
        assert {hit.entity.text for hit in hits if not hit.relaxed} == {"a red fox", "one more red fox, and a badger"}
        for mode in ("lexical", "hybrid"):
            found = texts(Note.search("grey fox -badger").mode(mode).all(other))
            assert sorted(found) == ["a fox that is red", "a red fox"]
            assert "a grey badger" in texts(Note.search("badger -owl").mode(mode).all(other))  # it was an owl before
        composed = other.execute(Note.search("grey fox -badger").mode("hybrid").select()).all()
        assert sorted(row[0].text for row in composed) == ["a fox that is red", "a red fox"]
