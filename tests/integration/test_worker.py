"""Workers: what they take, what they leave, and what they do when something fails."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgneural import Database, Searchable, metrics
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import EncoderUnavailable
from pgneural.store import queue, space_tables
from pgneural.store.engine import libpq_url
from pgneural.types import EncoderInput, Vector
from pgneural.worker import Worker
from tests.fixtures.tables import Execute, until


@dataclass(frozen=True)
class Spy(HashEncoder):
    """Notes what it encodes; refuses some texts, or all."""

    seen: list[str] = field(default_factory=list)
    refuses: str = "poison"

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        texts = [str(item) for item in items]
        if any(self.refuses in text for text in texts):
            raise ValueError(f"cannot read {self.refuses}")
        self.seen.extend(texts)
        return super().encode_documents(texts)


def work(url: str, encoder: HashEncoder | None = None, **options: Any) -> Worker:
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: encoder or HashEncoder(), **options)
    worker.run(once=True)
    return worker


def chunks(execute: Execute) -> list[Any]:
    return [row[0] for row in execute("SELECT text FROM notes_search ORDER BY source_id, ordinal")]


def pending(execute: Execute) -> int:
    return int(execute("SELECT sum(pending) FROM neural.status")[0][0])


def test_rows_are_encoded_and_kept_up_to_date(notes: Execute, url: str) -> None:
    assert pending(notes) == 20
    work(url)
    assert chunks(notes) == [f"fox {n}" for n in range(1, 21)]
    notes("UPDATE notes SET views = 1")
    assert pending(notes) == 0  # nothing that is searchable
    notes("UPDATE notes SET body = 'owl' WHERE id = 3")
    notes("DELETE FROM notes WHERE id > 3")
    notes("INSERT INTO notes VALUES (4, NULL, ''), (5, 'a', 'b')")
    encoder = Spy()
    work(url, encoder)
    assert chunks(notes) == ["fox 1", "fox 2", "owl", "b"]
    assert sorted(encoder.seen) == ["a\nb", "note 3\nowl"]
    assert pending(notes) == 0


def test_threads_that_work_once_share_what_one_of_them_collects(notes: Execute, url: str) -> None:
    """One holds the lock of collecting while another finds nothing to claim: that one does not end yet."""
    notes("INSERT INTO notes SELECT n, 'note', 'owl ' || n FROM generate_series(100, 1500) n")
    threads = set()

    class Slow(HashEncoder):
        def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
            threads.add(threading.get_ident())
            time.sleep(0.05)
            return super().encode_documents(items)

    work(url, Slow())
    assert len(threads) == 2
    assert pending(notes) == 0
    assert len(chunks(notes)) == 1421


def test_nothing_is_encoded_twice(notes: Execute, url: str) -> None:
    """Not after a row comes back, and not for another table with the same text."""
    work(url)
    notes("CREATE TABLE kept AS TABLE notes")
    notes("DELETE FROM notes")
    work(url)
    notes("INSERT INTO notes TABLE kept")
    notes("CREATE TABLE others AS TABLE notes")
    notes("ALTER TABLE others ADD PRIMARY KEY (id)")
    notes("SELECT neural.watch('others', '{title,body}', encoder => 'hash')")
    encoder = Spy()
    worker = work(url, encoder)
    assert encoder.seen == []
    assert sum(total.chunks_reused for total in worker.totals.values()) == 40
    assert len(chunks(notes)) == 20


def test_words_are_indexed_before_anything_is_encoded(notes: Execute) -> None:
    space = notes("SELECT id FROM neural.spaces WHERE source = 'public.notes'")[0][0]
    assert notes("SELECT neural.collect(%s)", space) == [(20,)]
    assert notes("SELECT count(*) FROM notes_search_terms WHERE lexemes @@ 'fox'::tsquery") == [(20,)]
    assert chunks(notes) == []


def test_a_row_that_fails_does_not_hold_up_the_others(notes: Execute, url: str) -> None:
    notes("UPDATE notes SET body = 'poison' WHERE id IN (2, 4)")
    work(url, Spy())
    assert len(chunks(notes)) == 18
    errors = notes("SELECT key, attempts, error, due > now() FROM neural.pending ORDER BY key")
    assert errors == [([n], 1, "ValueError: cannot read poison", True) for n in (2, 4)]
    for _ in range(queue.ATTEMPTS):
        notes("UPDATE neural.pending SET due = now()")
        work(url, Spy())
    failed = "SELECT key, attempts, error FROM neural.failed ORDER BY key"
    assert notes(failed) == [([n], 5, "ValueError: cannot read poison") for n in (2, 4)]
    assert pending(notes) == 0
    notes("UPDATE notes SET body = 'cured' WHERE id = 2")  # another change is another try
    work(url, Spy())
    assert notes(failed) == [([4], 5, "ValueError: cannot read poison")]
    with Database(url) as db:
        assert db.retry_failed() == 1
    work(url, Spy(refuses="nothing"))
    assert notes(failed) == []
    assert len(chunks(notes)) == 20


def test_a_row_that_cannot_be_read_fails_alone(notes: Execute, url: str) -> None:
    reads = "replace(reads, 's.body::text', '(s.body || 1 / (s.id - 7))::text')"
    notes(f"UPDATE neural.spaces SET fields = NULL, reads = {reads}")  # noqa: S608
    work(url)
    assert len(chunks(notes)) == 19
    assert "division by zero" in notes("SELECT error FROM neural.failed")[0][0]


def test_a_dead_workers_rows_return_when_its_lease_ends(notes: Execute, url: str) -> None:
    space = notes("SELECT id FROM neural.spaces WHERE source = 'public.notes'")[0][0]
    notes("SELECT neural.collect(%s)", space)
    notes("SELECT neural.claim(%s, 'dead', 15, '1 hour')", space)
    work(url)
    assert len(chunks(notes)) == 5
    notes("UPDATE neural.pending SET due = now()")
    work(url)
    assert len(chunks(notes)) == 20


def test_many_workers_share_the_rows(notes: Execute, url: str) -> None:
    notes("INSERT INTO notes SELECT n, 'x', 'owl ' || n FROM generate_series(21, 3000) n")
    encoder = Spy()
    threads = [threading.Thread(target=work, args=(url, encoder)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(url, encoder)
    assert len(encoder.seen) == len(set(encoder.seen)) == 3000
    assert len(chunks(notes)) == 3000


def test_a_running_worker_hears_of_changes_and_stops_when_told(notes: Execute, url: str) -> None:
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: len(chunks(notes)) == 20)
        until(lambda: notes("SELECT id FROM neural.workers") == [(worker.id,)])
        time.sleep(1)
        notes("INSERT INTO notes VALUES (99, 'new', 'ibis')")
        until(lambda: chunks(notes)[-1] == "ibis")
    finally:
        worker.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert notes("SELECT id FROM neural.workers") == []


def test_a_stopped_worker_gives_back_what_it_has_not_begun(
    notes: Execute, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_tables, "READ_BYTES", 100_000)
    notes("UPDATE notes SET body = repeat('fox ', 20000) WHERE id < 6")  # more than is read at a time
    begun = threading.Event()

    @dataclass(frozen=True)
    class Slow(HashEncoder):
        def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
            begun.set()
            time.sleep(0.5)
            return super().encode_documents(items)

    worker = Worker(url, as_superuser=True, make=lambda *_, **__: Slow(), concurrency=1)
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert begun.wait(20)
    worker.stop()
    thread.join(60)
    assert notes("SELECT count(*) FROM neural.pending WHERE claimed_by IS NOT NULL") == [(0,)]
    assert 0 < pending(notes) < 20
    work(url)
    assert pending(notes) == 0


def test_a_model_that_is_not_here_lets_the_other_spaces_go_on(notes: Execute, url: str) -> None:
    notes("CREATE TABLE others (id int PRIMARY KEY, text text)")
    notes("SELECT neural.watch('others', '{text}', encoder => 'absent', dimensions => 8)")
    notes("INSERT INTO others VALUES (1, 'gnu')")

    def make(name: str, **_: Any) -> HashEncoder:
        if name == "absent":
            raise EncoderUnavailable("no files of absent here")
        return HashEncoder()

    worker = Worker(url, as_superuser=True, make=make)
    worker.run(once=True)
    assert len(chunks(notes)) == 20
    assert worker.problems == ["public.others.search is let be for now: no files of absent here"]
    assert pending(notes) == 1


def test_what_a_worker_serves(notes: Execute, url: str) -> None:
    notes("UPDATE neural.spaces SET sync = 'manual'")
    work(url)
    assert chunks(notes) == []
    work(url, only=["public.notes.search"])
    assert len(chunks(notes)) == 20


def test_a_row_that_is_being_deleted_is_not_waited_for(notes: Execute, url: str) -> None:
    with psycopg.connect(libpq_url(url)) as deleting:
        deleting.execute("DELETE FROM notes WHERE id = 5")
        started = time.monotonic()
        worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
        thread = threading.Thread(target=worker.run)
        thread.start()
        until(lambda: len(chunks(notes)) == 20)
        assert time.monotonic() - started < 9
        deleting.commit()
        until(lambda: len(chunks(notes)) == 19)
        worker.stop()
        thread.join()


def test_partitions_and_truncate(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    execute("CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (10)")
    execute("CREATE TABLE high PARTITION OF notes FOR VALUES FROM (10) TO (20)")
    execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    execute("INSERT INTO low SELECT n, 'fox ' || n FROM generate_series(0, 8) n")
    execute("INSERT INTO notes SELECT n, 'owl ' || n FROM generate_series(10, 14) n")
    work(url)
    execute("UPDATE notes SET id = 19 WHERE id = 3")  # into the other partition
    work(url)
    assert chunks(execute) == [*(f"fox {n}" for n in range(9) if n != 3), *(f"owl {n}" for n in range(10, 15)), "fox 3"]
    execute("TRUNCATE low")  # nothing stands in its way, and the chunks of the other partition stay
    assert chunks(execute) == [*(f"owl {n}" for n in range(10, 15)), "fox 3"]
    work(url)
    assert chunks(execute) == [*(f"owl {n}" for n in range(10, 15)), "fox 3"]
    execute("TRUNCATE notes")
    assert chunks(execute) == []
    work(url)
    assert chunks(execute) == []


def test_rows_of_inherited_tables(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    execute("CREATE TABLE memos (PRIMARY KEY (id)) INHERITS (notes)")
    execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    execute("INSERT INTO notes SELECT n, 'fox ' || n FROM generate_series(0, 3) n")
    execute("INSERT INTO memos SELECT n, 'owl ' || n FROM generate_series(10, 13) n")
    work(url)
    assert chunks(execute) == [*(f"fox {n}" for n in range(4)), *(f"owl {n}" for n in range(10, 14))]
    execute("UPDATE memos SET body = 'ibis' WHERE id = 10")
    execute("UPDATE notes SET body = 'gnu' WHERE id = 11")  # a row of the child, by the parent
    execute("DELETE FROM notes WHERE id = 12")
    assert execute("SELECT count(*) FROM notes_search WHERE source_id = 12") == [(0,)]  # at once
    work(url)
    assert chunks(execute) == [*(f"fox {n}" for n in range(4)), "ibis", "gnu", "owl 13"]
    assert execute("SELECT count(*) FROM notes_search_terms") == [(7,)]


def test_a_worker_survives_a_full_disk_and_lost_connections(notes: Execute, url: str) -> None:
    notes("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
          " RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$")  # fmt: skip
    notes("CREATE TRIGGER full_disk BEFORE INSERT ON notes_search FOR EACH ROW EXECUTE FUNCTION full_disk()")
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        time.sleep(1)
        assert notes("SELECT max(attempts) FROM neural.pending") == [(0,)]  # no row is to blame
        for _ in range(3):
            notes("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgneural'"
                  " AND datname = current_database()")  # fmt: skip
            time.sleep(0.3)
        notes("DROP TRIGGER full_disk ON notes_search")
        until(lambda: len(chunks(notes)) == 20, 60)
        notes("INSERT INTO notes VALUES (99, 'new', 'ibis')")
        until(lambda: chunks(notes)[-1] == "ibis")
    finally:
        worker.stop()
        thread.join()


def test_names_are_those_of_the_sources_schema(execute: Execute, url: str) -> None:
    """What a search reads may name tables without a schema, and the worker's search_path may be another."""
    execute("CREATE SCHEMA shop CREATE TABLE notes (id int PRIMARY KEY, body text)")
    execute("SELECT neural.watch('shop.notes', '{body}', encoder => 'hash')")
    execute("UPDATE neural.spaces SET reads = replace(reads, 'shop.notes', 'notes')")
    execute("INSERT INTO shop.notes VALUES (1, 'fox')")
    worker = work(url)
    assert worker.problems == []
    assert execute("SELECT text FROM shop.notes_search") == [("fox",)]


def test_figures_for_prometheus(notes: Execute, url: str) -> None:
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
    server: Any = metrics.serve(worker, 0)
    try:
        labels = '{attribute="search",source="public.notes",space="main",state="serving"}'
        assert f"pgneural_pending{labels} 20.0" in scraped(server)
        worker.run(once=True)
        text = scraped(server)
        assert f"pgneural_pending{labels} 0.0" in text
        assert f"pgneural_worker_chunks_encoded_total{labels} 20.0" in text
        assert "pgneural_up 1.0" in text
    finally:
        metrics.close(server)
        worker.engine.dispose()  # a scrape after its end has connected again
    assert notes("SELECT rows_per_second > 0 FROM neural.status") == [(True,)]


def scraped(server: Any) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as response:
        return str(response.read().decode())


def test_tables_made_in_sql_are_those_that_the_models_declare(execute: Execute, url: str, db: Database) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str | None]
        body: Mapped[str | None]
        search = Searchable("title", "body", encoder="hash")

    Base.metadata.create_all(db.engine)
    by_models = described(db)
    with db.engine.begin() as connection:
        connection.execute(sa.text("SELECT neural.unwatch('notes')"))
        assert described(db, connection)["columns"] == []
        connection.execute(sa.text("SELECT neural.watch('notes', '{title,body}', encoder => 'hash')"))
    assert described(db) == by_models


def described(db: Database, connection: Any = None) -> dict[str, list[Any]]:
    """Return what the catalog of the server says of the tables of a search."""
    queries = {
        "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attstorage "
        "FROM pg_attribute WHERE attrelid::regclass::text LIKE 'notes_search%' AND attnum > 0 ORDER BY 1, attnum",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'notes_search%' ORDER BY 1",
        "constraints": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid::regclass::text LIKE 'notes_search%' AND contype <> 'n' ORDER BY 1",
        "triggers": "SELECT tgname, tgrelid::regclass::text, tgtype FROM pg_trigger "
        "WHERE NOT tgisinternal ORDER BY 1, 2",
        "spaces": "SELECT source, attribute, chunk_table, encoder, dimensions, distance, max_tokens, overlap, "
        "language, title_boost, storage, vector_index, sync, state FROM neural.spaces",
    }
    with db.engine.connect() as own:
        return {name: [tuple(row) for row in (connection or own).execute(sa.text(q))] for name, q in queries.items()}
