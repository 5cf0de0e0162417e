"""What no trigger saw, and what a table's owner does to his table: nothing stays unsearchable, and nothing is refused."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgneural import Database, Searchable
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import InvalidQuery, InvalidSpace
from pgneural.store.engine import libpq_url
from pgneural.store.reconcile import searches
from pgneural.worker import Worker
from tests.fixtures.orm import Create, filled, texts
from tests.fixtures.tables import Execute


def work(url: str) -> Worker:
    worker = Worker(libpq_url(url), as_superuser=True, make=lambda *_, **__: HashEncoder())
    worker.run(once=True)
    assert worker.problems == []
    return worker


def found(execute: Execute, table: str = "notes_search") -> list[str]:
    return [text for (text,) in execute(f"SELECT text FROM {table} ORDER BY source_id, ordinal")]


def worded(execute: Execute, table: str = "notes_search") -> list[int]:
    return [key for (key,) in execute(f"SELECT source_id FROM {table}_terms ORDER BY 1")]


def right(execute: Execute, url: str) -> None:
    """Make sure that chunks, words and counts are those of the rows."""
    rows = execute("SELECT id, coalesce(title, '') || E'\\n' || body FROM notes ORDER BY 1")
    assert worded(execute) == [id_ for id_, _ in rows]
    kept = execute("SELECT source_id FROM notes_search ORDER BY 1")
    assert [id_ for (id_,) in kept] == [id_ for id_, _ in rows]
    assert execute("SELECT missing, stale, orphans, miscounted FROM neural.reconcile('notes')") == [(0, 0, 0, False)]
    with Database(url) as database:
        assert database.check().differences == ()


UNSEEN = {
    "inserted by a replica": (
        "SET session_replication_role = replica; INSERT INTO notes VALUES (91, 'a', 'owl')",
        "1 row without words",
    ),
    "updated by a replica": (
        "SET session_replication_role = replica; UPDATE notes SET body = 'gnu' WHERE id = 3",
        None,
    ),
    "deleted by a replica": (
        "SET session_replication_role = replica; DELETE FROM notes WHERE id = 4",
        "1 row gone but kept",
    ),
    "key changed by a replica": (
        "SET session_replication_role = replica; UPDATE notes SET id = 77 WHERE id = 5",
        "1 row without words",
    ),
    "without its trigger": (
        "DROP TRIGGER notes_search_insert ON notes; INSERT INTO notes VALUES (92, 'a', 'owl')",
        "trigger notes_search_insert",
    ),
    "without any trigger": (
        "DROP TRIGGER notes_search_update ON notes; DROP TRIGGER notes_search_delete ON notes;"
        "DELETE FROM notes WHERE id < 4; UPDATE notes SET body = 'elk' WHERE id = 9",
        "trigger notes_search_delete",
    ),
    "words gone": ("TRUNCATE notes_search_terms", "20 rows without words"),
    "chunks gone": ("TRUNCATE notes_search", None),
    "all gone": ("TRUNCATE notes_search, notes_search_terms", "20 rows without words"),
    "chunks of others": ("UPDATE notes_search SET source_id = source_id + 1000", "20 rows gone but kept"),
    "counted twice": ("INSERT INTO neural.corpus_counts SELECT * FROM neural.corpus_counts", "words are counted wrong"),
    "words counted twice": (
        "INSERT INTO neural.term_counts SELECT * FROM neural.term_counts",
        "words are counted wrong",
    ),
    "counts gone": ("DELETE FROM neural.term_counts; DELETE FROM neural.corpus_counts", "words are counted wrong"),
}


@pytest.mark.parametrize("how", UNSEEN)
def test_what_no_trigger_saw_is_told_and_mended(notes: Execute, url: str, how: str) -> None:
    work(url)
    statement, said = UNSEEN[how]
    with psycopg.connect(libpq_url(url)) as connection:
        connection.execute(statement.encode())
    if said is not None:  # a superuser compares keys alone: what owners have made of texts is not executed by him
        with Database(url) as database:
            assert said in " ".join(database.check().differences)
    notes("SELECT * FROM neural.reconcile('notes')")
    work(url)
    right(notes, url)


@pytest.mark.parametrize("how", ["inserted by a replica", "deleted by a replica", "all gone", "counts gone"])
def test_workers_find_it_by_themselves(notes: Execute, url: str, how: str) -> None:
    work(url)
    with psycopg.connect(libpq_url(url)) as connection:
        connection.execute(UNSEEN[how][0].encode())
    work(url)
    work(url)
    right(notes, url)


def test_a_trigger_that_is_off_is_told(notes: Execute, db: Database) -> None:
    notes("ALTER TABLE notes DISABLE TRIGGER notes_search_update")
    assert "trigger notes_search_update of table public.notes is turned off" in db.check().differences[0]


def test_partitions_come_and_go(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int, title text, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
    execute("CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (100)")
    execute("CREATE TABLE high (id int PRIMARY KEY, title text, body text)")
    execute("INSERT INTO high SELECT n, 'high', 'owl ' || n FROM generate_series(100, 104) n")
    execute("SELECT neural.watch('notes', '{title,body}', encoder => 'hash')")
    execute("INSERT INTO notes SELECT n, 'low', 'fox ' || n FROM generate_series(1, 5) n")
    work(url)
    execute("ALTER TABLE notes ATTACH PARTITION high FOR VALUES FROM (100) TO (200)")
    work(url)
    right(execute, url)
    assert len(found(execute)) == 10
    execute("INSERT INTO high VALUES (110, 'high', 'straight into the partition')")
    work(url)
    right(execute, url)
    execute("ALTER TABLE notes DETACH PARTITION high")
    work(url)
    right(execute, url)
    assert len(found(execute)) == 5
    execute("DROP TABLE high")
    execute("TRUNCATE low")
    assert found(execute) == []
    execute("DROP TABLE low")
    work(url)
    right(execute, url)


def test_a_key_gets_another_type(notes: Execute, url: str) -> None:
    work(url)
    notes("ALTER TABLE notes ALTER id TYPE bigint")
    notes("UPDATE notes SET id = id + 3000000000 WHERE id > 10")
    notes("INSERT INTO notes VALUES (4000000000, 'new', 'quagga')")
    work(url)
    right(notes, url)
    types = "SELECT DISTINCT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'source_id' AND attrelid IN ('notes_search'::regclass, 'notes_search_terms'::regclass)"
    assert notes(types) == [("bigint",)]
    notes("ALTER TABLE notes ALTER id TYPE text")
    work(url)
    assert len(found(notes)) == 21


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE notes RENAME TO memos", "ALTER TABLE memos RENAME TO notes"],
        ["ALTER TABLE notes RENAME COLUMN body TO text", "UPDATE notes SET text = 'gnu' WHERE id = 3"],
        ["ALTER TABLE notes RENAME COLUMN id TO key", "UPDATE notes SET body = 'gnu' WHERE key = 3"],
        ["CREATE SCHEMA shop", "ALTER TABLE notes SET SCHEMA shop", "UPDATE shop.notes SET body = 'gnu' WHERE id = 3"],
        ["ALTER TABLE notes RENAME TO memos", "UPDATE memos SET body = 'gnu' WHERE id = 3"],
    ],
)  # fmt: skip
def test_names_change(notes: Execute, url: str, statements: list[str]) -> None:
    work(url)
    for statement in statements:
        notes(statement)
    work(url)
    schema = "shop." if any("shop" in statement for statement in statements) else ""
    texts_ = found(notes, f"{schema}notes_search") if "key" not in statements[0] else [
        text for (text,) in notes("SELECT text FROM notes_search")]  # fmt: skip
    assert len(texts_) == 20
    assert ("gnu" in texts_) == (len(statements) > 1 and "gnu" in statements[-1])
    assert notes("SELECT sum(pending) FROM neural.status") == [(0,)]
    with Database(url) as database:
        assert database.check().differences == ()


def test_a_watched_column_is_dropped(notes: Execute, url: str) -> None:
    work(url)
    notes("ALTER TABLE notes DROP COLUMN title")
    notes("INSERT INTO notes VALUES (50, 'quagga')")
    work(url)
    assert len(found(notes)) == 21
    notes("ALTER TABLE notes DROP COLUMN body")
    notes("INSERT INTO notes VALUES (51)")
    worker = Worker(libpq_url(url), as_superuser=True)
    worker.run(once=True)
    with Database(url) as database:
        assert "no column of table public.notes that search search reads is left" in database.check().differences[0]


def test_a_table_is_dropped_and_made_again(notes: Execute, url: str) -> None:
    work(url)
    notes("DROP TABLE notes")
    with Database(url) as database:
        assert "table public.notes is gone, but its search search is not; run: SELECT neural.unwatch" in " ".join(
            database.check().differences)  # fmt: skip
    notes("CREATE TABLE notes (id int PRIMARY KEY, title text, body text)")
    notes("SELECT neural.watch('notes', '{title,body}', encoder => 'hash')")
    notes("INSERT INTO notes VALUES (1, 'a', 'fox')")
    work(url)
    right(notes, url)
    notes("DROP TABLE notes")
    notes("SELECT neural.unwatch('public.notes')")
    assert notes("SELECT count(*) FROM neural.spaces") == [(0,)]
    assert notes("SELECT to_regclass('notes_search'), to_regclass('notes_search_terms')") == [(None, None)]


def test_a_table_that_was_restored_is_taken_for_the_one_before(notes: Execute, url: str) -> None:
    work(url)
    notes("CREATE TABLE saved AS TABLE notes")
    notes("DROP TABLE notes")
    notes("CREATE TABLE notes (id int PRIMARY KEY, title text, body text, views int)")
    notes("INSERT INTO notes TABLE saved")
    notes("DELETE FROM notes WHERE id = 7")
    notes("INSERT INTO notes VALUES (70, 'a', 'quagga')")
    work(url)
    right(notes, url)
    notes("INSERT INTO notes VALUES (71, 'a', 'tapir')")
    work(url)
    right(notes, url)


def test_watching_twice_and_watching_a_view_are_refused_by_name(notes: Execute) -> None:
    with pytest.raises(psycopg.Error, match="table public.notes has a search search already"):
        notes("SELECT neural.watch('notes', '{title,body}', encoder => 'hash')")
    notes("CREATE VIEW seen AS TABLE notes")
    with pytest.raises(psycopg.Error, match="seen is a view, and changes of its rows go unnoticed"):
        notes("SELECT neural.watch('seen', '{title,body}', encoder => 'hash')")


def test_a_column_that_is_computed_on_reading(execute: Execute, url: str) -> None:
    if int(execute("SHOW server_version_num")[0][0]) < 180000:
        pytest.skip("PostgreSQL before 18 has no virtual columns")
    execute("CREATE TABLE notes (id int PRIMARY KEY, a text, b text GENERATED ALWAYS AS ('the ' || a) VIRTUAL)")
    execute("SELECT neural.watch('notes', '{b}', encoder => 'hash')")
    execute("INSERT INTO notes VALUES (1, 'fox')")
    work(url)
    execute("UPDATE notes SET a = 'owl'")
    work(url)
    assert found(execute) == ["the owl"]


DUMPS = [
    [["--schema-only"], ["--data-only"]],
    [[]],
    [["--section=pre-data"], ["--section=data"], ["--section=post-data"]],
    [["--schema-only"], ["--data-only", "--inserts"]],
]


@pytest.mark.parametrize("parts", DUMPS, ids=lambda parts: " and ".join(" ".join(part) or "whole" for part in parts))
def test_counts_are_right_after_a_restore(
    notes: Execute,
    url: str,
    empty_url: str,
    programs: Callable[[str], str],
    parts: list[list[str]],
) -> None:
    work(url)
    for part in parts:
        dump = subprocess.run([programs("pg_dump"), "--dbname", url, *part], capture_output=True, check=True)
        restored = subprocess.run(
            [programs("psql"), "--quiet", "--dbname", empty_url], input=dump.stdout, capture_output=True
        )
        assert restored.returncode == 0, restored.stderr
    work(empty_url)
    with psycopg.connect(libpq_url(empty_url), autocommit=True) as connection:

        def execute(statement: str, *values: Any) -> list[Any]:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

        right(execute, empty_url)
        counted = "SELECT sum(documents), sum(tokens) FROM neural.corpus_counts"
        assert execute(counted) == notes(counted)
        terms = "SELECT lexeme, sum(documents) FROM neural.term_counts GROUP BY 1 ORDER BY 1"
        assert execute(terms) == notes(terms)


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash", sync="manual")


def test_rows_stay_in_the_queue_where_encoding_fails(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application catches the error and commits: what was not stored is still to be done."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("no memory left")

    with filled(create(Base.metadata), Memo) as session:
        session.add(Memo(text="a quagga"))
        session.flush()
        with monkeypatch.context() as patched:
            patched.setattr(type(Memo.search.encoder), "encode_documents", broken)
            with pytest.raises(RuntimeError, match="no memory left"):
                Memo.search.sync(session)
        session.commit()
        assert Memo.search.pending(session) == 1
        assert Memo.search.sync(session).rows == 1
        session.commit()
        assert texts(Memo.search("quagga").mode("semantic").limit(1).all(session)) == ["a quagga"]


def test_sync_wants_a_transaction(create: Create) -> None:
    with filled(create(Base.metadata), Memo) as session:
        engine: Any = session.get_bind()
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(InvalidQuery, match="the connection is in AUTOCOMMIT"),
    ):
        Memo.search.sync(connection)


def test_a_search_is_not_short_of_rows_because_of_orphans(create: Create) -> None:
    """What is kept of rows that are gone takes no places."""
    with filled(create(Base.metadata), Memo) as session:
        session.connection().exec_driver_sql("SET session_replication_role = replica")
        session.connection().exec_driver_sql("DELETE FROM memos WHERE id <= 3")
        session.connection().exec_driver_sql("SET session_replication_role = origin")
        for mode in ("semantic", "lexical", "hybrid"):
            hits = Memo.search("a red fox, an old owl").mode(mode).limit(2).all(session)
            assert len(hits) == (1 if mode == "lexical" else 2), mode
        session.rollback()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_differs_is_found(create: Create, data: st.DataObject) -> None:
    """Rows, words and chunks are taken away and changed behind the triggers; one comparison tells all of it."""
    Base.metadata.drop_all(create(MetaData()).get_bind())  # another example
    with filled(create(Base.metadata), Memo) as session:
        keys = [memo.id for memo in session.query(Memo)]
        lost, stale, orphans = (data.draw(st.sets(st.sampled_from(keys))) for _ in range(3))
        stale -= lost | orphans
        lost -= orphans
        driver = session.connection()
        driver.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for key in lost:
            driver.exec_driver_sql(f"DELETE FROM memos_search_terms WHERE source_id = {key}")
        for key in stale:
            driver.exec_driver_sql(f"UPDATE memos SET text = 'another' WHERE id = {key}")
        for key in orphans:
            driver.exec_driver_sql(f"DELETE FROM memos WHERE id = {key}")
        driver.exec_driver_sql("SET LOCAL session_replication_role = origin")
        (space,) = searches(driver)
        row = driver.exec_driver_sql(f"SELECT missing, stale, orphans FROM neural.reconcile_space({space.id})").one()
        assert tuple(row) == (len(lost), len(stale), len(orphans))
        Memo.search.sync(session)
        row = driver.exec_driver_sql(f"SELECT missing, stale, orphans FROM neural.reconcile_space({space.id})").one()
        assert tuple(row) == (0, 0, 0)
        session.commit()


def test_a_search_of_an_earlier_version_is_brought_along(notes: Execute, db: Database, url: str) -> None:
    """It had foreign keys, and triggers that removed nothing; the upgrade changes the one for the other."""
    work(url)
    space = notes("SELECT id FROM neural.spaces")[0][0]
    for table in ("notes_search", "notes_search_terms"):
        notes(f"ALTER TABLE {table} ADD FOREIGN KEY (source_id) REFERENCES notes ON DELETE CASCADE ON UPDATE CASCADE")
    for event, tables in (
        ("insert", "NEW TABLE AS new_rows"),
        ("delete", "OLD TABLE AS old_rows"),
        ("update", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ):
        notes(
            f"CREATE OR REPLACE TRIGGER notes_search_{event} AFTER {event} ON notes REFERENCING {tables} FOR EACH STATEMENT"
            f" EXECUTE FUNCTION neural.note_changes('notes_search', '', '{{title,body}}', '{{{space}}}')"
        )
    notes("DELETE FROM notes WHERE id = 1")  # by the old ones
    assert "foreign key" in db.check().differences[0]
    db.upgrade()
    assert notes("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'notes'::regclass") == [(0,)]
    notes("DELETE FROM notes WHERE id = 2")
    notes("UPDATE notes SET id = 200 WHERE id = 3")
    assert notes("SELECT min(source_id), count(*) FROM notes_search") == [(4, 17)]
    work(url)
    right(notes, url)


def test_spaces_are_changed_while_somebody_writes_for_long(notes: Execute, db: Database, url: str) -> None:
    """The change lets writers pass and tries again; the first lock that did not come in time ended it."""
    work(url)
    changes: list[Callable[[], object]] = [
        lambda: db.create_space("notes.search", "other"),
        lambda: db.switch_space("notes.search", "other", force=True),
        lambda: db.rollback_space("notes.search"),
        lambda: db.drop_space("notes.search", "other"),
    ]
    for change in changes:
        with psycopg.connect(libpq_url(url)) as writing, ThreadPoolExecutor(1) as beside:
            writing.execute("UPDATE notes SET body = body || ' again' WHERE id = 5")
            writing.execute("SELECT FROM neural.spaces FOR UPDATE")
            changing = beside.submit(change)
            time.sleep(1)
            assert not changing.done()
            writing.commit()
            changing.result(30)
    assert notes("SELECT name, state FROM neural.spaces") == [("main", "serving")]


def test_many_sessions_make_switch_and_drop_spaces_at_once(notes: Execute, db: Database, url: str) -> None:
    """None fails for a reason that it did not cause itself."""
    work(url)
    failed: list[str] = []

    def turn(number: int) -> None:
        with Database(url) as database:
            for n in range(3):
                name = f"s{number}_{n}"
                try:
                    database.create_space("notes.search", name)
                    database.switch_space("notes.search", name, force=True)
                    database.rollback_space("notes.search")
                    database.switch_space("notes.search", "main", force=True)
                    database.drop_space("notes.search", name)
                except InvalidSpace as error:
                    if "serves" not in str(error):  # another session has just switched to it
                        failed.append(str(error))
                except Exception as error:
                    failed.append(repr(error))

    threads = [threading.Thread(target=turn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert notes("SELECT count(*) FROM neural.spaces WHERE state = 'serving'") == [(1,)]


def test_the_revision_that_a_worker_stores_meanwhile_makes_no_row_differ(db: Database, execute: Execute) -> None:
    """What compares has read the catalog's row before, so its expression reads how rows are cut with their chunks."""
    notes = db.collection("notes", encoder="hash")
    notes.index([{"id": "a", "text": "an owl"}])
    ((hashed, tables),) = execute(
        'SELECT neural.source_hash(jsonb_populate_record(e, \'{"revision": "", "max_tokens": 1}\')), t.chunks'
        f" FROM neural.spaces e, neural.space_tables(e.id) t WHERE e.id = {notes.space.id}"
    )
    same = f"SELECT {hashed} = c.source_hash FROM (SELECT '' AS title, 'an owl' AS content) r, {tables} c"
    assert execute(same) == [(True,)]
