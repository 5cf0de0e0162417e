"""Another space of a search: built beside the one that serves, compared, switched to, and back."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Collection, Database, Searchable, active_space, documents, encoders
from pgneural.cli import main
from pgneural.errors import DimensionMismatch, InvalidSpace, UnknownCollection, UnknownSpace
from pgneural.statement import Target
from pgneural.store.schema import Space
from pgneural.types import Encoder
from pgneural.worker import Worker
from tests.fixtures.orm import Create, filled, texts

ANIMALS = ["fox", "owl", "ibis", "gnu", "zebra", "wolf"]


def work(db: Database) -> None:
    """Have a worker work, which in real life is another process with encoders of its own."""
    Worker(db.url, as_superuser=True, make=encoders.make).run(once=True)


@pytest.fixture
def notes(db: Database, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setattr(active_space, "PREPARE_JITTER_SECONDS", 0.1)
    notes = db.collection("notes", encoder="hash")
    notes.index({"id": str(n), "text": f"{animal} number {n}"} for n, animal in enumerate(ANIMALS * 5))
    return notes


def states(db: Database, search: str = "notes") -> dict[str, str]:
    return {space.name: space.state for space in db.spaces(search)}


def until_it_searches(collection: Collection, space: str) -> None:
    """Search until the other space is ready: meanwhile the one that served answers."""
    deadline = time.monotonic() + 10
    while collection.search("fox", limit=1) and collection.space.name != space:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def slowly(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have encoders loaded from now on when the event is set."""
    loading, get = threading.Event(), encoders.make

    def slow(name: str, **options: Any) -> Encoder:
        loading.wait(30)
        made: Encoder = get(name, **options)
        return made

    monkeypatch.setattr(encoders, "make", slow)
    return loading


def first(collection: Collection, query: str) -> str:
    return str(collection.search(query, limit=1)[0].entity.content)


def test_a_collection_changes_its_model(db: Database, notes: Collection) -> None:
    db.create_space("notes", "small", encoder="hash", options={"dimensions": 64}, max_tokens=50)
    assert states(db) == {"main": "serving", "small": "building"}
    with pytest.raises(InvalidSpace, match="30 rows of space small are not encoded yet"):
        db.switch_space("notes", "small")
    work(db)
    notes.index([{"id": "new", "text": "a quagga"}])  # rows change meanwhile
    notes.delete("0")
    assert next(s.pending for s in db.spaces("notes") if s.name == "small") == 2
    work(db)
    comparison = db.compare_spaces("notes", "small", {"q": "owl number 1", "r": "ibis"}, {"q": {"1": 1}})
    assert comparison.overlap > 0.5
    assert [space.mean["mrr@10"] for space in comparison.spaces] == [1.0, 1.0]
    db.switch_space("notes", "small")
    assert states(db) == {"small": "serving", "main": "standby"}
    until_it_searches(notes, "small")
    assert first(notes, "owl number 7") == "owl number 7"  # opened before: old code goes on
    assert (notes.space.name, notes.encoder.dimensions) == ("small", 64)
    assert first(notes, "quagga") == "a quagga"
    with pytest.raises(DimensionMismatch, match="vectors of 64 numbers"):
        notes.search([1.0] * 256)
    notes.index([{"id": "1", "text": "a tapir"}])
    assert db.rollback_space("notes") == "main"
    until_it_searches(notes, "main")
    assert first(notes, "tapir") != "a tapir"  # not yet
    work(db)
    assert first(notes, "tapir") == "a tapir"
    assert notes.space.name == "main"
    db.switch_space("notes", "small", force=True)
    db.drop_space("notes", "main")  # at once, before the client knows
    assert states(db) == {"small": "serving"}
    assert first(notes, "tapir") == "a tapir"
    assert first(db.existing("notes"), "tapir") == "a tapir"
    assert notes.index([{"id": "1", "text": "a tapir"}]).unchanged == 1
    db.drop("notes")
    with db.engine.connect() as connection:
        left = "SELECT relname FROM pg_class WHERE relname LIKE 'space\\_%' OR relname LIKE 'documents_notes%'"
        assert connection.scalars(sa.text(left)).all() == []
        assert connection.scalar(sa.text("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'documents_%'")) == 0
    with pytest.raises(UnknownCollection):
        notes.search("fox")


def test_the_first_documents_of_another_space_are_as_they_should_be(db: Database, notes: Collection) -> None:
    """They were kept as of a revision that the space had not yet, so that a comparison had them made anew."""
    db.create_space("notes", "small", encoder="hash", options={"dimensions": 64})
    work(db)
    assert db.check().differences == ()


def test_what_cannot_be(db: Database, notes: Collection) -> None:
    for do, error, said in (
        (lambda: db.create_space("cats", "b"), UnknownSpace, "no search and no collection 'cats'"),
        (lambda: db.create_space("notes", "main"), InvalidSpace, "a space main already"),
        (lambda: db.create_space("notes", "a b"), InvalidSpace, "letters, digits"),
        (lambda: db.switch_space("notes", "b"), UnknownSpace, "has no space b; It has: main"),
        (lambda: db.rollback_space("notes"), UnknownSpace, "nothing to go back to"),
        (lambda: db.drop_space("notes", "main"), InvalidSpace, "serves; Switch to another first"),
        (lambda: db.compare_spaces("notes", "main"), InvalidSpace, "serves; compare another"),
    ):
        with pytest.raises(error, match=said):
            do()
    assert states(db) == {"main": "serving"}


def test_a_backfill_is_throttled(db: Database, notes: Collection) -> None:
    started = time.monotonic()
    db.create_space("notes", "slow", language="german", rows_per_second=1)
    work(db)
    pending = next(s.pending for s in db.spaces("notes") if s.name == "slow")
    assert 29 - (time.monotonic() - started) <= pending <= 29


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


def test_a_mapped_class_with_old_code_goes_on(create: Create, db: Database, engine: sa.Engine) -> None:
    with filled(create(Base.metadata), Memo) as session:
        assert texts(Memo.search("owl").limit(1).all(session)) == ["an old owl watches"]
        composed = Memo.search("owl").mode("semantic").limit(1).select()
        db.create_space(
            "memos.search", "b", encoder="hash", options={"dimensions": 32}, distance="l2", language="simple"
        )
        session.commit()  # an index waits for transactions that are open
        work(db)
        db.switch_space("memos.search", "b")
        assert texts(Memo.search("owl").limit(1).all(session)) == ["an old owl watches"]
        assert Memo.search.searcher().resolved.name == "memos_search_b"
        assert Memo.search.query_encoder.dimensions == 32
        assert len(texts(Memo.search("owls").mode("lexical").all(session))) == 0  # another language
        assert session.scalars(composed).one().text == "an old owl watches"  # of the space that is kept
        session.add(Memo(text="a quagga grazes"))
        session.flush()
        Memo.search.sync(session)
        session.commit()
        assert texts(Memo.search("quagga grazes").mode("semantic").limit(1).all(session)) == ["a quagga grazes"]
        work(db)
        db.rollback_space("memos.search")
        assert texts(Memo.search("quagga grazes").mode("semantic").limit(1).all(session)) == ["a quagga grazes"]
        assert Memo.search.searcher().resolved.name == "memos_search"
        db.switch_space("memos.search", "b")
        session.commit()
        db.drop_space("memos.search", "main")  # the other takes its name
        assert texts(Memo.search("owl").limit(1).all(session)) == ["an old owl watches"]
        assert Memo.search.query_encoder.dimensions == 32
        with pytest.raises(
            sa.exc.DBAPIError, match=r"by hash revision 1-32, but the query by revision 1-256|dimensions"
        ):
            session.scalars(composed).all()
        session.rollback()
    assert db.check().differences == ()


def test_searches_go_on_while_the_other_encoder_is_loaded(
    db: Database, notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.create_space("notes", "b", encoder="hash", options={"dimensions": 48})
    work(db)
    loading = slowly(monkeypatch)
    db.switch_space("notes", "b")
    assert first(notes, "owl number 7") == "owl number 7"
    assert notes.space.name == "main"
    db.rollback_space("notes")  # before the other was there
    time.sleep(0.2)
    assert first(notes, "owl number 7") == "owl number 7"
    db.switch_space("notes", "b")
    assert first(notes, "owl number 7") == "owl number 7"
    loading.set()
    until_it_searches(notes, "b")
    assert first(notes, "owl number 7") == "owl number 7"
    assert notes.space.name == "b"


def test_a_mapped_class_answers_while_the_other_encoder_is_loaded(
    create: Create, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the space that served, also with statements that were built before."""

    class Own(DeclarativeBase):
        pass

    class Letter(Own):
        __tablename__ = "letters"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
        search = Searchable("text", encoder="hash")

    def found(session: Session) -> list[str]:
        answers = texts(Letter.search("owl").limit(1).all(session))
        session.commit()
        return answers

    with filled(create(Own.metadata), Letter) as session:
        assert found(session) == ["an old owl watches"]
        db.create_space("letters.search", "b", encoder="hash", options={"dimensions": 36})
        work(db)
        loading = slowly(monkeypatch)
        db.switch_space("letters.search", "b")
        for _ in range(3):
            assert found(session) == ["an old owl watches"]
        assert Letter.search.query_encoder.dimensions == 256
        assert Letter.search.searcher().resolved.waiting
        db.rollback_space("letters.search")  # before the other was there
        assert found(session) == ["an old owl watches"]
        assert not Letter.search.searcher().resolved.waiting
        db.switch_space("letters.search", "b")
        loading.set()
        deadline = time.monotonic() + 20
        while Letter.search.query_encoder.dimensions != 36:
            assert time.monotonic() < deadline
            Letter.search.searcher(session.connection()).refresh(session.connection())
            assert found(session) == ["an old owl watches"]


def test_who_searches_makes_nothing_ready_for_a_switch(
    db: Database, notes: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Statements and encoders: another thread does, and what was loaded once stays for the way back."""
    db.create_space("notes", "b", encoder="hash", options={"dimensions": 44})
    work(db)
    first(notes, "owl number 7")
    built: list[tuple[Any, bool]] = []
    get, joined = encoders.make, documents.with_documents

    def noted(target: Target, ranking: sa.Select[Any]) -> sa.Select[Any]:
        built.append((target.space, threading.current_thread() is threading.main_thread()))
        return joined(target, ranking)

    monkeypatch.setattr(documents, "with_documents", noted)
    loaded: list[str] = []

    def load(name: str, **options: Any) -> Encoder:
        loaded.append(name)
        made: Encoder = get(name, **options)
        return made

    monkeypatch.setattr(encoders, "make", load)
    ids = {space.name: space.id for space in db.spaces("notes")}
    db.switch_space("notes", "b")
    until_it_searches(notes, "b")
    db.rollback_space("notes")
    until_it_searches(notes, "main")
    assert built == [(ids["b"], False), (ids["main"], False)]
    assert loaded == ["hash"]
    assert not caplog.records


def test_threads_of_a_client_at_a_switch(db: Database, notes: Collection) -> None:
    """They share what is searched, and none of them gets nothing, or what another space has found."""
    db.create_space("notes", "b", encoder="hash", options={"dimensions": 28})
    work(db)
    ending, wrong = threading.Event(), []
    searched = [0]

    def read(number: int) -> None:
        while not ending.is_set():
            wanted = f"{ANIMALS[number]} number {number}"
            try:
                hits = notes.search(wanted, mode="semantic", limit=1)
            except Exception as error:
                wrong.append(repr(error))
                return
            searched[0] += 1
            if [hit.entity.content for hit in hits] != [wanted] or abs(hits[0].score - 1) > 1e-2:
                wrong.append(f"{wanted}: {hits}")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(0.3)
        db.switch_space("notes", "b")
        time.sleep(0.3)
        db.rollback_space("notes")
    ending.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert searched[0] > 50


def test_the_command_line(db: Database, notes: Collection, tmp_path: Path) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, [*arguments, "--database", db.url])
        assert result.exit_code == status, result.output
        return result.output

    assert "not encoded yet" in run("space", "create", "notes", "b", "--encoder", "hash", "--option", "dimensions=40")
    assert "30 rows are up to date" in run("worker", "--once", "--as-superuser")
    assert "yes" in run("space", "status", "notes")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "owl number 7"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t7\t1\n")
    files = ("--queries", str(tmp_path / "queries.jsonl"), "--qrels", str(tmp_path / "qrels.tsv"))
    assert "overlap@10" in run("space", "compare", "notes", "b", *files)
    compared = json.loads(run("space", "compare", "notes", "b", "--json"))
    assert compared["queries"] == 30
    assert json.loads(run("space", "switch", "notes", "b", "--json"))[0]["name"] == "b"
    assert "standby" in run("space", "rollback", "notes")
    assert "main" in run("space", "drop", "notes", "b")
    assert "has no space" in run("space", "drop", "notes", "b", status=1)
    assert "neural.documents" not in run("status")
    assert json.loads(run("status", "--json"))["spaces"][0]["pending"] == 0


def test_a_space_that_is_filled_gets_its_index(db: Database, notes: Collection) -> None:
    notes.index({"id": f"x{n}", "text": f"text {n}"} for n in range(2500))
    db.create_space("notes", "b", encoder="hash", options={"dimensions": 24})
    work(db)
    with db.engine.connect() as connection:
        space = connection.scalar(sa.select(Space.chunk_table).where(Space.name == "b"))
        index = sa.text("SELECT indexdef FROM pg_indexes WHERE indexname = :name")
        assert "hnsw" in str(connection.scalar(index, {"name": f"{space}_embedding_idx"}))
    db.switch_space("notes", "b")
    assert "embedding_idx" in str(db.existing("notes").explain("text 7", mode="semantic"))
