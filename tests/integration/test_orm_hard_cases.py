"""Mapped classes where it hurts: what a fresh read of the first version found wrong."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    configure_mappers,
    declared_attr,
    mapped_column,
    with_loader_criteria,
)

from pgneural import Searchable
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import InvalidDeclaration, InvalidQuery, MissingPrivilege
from pgneural.ingest.batch import encoded
from pgneural.ingest.job import EncodeJob
from pgneural.orm import SearchBinding
from pgneural.store import queue
from pgneural.store.engine import libpq_url

Make = Callable[..., Any]


def declare(table: str = "notes", options: dict[str, Any] | None = None, args: Any = (), **namespace: Any) -> Any:
    class Base(DeclarativeBase):
        pass

    columns = {"id": mapped_column(sa.Integer, primary_key=True), "text": mapped_column(sa.Text)}
    searching = {"search": Searchable("text", **{"encoder": "hash", **(options or {})})}
    return type("Note", (Base,), {"__tablename__": table, "__table_args__": args, **columns, **searching, **namespace})


def created(engine: sa.Engine, note: Any, rows: int = 0, **values: Any) -> Any:
    note.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(note(text=f"fox {n}", **{k: v(n) for k, v in values.items()}) for n in range(rows))
        session.flush()
        note.search.sync(session)
        session.commit()
    return note


def texts(engine: sa.Engine, note: Any) -> list[str]:
    with Session(engine) as session:
        return sorted(session.scalars(sa.select(note.search.chunks.c.text)))


# what is pending


def test_a_declared_overlap_is_kept(engine: sa.Engine) -> None:
    note = created(engine, declare(options={"max_tokens": 20, "overlap": 15}))
    with Session(engine) as session:
        session.add(note(text=" ".join(f"Word{n}." for n in range(100))))
        note.search.sync(session)
        chunks = session.scalars(sa.select(note.search.chunks.c.text).order_by("ordinal")).all()
    shared = set(chunks[0].split()) & set(chunks[1].split())
    assert len(shared) == 5  # a word and its stop are two tokens; half a chunk is the most that is shared


def test_what_changes_while_it_is_encoded_stays_pending(engine: sa.Engine) -> None:
    """Also where another sync has taken the row in between, so that it is pending for a second time."""
    note = created(engine, declare())
    search: SearchBinding[Any] = note.search
    with Session(engine) as session:
        session.add(note(text="old fox"))
        session.commit()
        slow = claimed(engine, search)
        session.execute(sa.update(note).values(text="new zebra"))
        session.flush()
        search.sync(session)
        session.commit()
        slow.run()
        assert slow.shares[0].done.rows == 0
        session.execute(sa.update(note).values(text="newest ibis"))
        session.commit()
        slow = claimed(engine, search)
        batch = slow.read(slow.shares[0])
        batch.give(encoded(lambda: search.encoder, [batch], {}))
        session.execute(sa.update(note).values(text="newest gnu"))
        session.commit()
        with engine.begin() as connection:
            assert queue.collect(connection, search.space(connection).id) == 1
        slow.store(slow.shares[0], batch)
        assert slow.shares[0].done.rows == 0
        assert search.pending(session) == 1
        search.sync(engine)
    assert texts(engine, note) == ["newest gnu"]


def claimed(engine: sa.Engine, search: SearchBinding[Any]) -> EncodeJob:
    """Return a round of what is pending."""
    with engine.begin() as connection:
        queue.collect(connection, search.space(connection).id)
        kept = search.space_tables(connection)
    round_ = EncodeJob(engine, "slow", lambda: search.encoder, strict=True)
    assert round_.add(kept) == 1
    return round_


def test_two_first_syncs_at_once(engine: sa.Engine) -> None:
    note = created(engine, declare())
    with Session(engine) as first, Session(engine) as second:
        first.add(note(text="a"))
        first.commit()
        second.add(note(text="b"))
        second.commit()
        connection = first.connection()
        kept = note.search.space_tables(connection)
        kept.claim_revision(connection, "hash", note.search.encoder.revision)
        failed: list[Exception] = []

        def sync() -> None:
            try:
                note.search.sync(second)
                second.commit()
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=sync)
        thread.start()
        thread.join(0.5)
        first.commit()
        thread.join()
        assert failed == []
    assert texts(engine, note) == ["a", "b"]


def test_copy_merge_and_upsert_are_noted(engine: sa.Engine, url: str) -> None:
    note = created(engine, declare())
    with psycopg.connect(libpq_url(url)) as connection:
        with connection.cursor().copy("COPY notes FROM STDIN") as copy:
            for number in range(5):
                copy.write_row((number, f"fox {number}"))
        connection.execute(
            "MERGE INTO notes t USING (VALUES (1, 'wolf'), (9, 'owl')) s(id, text) ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET text = s.text WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.text)"
        )
        connection.execute("INSERT INTO notes VALUES (2, 'ibis') ON CONFLICT (id) DO UPDATE SET text = excluded.text")
    with Session(engine) as session:
        assert note.search.pending(session) == 6
        assert note.search.sync(session).rows == 6
        session.commit()
    assert texts(engine, note) == ["fox 0", "fox 3", "fox 4", "ibis", "owl", "wolf"]


def test_writes_into_partitions(engine: sa.Engine) -> None:
    parts = "parts_en PARTITION OF parts FOR VALUES IN ('en')", "parts_de PARTITION OF parts FOR VALUES IN ('de')"
    lang = mapped_column(sa.Text, primary_key=True)
    note = declare("parts", args={"postgresql_partition_by": "LIST (lang)"}, lang=lang)
    table = note.metadata.tables["parts"]
    with engine.begin() as connection:
        table.create(connection)
        for part in parts:
            connection.execute(sa.text(f"CREATE TABLE {part}"))
        note.metadata.create_all(connection)
        connection.execute(sa.text("INSERT INTO parts_en VALUES (1, 'fox', 'en')"))
        connection.execute(sa.text("INSERT INTO parts VALUES (2, 'owl', 'de')"))
        assert note.search.pending(connection) == 2
        note.search.sync(connection)
        connection.execute(sa.text("UPDATE parts_de SET text = 'wolf'"))
        assert note.search.pending(connection) == 1
        note.search.sync(connection)
    assert texts(engine, note) == ["fox", "wolf"]


def test_keys_do_not_depend_on_the_settings_of_a_session(engine: sa.Engine) -> None:
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
    note = declare(id=mapped_column(sa.dialects.postgresql.TIMESTAMP(timezone=True, precision=3), primary_key=True))
    created(engine, note)
    with engine.begin() as connection:
        connection.execute(sa.insert(note).values(id=at, text="fox"))
        note.search.sync(connection)
        for zone in ("Asia/Tokyo", "America/New_York"):
            connection.execute(sa.text(f"SET LOCAL timezone = '{zone}'"))
            connection.execute(sa.update(note).values(text=f"owl of {zone}"))
        assert note.search.pending(connection) == 1
        assert note.search.sync(connection).rows == 1


@pytest.mark.parametrize(
    "type_", [sa.Float, sa.REAL, sa.CHAR(8), sa.Interval, sa.LargeBinary, sa.Date, sa.Numeric(9, 2)]
)
def test_keys_of_rare_types(engine: sa.Engine, type_: Any) -> None:
    values: dict[Any, Any] = {
        sa.Interval: datetime.timedelta(days=1, seconds=5),
        sa.LargeBinary: b"a\x00b",
        sa.Date: datetime.date(2026, 1, 2),
    }
    value = values.get(type_, "abc" if isinstance(type_, sa.CHAR) else 2.5)
    note = created(engine, declare(id=mapped_column(type_, primary_key=True)))
    with Session(engine) as session:
        session.add(note(id=value, text="a fox"))
        session.flush()
        assert note.search.sync(session).rows == 1
        assert len(note.search("fox").all(session)) == 1


def test_names_with_every_character(engine: sa.Engine) -> None:
    note = declare('100% "of". Ünï:x', odd=mapped_column("50% 'off'. \"x\":y", sa.Text))
    note.by_odd = None
    other = declare('100% "of". Ünï:x', odd=mapped_column("50% 'off'. \"x\":y", sa.Text),
                    search=Searchable("text", "odd", encoder="hash"))  # fmt: skip
    created(engine, other, 3, odd=lambda n: f"odd {n}")
    with Session(engine) as session:
        assert len(other.search("odd").where(other.odd != "odd 1").all(session)) == 2
        session.execute(sa.update(other).where(other.odd == "odd 2").values(odd="even"))
        assert other.search.sync(session).rows == 1
        assert other.search("even").mode("lexical").all(session)[0].entity.odd == "even"


def test_a_renamed_column_and_a_renamed_table_keep_writers_going(engine: sa.Engine) -> None:
    note = created(engine, declare(), 2)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE notes RENAME text TO body"))
        connection.execute(sa.text("UPDATE notes SET body = 'y'"))
        connection.execute(sa.text("ALTER TABLE notes RENAME TO posts"))
        connection.execute(sa.text("UPDATE posts SET body = 'z'"))
        connection.execute(sa.text("ALTER TABLE posts RENAME TO notes"))
        connection.execute(sa.text("ALTER TABLE notes RENAME body TO text"))
        assert note.search.pending(connection) == 2


def test_a_search_whose_tables_were_dropped_can_be_made_again(engine: sa.Engine) -> None:
    note = created(engine, declare(), 2)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE notes CASCADE"))
        connection.execute(sa.text("DROP TABLE notes_search, notes_search_terms"))
    created(engine, note, 1)
    assert texts(engine, note) == ["fox 0"]


# inline


def test_inline_leaves_the_rows_of_others_alone(engine: sa.Engine) -> None:
    note = created(engine, declare(options={"sync": "inline"}), 1)
    with engine.begin() as connection:  # no session
        connection.execute(sa.insert(note), [{"text": f"others {n}"} for n in range(3)])
    with Session(engine) as mine, Session(engine) as theirs:
        mine.add(note(text="mine"))
        mine.flush()
        theirs.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        theirs.add(note(text="theirs"))
        theirs.commit()
        mine.commit()
        assert note.search.pending(mine) == 3
    assert texts(engine, note) == ["fox 0", "mine", "theirs"]


def test_inline_sees_every_way_of_writing(engine: sa.Engine) -> None:
    note = created(engine, declare(options={"sync": "inline"}))
    table = note.metadata.tables["notes"]
    with Session(engine) as session:
        session.bulk_save_objects([note(text="bulk objects")])
        session.bulk_insert_mappings(note, [{"text": "bulk mappings"}])
        session.connection().execute(sa.insert(table).values(text="connection"))
        session.scalars(sa.select(note).from_statement(sa.insert(note).values(text="returning").returning(note))).all()
        session.execute(sa.text("INSERT INTO NOTES (text) VALUES ('upper case')"))
        session.execute(sa.insert(table).values(text="before a search"))
        assert note.search("before a search").mode("lexical").all(session)[0].entity.text == "before a search"
        session.execute(sa.insert(table).values(text="around a savepoint"))
        savepoint = session.begin_nested()
        with session.begin_nested():
            session.execute(sa.insert(table).values(text="lost"))
        savepoint.rollback()
        session.commit()
        assert note.search.pending(session) == 0
    ways = ["around a savepoint", "before a search", "bulk mappings", "bulk objects", "connection", "returning"]
    assert texts(engine, note) == [*ways, "upper case"]


def test_inline_does_not_disturb_other_work(engine: sa.Engine, empty_url: str) -> None:
    note = created(engine, declare(options={"sync": "inline"}))
    other = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(libpq_url(empty_url)))
    with Session(other) as session:
        session.execute(sa.text("CREATE TABLE notes_log (id int)"))
        session.execute(sa.text("SELECT * FROM notes_log"))
        session.commit()
    other.dispose()
    with Session(engine) as session:
        session.execute(sa.text("SET TRANSACTION READ ONLY"))
        session.execute(sa.text("SELECT count(*) FROM notes"))
        session.commit()
    lite = sa.create_engine("sqlite://")
    with Session(lite) as session:
        session.execute(sa.text("SELECT 1"))
        session.commit()
    assert note.search.definition.sync == "inline"


# searches


def test_loader_criteria_hold_for_the_ranking(engine: sa.Engine) -> None:
    note = declare(deleted=mapped_column(sa.Boolean))
    created(engine, note, 100, deleted=lambda n: n < 95)
    alive = with_loader_criteria(note, note.deleted == sa.false())
    with Session(engine) as session:
        for mode in ("semantic", "lexical", "hybrid"):
            hits = note.search("fox").mode(mode).options(alive).limit(5).all(session)
            assert [hit.entity.deleted for hit in hits] == [False] * 5
        rows = session.execute(note.search("fox").where(note.id > 0).limit(5).select().options(alive)).all()
        assert len(rows) == 5

        @sa.event.listens_for(session, "do_orm_execute")
        def narrow(state: Any) -> None:
            state.statement = state.statement.options(alive)

        hits = note.search("fox").limit(10).all(session)
        assert len(hits) == 5
        assert hits.exhausted


def test_parameters_of_the_users_own_have_any_name(engine: sa.Engine) -> None:
    note = created(engine, declare(lang=mapped_column(sa.Text)), 20, lang=lambda n: "en" if n % 2 else "de")
    with Session(engine) as session:
        for name in ("text", "vector", "sparse", "rank"):
            for lang in ("en", "de"):
                hits = note.search("fox").where(note.lang == sa.bindparam(name, lang)).all(session)
                assert {hit.entity.lang for hit in hits} == {lang}
                assert len(hits) == 10
        assert len(note.search("fox").where(sa.text("lang = 'en'")).all(session)) == 10


def test_wrong_arguments_are_named(engine: sa.Engine) -> None:
    note, other = created(engine, declare(), 3), declare("others")
    with Session(engine) as session:
        with pytest.raises(InvalidQuery, match="is no Note, whose search this is"):
            note.search.like(other(id=1)).all(session)
        with pytest.raises(InvalidQuery, match="query is None"):
            note.search(None).all(session)
        unsynced = note(text="later")
        session.add(unsynced)
        session.flush()
        assert session.execute(note.search.like(unsynced).select()).all() == []
    for place in (engine, "nowhere"):
        with pytest.raises(InvalidQuery, match="is no session"):
            note.search("fox").all(place)
    with pytest.raises(InvalidQuery, match="give a session or a connection"):
        note.search.sync("nowhere")
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("x"))
    with (
        engine.connect().execution_options(schema_translate_map={None: "x"}) as connection,
        pytest.raises(InvalidQuery, match="schema_translate_map"),
    ):
        declare("elsewhere").metadata.create_all(connection)


def test_whoever_may_read_the_rows_may_search_them(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("DROP ROLE IF EXISTS looker"))
        connection.execute(sa.text("CREATE ROLE looker"))
        note = declare()
        note.metadata.tables["notes"].create(connection)
        connection.execute(sa.text("GRANT SELECT ON notes TO looker"))
        note.metadata.create_all(connection)
        connection.execute(sa.text("INSERT INTO notes VALUES (1, 'a fox')"))
        note.search.sync(connection)
        connection.execute(sa.text("INSERT INTO notes VALUES (2, 'an owl')"))
    with Session(engine) as session:
        session.execute(sa.text("SET ROLE looker"))
        assert len(note.search("fox").all(session)) == 1
        with pytest.raises(MissingPrivilege):
            note.search.sync(session)
        session.rollback()
        session.execute(sa.text("DROP OWNED BY looker"))
        session.execute(sa.text("DROP ROLE looker"))
        session.commit()


def test_adoption_takes_the_index_that_is_there(engine: sa.Engine) -> None:
    def index(operators: str, method: str = "hnsw") -> sa.Index:
        options: dict[str, Any] = {"postgresql_using": method, "postgresql_ops": {"embedding": operators}}
        return sa.Index(f"by_{operators}", "embedding", **options)

    for operators, method, distance in (
        ("vector_cosine_ops", "HNSW", "cosine"),
        ("vector_l2_ops", "ivfflat", "l2"),
        ("vector_ip_ops", "hnsw", "inner_product"),
    ):
        near = Searchable(column="embedding", encoder="vectors:8")
        note = declare(args=(index(operators, method),), embedding=mapped_column(VECTOR(8)), search=near)
        assert (note.search.definition.distance, note.search.definition.index.method) == (distance, method.lower())
    note.metadata.create_all(engine)
    vectors = np.random.default_rng(1).normal(size=(3000, 8))
    with Session(engine) as session:
        session.add_all(note(text="x", embedding=vector) for vector in vectors)
        session.flush()
        session.execute(sa.text("SET LOCAL enable_seqscan = off"))
        assert "By by_vector_ip_ops (hnsw over vector)" in str(note.search(vectors[0]).explain(session))


# declarations


def test_content_that_no_trigger_sees_is_refused() -> None:
    virtual = mapped_column(sa.Text, sa.Computed("upper(text)", persisted=False))
    with pytest.raises(InvalidDeclaration, match="computed when it is read"):
        declare(loud=virtual, search=Searchable("loud", encoder="hash"))
    with pytest.raises(InvalidDeclaration, match="names no column"):
        declare(search=Searchable(lambda cls: sa.literal_column("notes.text"), encoder="hash"))


def test_a_class_that_is_defined_again(engine: sa.Engine) -> None:
    class Base(DeclarativeBase):
        pass

    for _ in range(3):  # as in a notebook
        namespace = {
            "__tablename__": "notes",
            "__table_args__": {"extend_existing": True},
            "id": mapped_column(sa.Integer, primary_key=True),
            "text": mapped_column(sa.Text),
            "search": Searchable("text", encoder="hash"),
        }
        with pytest.warns(sa.exc.SAWarning) if _ else _nothing():
            note: Any = type("Note", (Base,), namespace)
        configure_mappers()
    created(engine, note, 2)
    with Session(engine) as session:
        assert len(note.search("fox").all(session)) == 2
        assert note.search("fox").all(session)[0].entity.search_chunks
    with pytest.raises(InvalidDeclaration, match="has the name of one of the search's"):
        declare("clash", search_terms=Searchable("text", encoder="hash"))


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_mixins_with_columns_and_declared_attr(engine: sa.Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Written:
        id: Mapped[int] = mapped_column(primary_key=True)
        text = mapped_column(sa.Text)
        search = Searchable(text, encoder="hash")

    class Note(Written, Base):
        __tablename__ = "notes"

    created(engine, Note, 2)
    with Session(engine) as session:
        assert len(Note.search("fox").all(session)) == 2

    with pytest.raises(AttributeError, match="body of a class"):

        class Late(Base):
            __tablename__ = "late"
            id: Mapped[int] = mapped_column(primary_key=True)
            text: Mapped[str]

            @declared_attr.directive
            @classmethod
            def search(cls) -> Any:
                return Searchable("text", encoder="hash")

        Late.search("x")


def test_encoders_are_shared() -> None:
    one, two = declare("one"), declare("two")
    assert one.search.encoder is two.search.encoder
    assert isinstance(one.search.encoder, HashEncoder)


@pytest.mark.parametrize("first", ["pgneural.migrate.operations", "alembic", "pgneural", "pgneural.migrate.render"])
def test_any_module_may_be_imported_first(first: str) -> None:
    code = f"import {first}; from alembic import op; import alembic.command; import pgneural; assert op.create_search"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
