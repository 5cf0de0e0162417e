"""A first load of a table whose vector index is there already: it is set aside, and made at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Database, Searchable, VectorIndex
from pgneural.encoders.hashing import HashEncoder
from pgneural.types import EncoderInput, Vector
from pgneural.worker import Worker
from tests.fixtures.orm import Create
from tests.fixtures.tables import Execute

ROWS = 2500


class Stopped(Exception):
    """Who encodes was stopped."""


@dataclass(frozen=True)
class Watching(HashEncoder):
    """Looks whether the index is there while it encodes; stops after so many calls."""

    execute: Any = None
    stops: bool = False

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        seen.append(definition(self.execute))
        if self.stops and len(seen) > 2:
            raise Stopped
        return super().encode_documents(items)


seen: list[str | None] = []


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    search = Searchable("body", encoder="hash", dimensions=64)


class Lists(DeclarativeBase):
    pass


class Listed(Lists):
    __tablename__ = "listed"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    search = Searchable("body", encoder="hash", dimensions=64, index=VectorIndex("ivfflat"))


def definition(execute: Execute) -> str | None:
    """Return the index of the chunks, where there is one that is valid."""
    found = execute(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indisvalid AND indexrelid = to_regclass('notes_search_embedding_idx')"
    )
    return str(found[0][0]) if found else None


def waits(execute: Execute) -> bool:
    return bool(execute("SELECT index_waits FROM neural.status")[0][0])


def unchanged(connection: sa.Connection, metadata: sa.MetaData) -> bool:
    """Whether Alembic finds nothing that a migration would have to change."""
    plugins = ["alembic.autogenerate.*", "pgneural.migrate"]
    context = MigrationContext.configure(connection, opts={"autogenerate_plugins": plugins})
    found = produce_migrations(context, metadata).upgrade_ops
    assert found is not None
    return found.is_empty()


@pytest.fixture
def notes(create: Create, execute: Execute) -> Iterator[Session]:
    seen.clear()
    with create(Base.metadata) as session:
        rows = sa.text("INSERT INTO notes SELECT n, 'fox ' || n FROM generate_series(1, :rows) n")
        session.execute(rows, {"rows": ROWS})
        session.commit()
        yield session


def work(url: str, encoder: HashEncoder) -> Worker:
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: encoder)
    worker.run(once=True)
    return worker


def test_the_index_is_made_once_over_all_rows(notes: Session, execute: Execute, monkeypatch: Any) -> None:
    before = definition(execute)
    assert before is not None
    encode = HashEncoder.encode_documents

    def watched(self: HashEncoder, items: Sequence[EncoderInput]) -> Vector:
        seen.append(definition(execute))
        return encode(self, items)

    monkeypatch.setattr(HashEncoder, "encode_documents", watched)
    assert Note.search.sync(notes.get_bind()).rows == ROWS
    assert set(seen) == {None}
    assert definition(execute) == before
    assert not waits(execute)
    assert len(notes.execute(sa.select(Note)).all()) == ROWS
    assert len(Note.search("fox 77").limit(5).all(notes)) == 5


def test_a_worker_does_so_too(notes: Session, execute: Execute, url: str) -> None:
    before = definition(execute)
    work(url, Watching(dimensions=64, execute=execute))
    assert None in seen
    assert definition(execute) == before
    assert not waits(execute)


def test_who_comes_after_a_load_that_was_stopped_makes_it(notes: Session, execute: Execute, url: str) -> None:
    before = definition(execute)
    work(url, Watching(dimensions=64, execute=execute, stops=True))
    assert waits(execute)
    assert definition(execute) is None
    with notes.get_bind().connect() as connection:  # type: ignore[union-attr]
        assert unchanged(connection, Base.metadata)
    execute("UPDATE neural.pending SET due = now()")  # what failed waits for a while
    work(url, HashEncoder(dimensions=64))
    assert definition(execute) == before
    assert not waits(execute)


def test_an_index_that_is_missing_after_a_load_is_told_of(notes: Session, execute: Execute, url: str) -> None:
    space = execute("SELECT id FROM neural.spaces")[0][0]
    assert execute(f"SELECT neural.set_index_aside({space})") == [(True,)]
    with Database(url) as database:
        assert database.check().current, "rows wait: it comes"
        execute("DELETE FROM neural.changes")
        execute("DELETE FROM notes")
        execute("DELETE FROM neural.changes")
        assert "its vector index was set aside" in database.check().differences[0]
        assert database.index_space("notes.search", "main")
        assert database.check().current


def test_it_stays_where_there_is_much_in_it_or_little_to_come(notes: Session, execute: Execute, url: str) -> None:
    Note.search.sync(notes.get_bind())
    execute("UPDATE notes SET body = body || ' again'")
    space = execute("SELECT id FROM neural.spaces")[0][0]
    assert execute(f"SELECT neural.set_index_aside({space})") == [(False,)]
    execute("DELETE FROM notes WHERE id > 50")
    Note.search.sync(notes.get_bind())
    execute("UPDATE notes SET body = body || ' again'")
    assert execute(f"SELECT neural.set_index_aside({space})") == [(False,)]


def test_it_stays_where_another_was_made_in_its_place(notes: Session, execute: Execute) -> None:
    execute("DROP INDEX notes_search_embedding_idx")
    made = "CREATE INDEX notes_search_embedding_idx ON notes_search USING hnsw (embedding vector_cosine_ops)"
    execute(f"{made} WHERE ordinal = 0")
    before = definition(execute)
    Note.search.sync(notes.get_bind())
    assert definition(execute) == before


def nearest(session: Session, vector: Vector) -> Sequence[int]:
    """Return the ten nearest rows, each compared."""
    chunks = Listed.search.chunks
    session.execute(sa.text("SET LOCAL enable_indexscan = off"))
    distance = chunks.c.embedding.cosine_distance(vector)
    found = session.scalars(sa.select(chunks.c.source_id).order_by(distance).limit(10)).all()
    session.execute(sa.text("SET LOCAL enable_indexscan = on"))
    return found


def test_lists_are_as_many_as_advised_for_the_rows_and_are_read_accordingly(create: Create, execute: Execute) -> None:
    """They were pgvector's 100, of which a search read one."""
    with create(Lists.metadata) as session:
        rows = sa.text(
            "INSERT INTO listed SELECT n, md5(n::text) || ' ' || md5((n % 500)::text) FROM generate_series(1, :rows) n"
        )
        session.execute(rows, {"rows": ROWS})
        session.commit()
        Listed.search.sync(session.get_bind())
        assert "lists='10'" in execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'listed_search'")[1][0]
        assert execute("SELECT vector_index -> 'options' FROM neural.spaces WHERE source ~ 'listed'") == [
            ({"lists": 10},)
        ]
        recalls = []
        for row in session.scalars(sa.select(Listed.body).order_by(Listed.id).limit(30)).all():
            question = Listed.search.encoder.encode_query(row)
            hits = Listed.search(question).limit(10).all(session)
            assert hits.strategy == "near"
            recalls.append(len({hit.entity.id for hit in hits} & set(nearest(session, question))) / 10)
        assert sum(recalls) / len(recalls) > 0.65  # .48 where one of 100 lists is read
        assert unchanged(session.connection(), Lists.metadata)


def test_an_index_of_another_table_is_left_alone(notes: Session, db: Database, execute: Execute) -> None:
    """Also by a superuser, where the catalog, which the owner of the source writes, names a table of another owner."""
    Note.search.sync(notes.get_bind())
    execute("CREATE TABLE orders (id int)")
    execute("CREATE INDEX notes_search_embedding_old ON orders (id)")
    db.index_space("notes.search", "main")
    execute("CREATE TABLE victim (id int)")
    execute("CREATE INDEX victim_embedding_old ON victim (id)")
    execute("ALTER TABLE victim OWNER TO pg_monitor")
    execute("UPDATE neural.spaces SET chunk_table = 'victim' WHERE attribute = 'search' AND source ~ 'notes'")
    with pytest.raises(Exception, match="is in the catalog as one of search tables of public.notes, but is none"):
        db.index_space("notes.search", "main")
    left = execute("SELECT indexname FROM pg_indexes WHERE indexname ~ '_embedding_old' ORDER BY 1")
    assert left == [("notes_search_embedding_old",), ("victim_embedding_old",)]
