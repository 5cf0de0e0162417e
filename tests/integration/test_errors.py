"""Every error has its right name: of values, of servers, of connections, of the settings of a role or a database."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Boost, Collection, Database, Document, LateInteraction, Record, Rerank, Searchable, connect
from pgneural.cli import main
from pgneural.errors import (
    ChangedType,
    DatabaseError,
    DatabaseUnreachable,
    InvalidDeclaration,
    InvalidFilter,
    InvalidQuery,
    LockTimeout,
    MissingPrivilege,
    PgneuralError,
    ReadOnlyDatabase,
    ResourcesExhausted,
    StatementCancelled,
    TransactionConflict,
    UnknownDocument,
    UnsupportedDriver,
)
from pgneural.options import SearchOptions, page_of, patience_of, query_of, refinement_of
from pgneural.store.engine import create_engine, translated
from tests.fixtures.tables import Execute

# values


def refine(**options: Any) -> Any:
    given: Any = options
    return refinement_of(query_of("fox", SearchOptions()), given)


class Silent:
    def score(self, query: str, texts: Any) -> Any:
        raise AssertionError


WHOLE: dict[str, Callable[[Any], Any]] = {
    "limit": lambda value: page_of(value).limit,
    "offset": lambda value: page_of(1, value).offset,
    "per_group": lambda value: refine(group_by="id", per_group=value).per_group,
    "candidates": lambda value: refine(rerank=LateInteraction(value)).rerank.candidates,
    "candidates of a reranker": lambda value: refine(rerank=Rerank(Silent(), value)).rerank.candidates,
}
REAL: dict[str, Callable[[Any], Any]] = {
    "diversity": lambda value: refine(diversity=value).diversity,
    "max_distance": lambda value: query_of("fox", {"max_distance": value}).threshold.max_distance,
    "min_score": lambda value: query_of("fox", {"min_score": value}).threshold.min_score,
    "patience": lambda value: patience_of({"fresh": "require", "patience": value}),
    "weight": lambda value: query_of("fox", {"boosts": {"id": value}}).boosts[0].weight,
    "weight of a boost": lambda value: query_of("fox", {"boosts": [Boost("id", value)]}).boosts[0].weight,
}
NO_NUMBERS: list[Any] = ["x", True, np.True_, float("nan"), float("inf"), -np.inf, None.__class__, [1], Decimal("nan")]


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers(name: str) -> None:
    for good in (3, np.int64(3), np.int8(3), np.uint32(3)):
        found = WHOLE[name](good)
        assert (found, type(found)) == (3, int)
    for bad in (*NO_NUMBERS, None, 1.0, np.float32(2), -1):
        with pytest.raises(InvalidQuery, match=name.split()[0]):
            WHOLE[name](bad)


@pytest.mark.parametrize("name", REAL)
def test_real_numbers(name: str) -> None:
    for good in (1, 0.5, np.float32(0.5), np.int16(1), np.float64(0.25), Decimal("0.5")):
        found = REAL[name](good)
        assert (found, type(found)) == (float(good), float)
    for bad in NO_NUMBERS:
        with pytest.raises(InvalidQuery, match=name.split()[0]):
            REAL[name](bad)


@given(st.text(" \t\n\u00a0\u3000\u2028"))
def test_a_blank_text_is_no_query(blank: str) -> None:
    for asked in (blank, {blank: 1.0}):
        with pytest.raises(InvalidQuery, match="expected a text with at least a word"):
            query_of(asked, SearchOptions())


@pytest.fixture
def notes(db: Database) -> Collection:
    made = db.collection("notes", encoder="hash")
    made.index([Record(str(n), f"fox {n}", metadata={"n": n}) for n in range(1, 7)])
    return made


def test_blank_queries_are_refused_at_every_face(notes: Collection, url: str) -> None:
    for ask in (
        lambda: notes.search(""),
        lambda: notes.search(" ", mode="lexical"),
        lambda: notes.explain("\n"),
        lambda: notes.discover("", [("1", "2")]),
        lambda: notes.facets("title", query=" "),
    ):
        with pytest.raises(InvalidQuery, match="the query is"):
            ask()
    for command in (["search", "notes", ""], ["search", "notes", " ", "--mode", "semantic", "--explain"]):
        result = CliRunner(env={"PGNEURAL_DATABASE_URL": url}).invoke(main, command)
        assert result.exit_code == 1
        assert result.output.startswith("Error: the query is ")


ODD = ("a\0b", "\udc80")


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_text(db: Database, notes: Collection, odd: str) -> None:
    for ask in (
        lambda: notes.search("fox", where=Document.external_id == odd),
        lambda: notes.search("fox", where=Document.metadata_["n"].astext == odd),
        lambda: notes.search("fox", where=Document.metadata_.contains({"n": odd})),
        lambda: notes.search("fox", where=f"title = '{odd}'"),
        lambda: notes.search("fox", where=Document.title.in_([odd])),
        lambda: notes.like(odd),
        lambda: notes.recommend(["1"], [odd]),
        lambda: notes.discover("fox", [("1", odd)]),
        lambda: notes.delete(odd),
        lambda: notes.delete(where=Document.title == odd),
        lambda: notes.facets("title", query=odd),
        lambda: notes.facets("title", where=f"title = '{odd}'"),
        lambda: db.existing(odd),
        lambda: db.drop(odd),
        lambda: db.spaces(odd),
        lambda: db.collection(odd, encoder="hash"),
    ):
        with pytest.raises(PgneuralError) as caught:
            ask()
        assert "\0" not in str(caught.value)
        assert not isinstance(caught.value, DatabaseUnreachable)
    assert notes.count() == 6


def test_long_lists_of_values(notes: Collection) -> None:
    ids = [str(n) for n in range(2, 66_000)]
    found = notes.search("fox", where=Document.external_id.in_(ids), limit=9)
    assert {hit.entity.external_id for hit in found} == {"2", "3", "4", "5", "6"}
    assert len(notes.search("fox", where=Document.external_id.not_in(ids), limit=9)) == 1
    assert notes.facets("collection", where=Document.external_id.in_(ids)) == {"notes": 5}
    assert notes.delete(where=Document.external_id.in_(ids)) == 5
    many = ", ".join(["%s"] * 66_000)
    with (
        notes.searcher.engine.connect() as connection,
        pytest.raises(InvalidQuery, match="66,000 values.*array"),
        translated(),
    ):
        connection.exec_driver_sql(f"SELECT ARRAY[{many}]", tuple(range(66_000)))


# servers

STATES = {
    "25006": ReadOnlyDatabase,
    "40001": TransactionConflict,
    "40P01": TransactionConflict,
    "42501": MissingPrivilege,
    "53100": ResourcesExhausted,
    "53200": ResourcesExhausted,
    "53300": ResourcesExhausted,
    "53400": ResourcesExhausted,
    "54000": ResourcesExhausted,
    "55P03": LockTimeout,
    "57014": StatementCancelled,
    "57P01": DatabaseUnreachable,
    "08006": DatabaseUnreachable,
}


def test_every_state_has_its_name(db: Database) -> None:
    for state, kind in STATES.items():
        raising = sa.text(f"DO $$ BEGIN RAISE EXCEPTION 'schade' USING ERRCODE = '{state}'; END $$")
        with pytest.raises(kind, match="schade") as caught, translated(), db.engine.begin() as connection:
            connection.execute(raising)
        assert ";" in str(caught.value), state
        assert isinstance(caught.value, DatabaseError)


def test_time_runs_out(db: Database, notes: Collection) -> None:
    with db.engine.connect() as held, db.engine.begin() as locking:
        locking.execute(sa.text("LOCK neural.documents"))
        for setting, kind in (("statement_timeout", StatementCancelled), ("lock_timeout", LockTimeout)):
            with pytest.raises(kind, match=setting), translated():
                held.execute(sa.text(f"SET LOCAL {setting} = 30"))
                held.execute(sa.text("SELECT 1 FROM neural.documents"))
            held.rollback()


def test_a_pool_that_is_used_up(url: str) -> None:
    engine = create_engine(url, connections=1)
    engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    held = [engine.connect() for _ in range(11)]
    with pytest.raises(ResourcesExhausted, match="fewer threads"), translated():
        engine.connect()
    for connection in held:
        connection.close()
    engine.dispose()


def test_urls_of_others_are_refused_at_the_door() -> None:
    for other in ("mysql://me@localhost/x", "sqlite:///x.db", "mysql+pymysql://x"):
        with pytest.raises(UnsupportedDriver, match="expected postgresql://"):
            connect(other)
    with pytest.raises(DatabaseUnreachable, match="is no URL of a database") as caught:
        connect("host=a pass word=secret nonsense")
    assert isinstance(caught.value, ConnectionError)
    for same in ("postgresql+asyncpg://me@localhost/x", "postgres://me@localhost/x", "host=localhost", ""):
        connect(same).close()


# connections


def ends(url: str) -> None:
    """End every other connection, and wait until each is gone."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )


def test_connections_that_the_server_ended_are_replaced_quietly(
    db: Database, notes: Collection, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            notes.search("fox")
            ends(url)
            assert len(notes.search("fox", limit=2)) == 2
            ends(url)
            assert notes.count() == 6
    assert caplog.records == []


def test_a_connection_that_is_ended_in_the_middle(
    notes: Collection, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    killing = threading.Thread(target=_end_what_sleeps, args=[url])
    killing.start()
    with caplog.at_level(logging.WARNING), pytest.raises(DatabaseUnreachable, match="no connection to the database"):
        notes.search("fox", where="pg_sleep(5) IS NOT NULL")
    killing.join()
    assert len(notes.search("fox")) == 6
    assert caplog.records == []


def _end_what_sleeps(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event = 'PgSleep' AND datname = current_database()"
        ).fetchall():
            pass


# types that change


class Base(DeclarativeBase):
    pass


class Seen(Base):
    __tablename__ = "seen"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    views: Mapped[int]
    search = Searchable("text", encoder="hash")


def test_a_type_that_changes_under_a_prepared_statement(db: Database, notes: Collection, execute: Execute) -> None:
    execute("CREATE TABLE typed (n int)")

    with db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("SELECT n FROM typed", prepare=True)
        driver.commit()
        execute("ALTER TABLE typed ALTER COLUMN n TYPE bigint")
        with pytest.raises(ChangedType, match="roll back and run it again"), translated():
            driver.execute("SELECT n FROM typed", prepare=True)
        driver.rollback()
        driver.execute("SELECT n FROM typed", prepare=True)
    Base.metadata.create_all(db.engine)
    with db.engine.connect() as held, Session(held) as session:
        session.add(Seen(id=1, text="fox", views=1))
        Seen.search.sync(session)
        session.commit()
        asked = Seen.search("fox").where(Seen.views > 0)
        for _ in range(8):
            assert len(asked.all(session)) == 1
        session.commit()
        execute("ALTER TABLE seen ALTER COLUMN views TYPE bigint")
        with pytest.raises(ChangedType, match="roll back and run it again"):
            asked.all(session)
        session.rollback()
        assert len(asked.all(session)) == 1
    for _ in range(8):
        assert len(notes.search("fox", where="title IS NOT NULL")) == 6
    execute("ALTER TABLE neural.documents_notes ALTER COLUMN text TYPE varchar")
    for _ in range(8):
        assert len(notes.search("fox", where="title IS NOT NULL")) == 6


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings_are_refused_in_one_sentence(admin: psycopg.Connection, server_url: str, encoding: str) -> None:
    name = f"pgneural_{encoding.lower()}"
    admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    try:
        url = make_conninfo(server_url, dbname=name)
        result = CliRunner(env={"PGNEURAL_DATABASE_URL": url}).invoke(main, ["db", "upgrade"])
        assert result.exit_code == 1
        assert f"Error: the database has encoding {encoding}, expected UTF8; make one with" in result.output
        assert result.output.count("\n") == 1
    finally:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# settings


SETTINGS = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "lc_messages": "C",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "public",
    "standard_conforming_strings": "off",
    "xmloption": "document",
}


def test_settings_of_a_database(url: str, execute: Execute) -> None:
    (name,) = execute("SELECT current_database()")[0]
    for setting, value in SETTINGS.items():
        execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
    with Database(url) as db:
        assert db.upgrade().current
        assert db.check().current
        made = db.collection("ž\\'", encoder="hash")
        made.index([Record(str(n), f"漢 fox {n}", metadata={"n": n}) for n in range(5)])
        made.index([Record("0", "another fox")])
        for where in (None, "metadata->>'n' = '3'", Document.metadata_["n"].astext == "3"):
            assert len(made.search("漢", where=where, mode="semantic")) == (5 if where is None else 1)
        assert made.search("漢 fox 2", mode="semantic")[0].entity.updated_at.tzinfo is not None
        assert len(made.like("3")) == 4
        assert made.facets("title") == {"": 5}
        assert db.status().collections[0].name == "ž\\'"
        assert db.work()[0].pending == 0
        Base.metadata.create_all(db.engine)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with Session(engine) as session:  # a connection of the user's, with all these settings
        session.add_all(Seen(id=n, text=f"fox {n}", views=n) for n in range(3))
        assert Seen.search.sync(session).rows == 3
        assert Seen.search("fox 2").mode("semantic").limit(1).all(session)[0].entity.id == 2
        assert len(Seen.search.like(session.get_one(Seen, 1)).all(session)) == 2
        session.commit()
        with pytest.raises(InvalidFilter, match="does not work"):
            Seen.search("fox").mode("semantic").where("nothing").all(session)
    engine.dispose()
    with Database(url) as db:
        execute("INSERT INTO seen VALUES (7, 'new fox', 1)")
        from pgneural.worker import Worker

        Worker(db.url, as_superuser=True).run(once=True)
        assert [status.pending for status in db.work()] == [0, 0]


@pytest.mark.parametrize(
    "options",
    [{"title_boost": [1]}, {"title_boost": b"1"}, {"title_boost": -1}, {"title_boost": 1e308}, {"language": ["en"]}],
)
def test_options_of_words_are_of_their_kinds(url: str, options: dict[str, Any]) -> None:
    with Database(url) as db, pytest.raises(InvalidQuery, match=next(iter(options))):
        db.collection("odd", encoder="hash", **options)


@pytest.mark.parametrize("boost", [-1, 1e308, math.nan, math.inf])
def test_title_boosts_that_would_lose_words_are_refused_for_tables(execute: Execute, boost: float) -> None:
    with pytest.raises(InvalidDeclaration, match="title_boost is .*, expected"):
        Searchable("body", title_boost=boost)
    execute("CREATE TABLE notes (id int PRIMARY KEY, title text, body text)")
    with pytest.raises(psycopg.Error, match="title_boost is .*, expected 0 to 1000"):
        execute("SELECT neural.watch('notes', '{title,body}', encoder => 'hash', title_boost => %s)", boost)


def test_unknown_documents_are_named(notes: Collection) -> None:
    with pytest.raises(UnknownDocument, match="no document 'none'"):
        notes.like("none")
