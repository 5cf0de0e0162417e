"""What triggers note, in transactions of all kinds, and what the queue makes of it."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy.orm import Session

from pgneural import Database
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import InvalidSpace
from pgneural.ingest.job import drain
from pgneural.store import queue
from pgneural.store.engine import libpq_url
from pgneural.store.schema import Space
from pgneural.store.space_tables import SpaceTables
from pgneural.store.vector_cache import cache_vectors, cached_vectors
from pgneural.worker import Worker
from tests.fixtures.tables import Execute


def work(url: str) -> Worker:
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
    worker.run(once=True)
    return worker


def noted(execute: Execute) -> int:
    return int(execute("SELECT coalesce(sum(rows), 0) FROM neural.changes")[0][0])


def make_space(execute: Execute, **options: str) -> None:
    given = "".join(f", {name} => {value}" for name, value in options.items())
    execute(f"SELECT neural.create_space('notes', 'search', 'small'{given})")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_writer_with_an_older_snapshot_is_noted_for_a_new_space(notes: Execute, url: str, isolation: str) -> None:
    """It does not see the space, but the space has to have its row."""
    with psycopg.connect(libpq_url(url)) as writing:
        writing.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
        writing.execute("SELECT count(*) FROM notes")  # its snapshot
        make_space(notes, dimensions="64", options="""'{"dimensions": 64}'""")
        writing.execute("INSERT INTO notes VALUES (99, 'late', 'quagga')")
        writing.execute("UPDATE notes SET body = 'tapir' WHERE id = 3")
        writing.execute("DELETE FROM notes WHERE id = 4")
    Worker(url, as_superuser=True).run(once=True)
    for table in ("notes_search", "notes_search_small"):
        found = notes(f"SELECT source_id, text FROM {table} WHERE source_id IN (3, 4, 99) ORDER BY 1")  # noqa: S608
        assert found == [(3, "tapir"), (99, "quagga")], table
    notes("SELECT neural.switch_space('notes', 'search', 'small')")
    notes("SELECT neural.drop_space('notes', 'search', 'main')")
    notes("INSERT INTO notes VALUES (100, '', 'ibis')")
    assert notes("SELECT count(DISTINCT space_id) FROM neural.changes") == [(1,)]  # nothing for what was dropped


def test_a_space_is_not_made_by_a_snapshot_that_others_may_have_outrun(notes: Execute, url: str) -> None:
    with psycopg.connect(libpq_url(url)) as making:
        making.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.Error, match="this transaction is REPEATABLE READ") as raised:
            making.execute("SELECT neural.create_space('notes', 'search', 'small')")
    assert raised.value.diag.message_hint == "Make searches and spaces in a READ COMMITTED transaction."


def test_nor_is_a_search(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    with psycopg.connect(libpq_url(url)) as making:
        making.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        making.execute("SELECT 1 FROM notes")
        execute("INSERT INTO notes VALUES (2, 'seen by nobody')")
        with pytest.raises(psycopg.Error, match="may not see rows"):
            making.execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    with psycopg.connect(libpq_url(url)) as making:  # of a table of its own it may
        making.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with making.transaction():
            making.execute("CREATE TABLE others (id int PRIMARY KEY, body text)")
            making.execute("SELECT neural.watch('others', '{body}', encoder => 'hash')")


def test_a_partition_that_is_truncated_by_an_older_snapshot(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    execute("CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (10)")
    execute("CREATE TABLE high PARTITION OF notes FOR VALUES FROM (10) TO (20)")
    execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    execute("INSERT INTO notes VALUES (1, 'fox'), (11, 'owl')")
    with psycopg.connect(libpq_url(url)) as writing:
        writing.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        writing.execute("SELECT count(*) FROM notes")
        make_space(execute)
        execute("DELETE FROM neural.changes")
        writing.execute("TRUNCATE low CASCADE")
    assert execute("SELECT keys, rows FROM neural.changes") == [([], 0), ([], 0)]  # of both spaces: rows are compared
    work(url)
    for table in ("notes_search_small", "notes_search"):
        assert execute(f"SELECT text FROM {table}") == [("owl",)]  # noqa: S608
        assert execute(f"SELECT source_id FROM {table}_terms") == [(11,)]  # noqa: S608


def test_triggers_that_were_turned_off_stay_so(notes: Execute) -> None:
    notes("ALTER TABLE notes DISABLE TRIGGER notes_search_update")
    notes("ALTER TABLE notes ENABLE ALWAYS TRIGGER notes_search_delete")
    make_space(notes)
    fires = notes("SELECT tgname::text, tgenabled::text FROM pg_trigger WHERE starts_with(tgname, 'notes_search')")
    assert dict(fires) == {f"notes_search_{event}": how for event, how in zip(
        ("insert", "update", "delete", "truncate"), "ODAO", strict=True)}  # fmt: skip


def test_a_child_without_a_key_of_its_own(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    execute("CREATE TABLE memos () INHERITS (notes)")
    execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    execute("INSERT INTO memos VALUES (1, 'fox'), (2, 'owl'), (3, 'ibis')")
    execute("UPDATE memos SET body = 'gnu' WHERE id = 2")
    execute("DELETE FROM memos WHERE id = 3")
    work(url)
    assert execute("SELECT text FROM notes_search ORDER BY source_id") == [("fox",), ("gnu",)]


def test_a_table_without_a_key_gets_no_search(execute: Execute) -> None:
    execute("CREATE TABLE notes (id int, body text)")
    with pytest.raises(psycopg.Error, match="table public.notes has no primary key"):
        execute("SELECT neural.watch('notes', '{body}')")


def test_columns_may_have_any_name(execute: Execute, url: str) -> None:
    execute(
        r"""CREATE TABLE "No 'tes" (hashtextextended int, "n" int, "bo\dy" text, PRIMARY KEY (hashtextextended, "n"))"""
    )
    execute(r"""SELECT neural.watch('"No ''tes"', ARRAY['bo\dy'], encoder => 'hash')""")
    execute("""INSERT INTO "No 'tes" VALUES (1, 2, 'fox'), (2, 2, 'owl')""")
    execute("""SELECT neural.create_space('"No ''tes"', 'search', 'small')""")
    work(url)
    execute(r"""UPDATE "No 'tes" SET "bo\dy" = 'ibis' WHERE hashtextextended = 1""")
    work(url)
    for table in ("No 'tes_search", "No 'tes_search_small"):
        assert execute(f'SELECT text FROM "{table}" ORDER BY 1') == [("ibis",), ("owl",)]  # noqa: S608


def test_triggers_of_earlier_versions_find_their_spaces(notes: Execute) -> None:
    notes("CREATE OR REPLACE TRIGGER notes_search_insert AFTER INSERT ON notes REFERENCING NEW TABLE AS new_rows"
          " FOR EACH STATEMENT EXECUTE FUNCTION neural.note_changes('notes_search', '', '{title,body}')")  # fmt: skip
    before = noted(notes)
    notes("INSERT INTO notes VALUES (99, 'a', 'b')")
    assert noted(notes) == before + 1
    make_space(notes)
    before = noted(notes)
    notes("INSERT INTO notes VALUES (100, 'a', 'b')")
    assert noted(notes) == before + 2


def test_triggers_of_another_database_are_noticed(notes: Execute, db: Database) -> None:
    """Those of a table that was restored from elsewhere have the ids that its spaces had there."""
    assert db.check().differences == ()
    space = notes("SELECT id FROM neural.spaces WHERE attribute = 'search'")[0][0]
    given = "'notes_search', '', '{title,body}', '{77}'"
    notes("CREATE OR REPLACE TRIGGER notes_search_insert AFTER INSERT ON notes REFERENCING NEW TABLE AS new_rows"
          f" FOR EACH STATEMENT EXECUTE FUNCTION neural.note_changes({given})")  # fmt: skip
    assert db.check().differences == (
        "public.notes.search: trigger notes_search_insert of table public.notes notes for other spaces than its search "
        "has; a worker mends that, or in psql: SELECT * FROM neural.reconcile('public.notes')",
    )
    notes(f"SELECT neural.rebuild_triggers({space})")
    assert db.check().differences == ()


def test_only_who_may_makes_triggers_that_note(notes: Execute, url: str) -> None:
    """A trigger says for which spaces it notes, so it is not for everybody."""
    notes("DROP ROLE IF EXISTS pgneural_stranger")
    notes("CREATE ROLE pgneural_stranger")
    try:
        notes("GRANT USAGE ON SCHEMA neural TO pgneural_stranger")
        notes("CREATE SCHEMA strange AUTHORIZATION pgneural_stranger")
        with psycopg.connect(make_conninfo(libpq_url(url), options="-c role=pgneural_stranger")) as stranger:
            stranger.execute("CREATE TABLE strange.rows (id int PRIMARY KEY)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="note_changes"):
                stranger.execute("CREATE TRIGGER t AFTER INSERT ON strange.rows REFERENCING NEW TABLE AS new_rows"
                                 " FOR EACH STATEMENT EXECUTE FUNCTION neural.note_changes()")  # fmt: skip
    finally:
        notes("DROP OWNED BY pgneural_stranger")
        notes("DROP ROLE pgneural_stranger")


def test_one_notification_a_transaction_and_none_where_it_is_off(notes: Execute, url: str) -> None:
    """NOTIFY makes commits wait for each other, and PREPARE TRANSACTION refuses it."""
    work(url)
    with psycopg.connect(libpq_url(url), autocommit=True) as listening, psycopg.connect(libpq_url(url)) as writing:
        listening.execute("LISTEN neural_changes")

        def heard() -> int:
            return len(list(listening.notifies(timeout=0.2)))

        for number in range(30):
            writing.execute("INSERT INTO notes VALUES (%s, '', 'ibis')", (1000 + number,))
        writing.commit()
        assert heard() == 1
        notes("INSERT INTO notes VALUES (2000, '', 'ibis')")
        assert heard() == 0  # workers are awake
        work(url)
        writing.execute("SET pgneural.notify = off")
        writing.execute("INSERT INTO notes VALUES (3000, '', 'ibis')")
        writing.commit()
        assert heard() == 0
        assert noted(notes) == 1


@pytest.mark.parametrize(
    ("type_", "value", "other"),
    [
        ("date", "2026-02-01", None),
        ("timestamptz", "2026-02-01 12:00+00", None),
        ("numeric", "1.50", "1.500"),
        ("interval", "1 day 2 hours", None),
        ("bytea", "\\x00ff", None),
        ("double precision", "0.1", None),
        ('text COLLATE "C"', 'a "b" \\ ,', None),
    ],
)
def test_keys_are_the_same_whatever_a_session_has_set(
    execute: Execute, url: str, type_: str, value: str, other: str | None
) -> None:
    """Also those that are equal but not alike, as numeric 1.50 and 1.500."""
    execute(f"CREATE TABLE notes (id {type_} PRIMARY KEY, body text)")
    execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    execute("SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Tokyo'")
    execute("SET bytea_output = 'escape'; SET extra_float_digits = -10")
    execute("INSERT INTO notes VALUES (%s, 'fox')", value)
    work(url)
    execute("UPDATE notes SET body = 'owl'" + (f", id = {other}" if other else ""))  # noqa: S608
    work(url)
    assert execute("SELECT text FROM notes_search") == [("owl",)]
    assert execute("SELECT count(*) FROM neural.pending") == [(0,)]
    assert execute("SELECT count(*) FROM neural.failed") == [(0,)]
    execute("DELETE FROM notes")
    work(url)
    assert execute("SELECT count(*) FROM notes_search_terms") == [(0,)]


def test_who_syncs_takes_what_a_dead_worker_had(notes: Execute, db: Database) -> None:
    space = notes("SELECT id FROM neural.spaces WHERE attribute = 'search'")[0][0]
    notes("SELECT neural.collect(%s)", space)
    assert len(notes("SELECT neural.claim(%s, 'dead', 20, '30 s')", space)) == 20
    assert notes("SELECT neural.take(%s, 100, false)", space) == [(None,)]  # its lease has not ended
    notes("UPDATE neural.pending SET due = now()")
    with db.engine.begin() as connection:
        assert len(queue.take(connection, space, 100, own=False)) == 20
    assert notes("SELECT count(*) FROM neural.pending") == [(0,)]


def test_who_syncs_waits_for_what_workers_have(notes: Execute, db: Database) -> None:
    space = notes("SELECT id FROM neural.spaces WHERE attribute = 'search'")[0][0]
    notes("SELECT neural.collect(%s)", space)
    notes("SELECT neural.claim(%s, 'dead', 5, '1 s')", space)
    with db.engine.begin() as connection:
        found = Session(connection).get_one(Space, space)
        kept = SpaceTables.of(connection, found)
    assert drain(db.engine, kept, HashEncoder).rows == 20
    assert notes("SELECT count(*) FROM notes_search") == [(20,)]


def test_what_a_broken_space_claimed_does_not_stop_the_others(notes: Execute, url: str) -> None:
    """Rows of two tables are encoded together; the error of one is not the other's."""
    notes("CREATE TABLE others AS TABLE notes")
    notes("ALTER TABLE others ADD PRIMARY KEY (id)")
    notes("SELECT neural.watch('others', '{title,body}', encoder => 'hash')")
    notes("CREATE FUNCTION forbidden() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
          " RAISE EXCEPTION 'not for you' USING ERRCODE = 'insufficient_privilege'; END $$")  # fmt: skip
    notes("CREATE TRIGGER forbidden BEFORE INSERT ON notes_search FOR EACH ROW EXECUTE FUNCTION forbidden()")
    worker = work(url)
    assert worker.problems[0].startswith("public.notes.search is let be for now: not for you")
    assert notes("SELECT count(*) FROM others_search") == [(20,)]
    assert notes("SELECT count(*), max(attempts) FROM neural.pending") == [(20, 0)]  # no row is to blame
    notes("DROP TRIGGER forbidden ON notes_search")
    work(url)
    assert notes("SELECT count(*) FROM notes_search") == [(20,)]


def test_rows_that_a_worker_may_not_see_are_not_taken_for_deleted(notes: Execute, url: str) -> None:
    work(url)
    notes("DROP ROLE IF EXISTS pgneural_blind")
    notes("CREATE ROLE pgneural_blind")
    try:
        notes("SELECT neural.grant_worker('pgneural_blind')")
        notes("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
        notes("UPDATE notes SET body = 'owl'")
        blind = make_conninfo(libpq_url(url), options="-c role=pgneural_blind")
        worker = work(blind)
        assert "row-level security" in worker.problems[0]
        assert notes("SELECT count(*) FROM notes_search") == [(20,)]
        notes("ALTER ROLE pgneural_blind BYPASSRLS")
        work(blind)
        assert notes("SELECT DISTINCT text FROM notes_search") == [("owl",)]
    finally:
        notes("DROP OWNED BY pgneural_blind")
        notes("DROP ROLE pgneural_blind")


def test_vectors_that_somebody_else_made_meanwhile(db: Database) -> None:
    encoder = HashEncoder()
    texts = {bytes([n]): text for n, text in enumerate(["fox", "owl", "ibis"])}
    vectors = dict(zip(texts, encoder.encode_documents(list(texts.values())), strict=True))
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cache_vectors(connection, encoder, {b"\x00": vectors[b"\x00"]})
        cache_vectors(connection, encoder, dict(list(vectors.items())[:2]))
    with db.engine.begin() as connection:
        cache_vectors(connection, encoder, vectors)
        found = cached_vectors(connection, encoder, list(texts))
    assert {key: vector.tolist() for key, vector in found.items()} == {key: v.tolist() for key, v in vectors.items()}


def test_spaces_of_two_encoders_are_not_encoded_together(notes: Execute, url: str) -> None:
    """Also where the first has nothing to be claimed, because another worker is at its rows."""
    notes("CREATE TABLE others AS TABLE notes")
    notes("ALTER TABLE others ADD PRIMARY KEY (id)")
    notes("SELECT neural.watch('others', '{title,body}', encoder => 'hash', dimensions => 64,"
          """ options => '{"dimensions": 64}')""")  # fmt: skip
    with psycopg.connect(libpq_url(url)) as other:
        first = notes("SELECT id FROM neural.spaces WHERE source = 'public.notes'")[0][0]
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('pgneural collect ' || %s, 0))", (first,))
        worker = Worker(url, as_superuser=True)
        thread = threading.Thread(target=worker.run)
        thread.start()
        deadline = time.monotonic() + 10
        while notes("SELECT count(*) FROM others_search") != [(20,)]:
            assert time.monotonic() < deadline, worker.problems
            time.sleep(0.05)
        worker.stop()
        thread.join()
    assert worker.problems == []


def test_workers_leave_some_for_others(notes: Execute) -> None:
    notes("INSERT INTO notes SELECT n, '', 'owl' FROM generate_series(100, 899) n")
    space = notes("SELECT id FROM neural.spaces WHERE attribute = 'search'")[0][0]
    notes("SELECT neural.collect(%s, 2000)", space)
    claimed = [len(notes("SELECT neural.claim(%s, 'one', 512, '30 s')", space)) for _ in range(13)]
    assert claimed == [102, 89, 78, 68, *[64] * 7, 35, 0]


def test_documents_that_are_not_encoded_yet_are_not_lost_with_a_space(db: Database) -> None:
    notes = db.collection("notes", encoder="hash")
    notes.index([{"id": "1", "text": "fox"}])
    db.create_space("notes", "small", max_tokens=50)
    work(str(db.url))
    notes.index([{"id": "2", "text": "owl"}])
    db.switch_space("notes", "small", force=True)
    with pytest.raises(InvalidSpace, match="documents of notes are not encoded yet"):
        db.drop_space("notes", "main")
    work(str(db.url))
    db.drop_space("notes", "main")
    assert [hit.entity.content for hit in db.existing("notes").search("owl", limit=1)] == ["owl"]
