"""What a worker, an application and a reader may do, and what not; and searches that want fresh results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Database, Searchable
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import InvalidQuery, StaleResults
from pgneural.store.engine import libpq_url
from pgneural.worker import Worker
from tests.fixtures.orm import Create, filled, texts


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


@pytest.fixture
def as_role(url: str, admin: psycopg.Connection) -> Iterator[Callable[[str], str]]:
    """Return a function that makes a role and gives the URL for it."""
    made = []

    def make(name: str) -> str:
        role = f"pgneural_{name}"
        admin.execute(f"DROP ROLE IF EXISTS {role}".encode())
        admin.execute(f"CREATE ROLE {role}".encode())
        made.append(role)
        return make_conninfo(libpq_url(url), options=f"-c role={role}")

    yield make
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        for role in made:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def engine_of(url: str) -> sa.Engine:
    return sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sa.NullPool)


def refused(url: str, *statements: str) -> None:
    for statement in statements:
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_roles(create: Create, engine: sa.Engine, as_role: Callable[[str], str]) -> None:
    worker, application, reader = (as_role(name) for name in ("worker", "application", "reader"))
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT neural.grant_worker('pgneural_worker')"))  # before there is any search
        connection.execute(sa.text("CREATE TABLE secrets (id int)"))
    with filled(create(Base.metadata), Memo) as session:
        for statement in (
            "GRANT SELECT, INSERT, UPDATE ON memos TO pgneural_application",
            "GRANT USAGE ON SEQUENCE memos_id_seq TO pgneural_application",
            "GRANT SELECT ON memos TO pgneural_reader",
            "SELECT neural.grant_worker('pgneural_worker')",
            "SELECT neural.follow_source('memos_search', 'memos'), neural.follow_source('memos_search_terms', 'memos')",
        ):
            session.execute(sa.text(statement))
        session.commit()
    with Session(engine_of(application)) as session:
        session.add(Memo(text="a quagga"))
        session.commit()
        assert texts(Memo.search("quagga").mode("lexical").all(session)) == ["a quagga"]
    Worker(worker, as_superuser=True).run(once=True)
    with Session(engine_of(reader)) as session:
        assert texts(Memo.search("a quagga").mode("semantic").limit(1).all(session)) == ["a quagga"]
        assert texts(Memo.search("quagga").all(session))[0] == "a quagga"
        assert session.scalar(sa.text("SELECT sum(pending) FROM neural.status")) == 0
    refused(worker, "UPDATE memos SET text = ''", "DELETE FROM memos", "DROP TABLE memos_search", "TABLE secrets")
    refused(worker, "UPDATE neural.spaces SET encoder = 'x'", "CREATE TABLE neural.x (id int)")
    refused(
        reader,
        "INSERT INTO memos (text) VALUES ('x')",
        "DELETE FROM memos_search",
        "UPDATE neural.changes SET keys = '[]'",
    )
    refused(reader, "SELECT neural.collect(id) FROM neural.spaces", "INSERT INTO neural.changes VALUES (1)")
    refused(application, "UPDATE neural.spaces SET encoder = 'x'", "DROP TABLE memos", "TABLE neural.workers")
    refused(application, "INSERT INTO neural.spaces (source) VALUES ('memos')")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO memos (text) VALUES ('a gnu')"))
        connection.execute(sa.text("SELECT neural.collect(id) FROM neural.spaces"))
        before = connection.execute(sa.text(_COUNTED)).all()
    with psycopg.connect(reader) as connection:  # a reader sees what waits, and changes none of it
        assert connection.execute("SELECT count(*) FROM neural.pending").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM neural.vectors").fetchall() == [(0,)]
        for table in ("pending", "changes", "failed", "term_counts", "corpus_counts", "vectors", "spaces"):
            assert connection.execute(f"DELETE FROM neural.{table}".encode()).rowcount == 0, table  # noqa: S608
    with engine.begin() as connection:
        assert connection.execute(sa.text(_COUNTED)).all() == before


_COUNTED = """ SELECT (SELECT count(*) FROM neural.pending), (SELECT count(*) FROM neural.changes), (SELECT count(*)
FROM neural.vectors), (SELECT count(*) FROM neural.term_counts), (SELECT count(*) FROM neural.spaces)"""


def test_fresh_results_of_a_mapped_class(create: Create, engine: sa.Engine, url: str) -> None:
    with filled(create(Base.metadata), Memo) as session:
        query = Memo.search("a quagga").mode("semantic").limit(1)
        assert len(query.fresh().all(session)) == 1
        session.add(Memo(text="a quagga"))
        session.flush()
        with pytest.raises(StaleResults, match="1 row of .* changed in this transaction"):
            query.fresh().all(session)
        session.commit()
        started = time.monotonic()
        with pytest.raises(StaleResults, match=r"after 0.3 s, 1 row of .* still wait"):
            query.fresh(patience=0.3).all(session)
        assert 0.3 <= time.monotonic() - started < 2
        session.rollback()
        worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            assert texts(query.fresh(patience=10).all(session)) == ["a quagga"]
        finally:
            worker.stop()
            thread.join()
        with pytest.raises(InvalidQuery, match="patience is -1"):
            query.fresh(patience=-1).all(session)


def test_fresh_results_of_a_collection(db: Database) -> None:
    notes = db.collection("notes", encoder="hash")
    notes.index([{"id": "1", "text": "fox"}])
    assert len(notes.search("fox", fresh="require")) == 1
    db.create_space("notes", "b", language="german")
    Worker(db.url, as_superuser=True).run(once=True)
    with db.engine.begin() as connection:
        connection.execute(sa.text("UPDATE neural.documents SET content = 'owl'"))
    with pytest.raises(StaleResults, match="1 row of notes"):
        notes.search("owl", fresh="require", patience=0)
    Worker(db.url, as_superuser=True).run(once=True)
    assert notes.search("owl", fresh="require", patience=0)[0].chunk.text == "owl"
