"""A hot standby, and a role that only reads: what reads is right there, what writes is refused, a worker waits."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Database, Record, Searchable
from pgneural.cli import main
from pgneural.errors import ReadOnlyDatabase
from pgneural.evaluation import evaluate
from pgneural.store import embedded
from pgneural.store.embedded import EmbeddedServer
from pgneural.worker import ONLY_READS, Worker
from tests.fixtures.tables import until


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "kept_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


class Inline(Base):
    __tablename__ = "inline_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash", sync="inline")


@pytest.fixture(scope="module")
def filled(new_database: Callable[[str], str], template: str) -> str:
    url = new_database(template)
    fill(url)
    return url


def fill(url: str) -> None:
    with Database(url) as db:
        db.collection("animals", encoder="hash").index([Record(str(n), f"fox {n}", title=str(n % 2)) for n in range(9)])
        Base.metadata.create_all(db.engine)
        with Session(db.engine) as session:
            session.add_all(kind(id=n, text=f"fox {n}") for n in range(5) for kind in (Note, Inline))
            Note.search.sync(session)
            session.commit()


@pytest.fixture
def reading(filled: str, admin: psycopg.Connection) -> Iterator[str]:
    """The URL of a database in which nothing may be written."""
    name = filled.split("dbname=")[1].split()[0]
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    yield filled
    admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


def reads(url: str, tmp_path: Path) -> None:
    """Do all that only reads."""
    with Database(url) as db:
        animals = db.existing("animals")
        for mode in ("semantic", "lexical", "hybrid"):
            for where in (None, "title = '1'", ("title = :t", {"t": "1"})):
                assert animals.search("fox 3", mode=mode, where=where, limit=3)[0].entity.external_id == "3"
        assert animals.explain("fox 3", where="title = '1'").words
        assert len(animals.like("3")) == 8
        assert len(animals.recommend(["1"], ["2"])) == 7
        assert len(animals.discover("fox", [("1", "2")])) == 7
        assert animals.facets("title", query="fox") == {"0": 5, "1": 4}
        assert len(animals.search("fox", diversity=0.5, group_by="title", fresh="require")) == 2
        result = evaluate(animals, {"q": "fox 3"}, {"q": {"3": 1}}, modes=["lexical"])
        assert result.modes["lexical"].mean["mrr@10"] == 1
        assert db.current()
        state = db.check()
        assert state.current, state.differences
        assert db.status().collections[0].documents == 9
        assert [status.pending for status in db.work()] == [0, 0, 0]
        assert db.workers() == []
        with Session(db.engine) as session:
            assert Note.search("fox 3").limit(1).all(session)[0].entity.id == 3
            assert Inline.search("fox 3").limit(1).all(session)[0].entity.id == 3
            assert Note.search("fox 3").where(Note.id > 1).limit(2).explain(session).words
            assert session.execute(Note.search("fox").limit(2).select()).all()
            assert len(Note.search.like(session.get_one(Note, 1)).all(session)) == 4
            assert Note.search.pending(session) == 0


def writes(url: str) -> None:
    """Try all that writes; each is refused by its name."""
    with Database(url) as db, Session(db.engine) as session:
        animals = db.existing("animals")
        for write in (
            lambda: animals.index([Record("new", "fox")]),
            lambda: animals.delete("1"),
            lambda: db.collection("another", encoder="hash"),
            lambda: db.drop("animals"),
            lambda: db.create_space("animals", "other", max_tokens=64),
            lambda: db.retry_failed(),
            lambda: db.upgrade(),
            lambda: Note.search.sync(session),
            lambda: Note.search.sync(db.engine),
        ):
            with pytest.raises(ReadOnlyDatabase, match=r"cannot execute .*; write on the primary"):
                write()
            session.rollback()
        assert animals.count() == 9


def test_a_database_that_only_reads(reading: str, tmp_path: Path) -> None:
    reads(reading, tmp_path)
    writes(reading)


def test_check_tells_what_differs_where_nothing_can_be_written(
    new_database: Callable[[str], str], template: str
) -> None:
    url = new_database(template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION neural.retry() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'"
        )
        connection.execute("CREATE VIEW neural.added AS SELECT 1 AS one")
    with Database(f"{url} options='-c default_transaction_read_only=on'") as db:
        differences = " ".join(db.check().differences)
        assert "FUNCTION neural.retry()" in differences
        assert "VIEW neural.added" in differences
        assert "run on the primary: pgneural db upgrade" in differences


COMMANDS = (
    ("index", "/etc/hostname", "--collection", "animals", "--format", "text"),
    ("delete", "animals", "1"),
    ("space", "create", "animals", "other", "--max-tokens", "64"),
    ("worker", "--once", "--as-superuser", "--retry-failed"),
    ("db", "upgrade"),
)


def test_the_command_line_says_it_in_one_sentence(reading: str) -> None:
    run = CliRunner(env={"PGNEURAL_DATABASE_URL": reading})
    for command in COMMANDS:
        result = run.invoke(main, list(command))
        assert result.exit_code == 1, command
        assert result.output.splitlines()[-1].startswith("Error: cannot execute "), result.output
        assert "write on the primary" in result.output
    assert run.invoke(main, ["db", "check"]).exit_code == 0
    assert run.invoke(main, ["status"]).exit_code == 0


# a standby


@pytest.fixture(scope="module")
def standby(server_url: str) -> Iterator[EmbeddedServer]:
    """A server that follows another: both are ours, and small."""
    if os.environ.get("PGNEURAL_TEST_URL") or os.environ.get("PGNEURAL_TEST_DOCKER"):
        pytest.skip("NO STANDBY: the server is not ours, so this test has shown nothing")
    folder = Path(tempfile.mkdtemp(prefix="pgneural-standby-"))
    primary, follower = EmbeddedServer(folder / "primary"), EmbeddedServer(folder / "standby")
    try:
        url = primary.start()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        with Database(url) as db:
            db.upgrade()
        fill(url)
        follower.cluster.mkdir(parents=True, mode=0o700)
        if os.geteuid() == 0:
            embedded.give_to_system_user(follower.cluster)
        target = ("-D", str(follower.cluster), "-R", "-X", "stream", "-c", "fast", "--no-sync")
        embedded._run("pg_basebackup", "-d", url, *target)
        for left in follower.cluster.glob(".s.PGSQL.*.lock"):  # of the primary, whose socket lies in its folder
            left.unlink()
        follower.start()
        yield follower
    finally:
        for server in (follower, primary):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_standby(standby: EmbeddedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = standby.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    reads(url, tmp_path)
    writes(url)
    result = CliRunner(env={"PGNEURAL_DATABASE_URL": url}).invoke(main, ["index", "/etc/hostname", "--collection", "n"])
    assert result.exit_code == 1
    _promoted_under_a_worker(url, caplog)


def _promoted_under_a_worker(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A worker waits, having said so once, and begins when the server is promoted."""
    worker = Worker(url, concurrency=1, as_superuser=True)
    running = threading.Thread(target=worker.run)
    with caplog.at_level(logging.INFO, logger="pgneural"), Database(url) as db:
        running.start()
        try:
            until(lambda: any("only reads" in record.getMessage() for record in caplog.records))
            time.sleep(2.2)  # two attempts more
            said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            assert said == [ONLY_READS]
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT pg_promote(true, 30)")
                connection.execute("INSERT INTO kept_notes VALUES (77, 'a new fox')")
            until(lambda: _waits(db) == 0, 20)
            until(lambda: len(db.workers()) == 1, 20)
        finally:
            worker.stop()
            running.join()
    with Database(url) as db, Session(db.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Note.search.chunks)) == 6


def _waits(db: Database) -> Any:
    return sum(status.pending for status in db.work() if "kept" in status.source)


def test_a_worker_begins_when_a_database_may_be_written_again(
    filled: str, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    name = filled.split("dbname=")[1].split()[0]
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute("INSERT INTO kept_notes VALUES (99, 'late fox')")
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    worker = Worker(filled, concurrency=1, as_superuser=True)
    running = threading.Thread(target=worker.run)
    with caplog.at_level(logging.INFO, logger="pgneural"), Database(filled) as db:
        running.start()
        try:
            until(lambda: any("only reads" in record.getMessage() for record in caplog.records))
            assert _waits(db) == 1
            admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
            until(lambda: _waits(db) == 0, 20)
        finally:
            worker.stop()
            running.join()
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [ONLY_READS]
