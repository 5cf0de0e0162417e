"""Sparse vectors and vectors of tokens of tables: mapped classes, watched tables, workers, switches, and rights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Database, LateInteraction, Searchable, TableSearch
from pgneural.cli import main
from pgneural.encoders.extra import MultiVectorTransformerEncoder, SparseTransformerEncoder
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import InvalidQuery, InvalidSpace, TransactionConflict, UnknownSpace, UnpermittedModel
from pgneural.ingest.job import drain
from pgneural.store import queue
from pgneural.store.definition import change_statements
from pgneural.store.space import extra_spaces
from pgneural.store.space_tables import SpaceTables
from pgneural.store.spaces import named, patiently
from pgneural.types import Mode
from pgneural.worker import Worker
from tests.fixtures.tables import Execute
from tests.integration.test_further import QUERY, closely, texts

ROWS = 40


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    search = Searchable("body", encoder="hash")


def work(url: str) -> None:
    Worker(url, as_superuser=True).run(once=True)


def scores(found: Any) -> dict[int, float]:
    return {hit.entity.id: hit.score for hit in found}


def best(expected: dict[int, float], n: int) -> list[float]:
    return sorted(expected.values(), reverse=True)[:n]


def sparsely(folder: Path, every: list[str]) -> dict[int, float]:
    encoder = SparseTransformerEncoder(folder)
    query = encoder.encode_query(QUERY)
    return {n: float(v @ query) for n, v in enumerate(encoder.encode_documents(every))}


def by_token(folder: Path, every: list[str]) -> dict[int, float]:
    encoder = MultiVectorTransformerEncoder(folder)
    query = encoder.encode_query(QUERY)
    return {n: float((query @ d.T).max(1).sum()) for n, d in enumerate(encoder.encode_documents(every))}


@pytest.fixture
def filled(db: Database) -> list[str]:
    every = texts(ROWS)
    Base.metadata.create_all(db.engine)
    with Session(db.engine) as session:
        session.add_all(Note(id=n, body=text) for n, text in enumerate(every))
        session.commit()
    return every


@pytest.fixture
def table(db: Database, filled: list[str], tiny_sparse: Path, tiny_late: Path, url: str) -> TableSearch[Any]:
    work(url)  # the rows have chunks before the search has further vectors
    db.add_vectors("notes.search", sparse=tiny_sparse, late=tiny_late)
    work(url)
    return db.table("notes.search")


def counts(execute: Execute, name: str = "notes_search") -> tuple[int, ...]:
    (row,) = execute(
        f"SELECT (SELECT count(*) FROM {name}), (SELECT count(*) FROM {name}_sparse),"  # noqa: S608
        f" (SELECT count(*) FROM {name}_tokens)"
    )
    return tuple(row)


def test_tables_have_a_sparse_leg(
    table: TableSearch[Any], filled: list[str], tiny_sparse: Path, execute: Execute
) -> None:
    assert counts(execute) == (ROWS, ROWS, ROWS)
    expected = sparsely(tiny_sparse, filled)
    assert closely_of(table.search(QUERY, mode="sparse", limit=8), expected)
    odd = table.search(QUERY, mode="sparse", limit=8, where="id % 2 = 1")
    assert closely_of(odd, {n: score for n, score in expected.items() if n % 2})
    hybrid = table.search(QUERY)
    assert {"semantic", "lexical", "sparse"} >= set(hybrid[0].legs) >= {"semantic", "sparse"}
    assert "sparse" in table.modes
    assert "sparse" in str(table.explain(QUERY, mode="sparse").hits[0].legs)
    assert closely_of(table.search("fox", mode="sparse", inputs={"sparse": QUERY}, limit=3), expected)


def closely_of(found: Any, expected: dict[int, float]) -> bool:
    """As `closely`, for rows whose key is a number."""
    assert [hit.score for hit in found] == pytest.approx(best(expected, len(found)), rel=2e-2, abs=2e-2)
    return all(expected[key] == pytest.approx(score, rel=2e-2, abs=2e-2) for key, score in scores(found).items())


def test_tables_are_compared_by_token(table: TableSearch[Any], filled: list[str], tiny_late: Path) -> None:
    found = table.search(QUERY, limit=5, rerank=LateInteraction(candidates=ROWS))
    assert closely_of(found, by_token(tiny_late, filled))


def test_mapped_classes_have_both(
    table: TableSearch[Any], db: Database, filled: list[str], tiny_sparse: Path, tiny_late: Path
) -> None:
    with Session(db.engine) as session:
        found = Note.search(QUERY).mode("sparse").limit(6).all(session)
        assert closely_of(found, sparsely(tiny_sparse, filled))
        compared = Note.search(QUERY).rerank(LateInteraction(candidates=ROWS)).limit(4).all(session)
        assert closely_of(compared, by_token(tiny_late, filled))
        hybrid = Note.search(QUERY).limit(5)
        assert "sparse" in hybrid.all(session)[0].legs
        rows = session.execute(hybrid.select()).all()
        assert [row[0].id for row in rows] == [hit.entity.id for hit in hybrid.all(session)]
        assert rows[0].sparse == pytest.approx(hybrid.all(session)[0].legs["sparse"])


def test_further_vectors_follow_their_rows(
    table: TableSearch[Any], db: Database, execute: Execute, tiny_sparse: Path, url: str
) -> None:
    with Session(db.engine) as session:
        changed = session.get_one(Note, 7)
        changed.body = QUERY
        session.delete(session.get_one(Note, 8))
        session.flush()
        assert Note.search.sync(session).rows == 2
        session.commit()
    assert counts(execute) == (ROWS - 1,) * 3
    own = SparseTransformerEncoder(tiny_sparse).encode_query(QUERY)
    assert scores(table.search(QUERY, mode="sparse", limit=ROWS))[7] == pytest.approx(float(own @ own), rel=1e-2)
    execute("UPDATE notes SET body = 'quite another text' WHERE id = 9")
    Note.search.sync(db.engine)
    assert counts(execute) == (ROWS - 1,) * 3
    execute("ALTER TABLE notes ALTER COLUMN id TYPE bigint")
    execute("SELECT neural.reconcile('notes')")
    execute("UPDATE notes SET id = 10000000000 WHERE id = 9")
    work(url)
    assert counts(execute) == (ROWS - 1,) * 3
    execute("CREATE SCHEMA other")
    execute("ALTER TABLE notes SET SCHEMA other")
    execute("SELECT neural.reconcile('other.notes')")
    assert counts(execute, "other.notes_search") == (ROWS - 1,) * 3
    assert len(db.table("other.notes.search").search(QUERY, mode="sparse", limit=ROWS)) == ROWS - 1
    execute("TRUNCATE other.notes")
    work(url)
    assert counts(execute, "other.notes_search") == (0, 0, 0)


def test_switches_take_further_vectors_along(
    table: TableSearch[Any], db: Database, filled: list[str], tiny_sparse: Path, execute: Execute, url: str
) -> None:
    db.create_space("notes.search", "small", max_tokens=4, overlap=0)
    assert [space.extra for space in db.spaces("notes.search")] == [["sparse", "tokens"]] * 2
    work(url)
    db.switch_space("notes.search", "small")
    assert len(table.search(QUERY, mode="sparse", limit=5)) == 5
    short, long = counts(execute, "notes_search_small"), counts(execute)
    assert len(set(short)) == 1
    assert short[0] > long[0] == ROWS
    db.drop_space("notes.search", "main")
    assert counts(execute) == short
    assert len(db.table("notes.search").search(QUERY, mode="sparse", limit=5)) == 5
    db.create_space("notes.search", "again")
    work(url)
    db.switch_space("notes.search", "again")
    db.rollback_space("notes.search")
    db.drop_space("notes.search", "again")
    assert [space.name for space in db.spaces("notes.search")] == ["small"]
    db.drop_vectors("notes.search", "sparse")
    assert [space.extra for space in db.spaces("notes.search")] == [["tokens"]]
    with pytest.raises(InvalidQuery, match="pgneural space add-vectors public.notes.search --sparse-encoder FOLDER"):
        db.table("notes.search").search(QUERY, mode="sparse")


def test_a_search_with_further_vectors_is_dropped(table: TableSearch[Any], db: Database, execute: Execute) -> None:
    with pytest.raises(InvalidSpace, match="has vectors of kind sparse already"):
        execute_vectors(db, "notes", "sparse")
    with pytest.raises(InvalidSpace, match="expected sparse or tokens"):
        execute_vectors(db, "notes", "dense")
    with pytest.raises(UnknownSpace):
        db.add_vectors("nothing.search", sparse="x")
    with db.engine.begin() as connection:
        Base.metadata.drop_all(connection)
    assert execute("SELECT relname FROM pg_class WHERE relname LIKE 'notes%'") == []
    assert execute("SELECT 1 FROM neural.spaces") == []


def test_further_vectors_are_dropped_while_they_are_searched(
    table: TableSearch[Any], db: Database, filled: list[str], tiny_sparse: Path
) -> None:
    notes = db.collection("both", encoder="hash", sparse=tiny_sparse)
    notes.index({"id": str(n), "text": text} for n, text in enumerate(filled))
    with Session(db.engine) as session:
        assert "sparse" in Note.search(QUERY).all(session)[0].legs
    assert "sparse" in notes.search(QUERY)[0].legs
    for search in ("notes.search", "both"):
        db.drop_vectors(search, "sparse")
    with Session(db.engine) as session, pytest.raises(TransactionConflict, match="search again"):
        Note.search(QUERY).all(session)
    with Session(db.engine) as session:
        assert set(Note.search(QUERY).all(session)[0].legs) <= {"semantic", "lexical"}
    assert set(notes.search(QUERY)[0].legs) <= {"semantic", "lexical"}


def test_a_class_is_searched_in_several_databases(
    table: TableSearch[Any], db: Database, empty_url: str, url: str
) -> None:
    db.create_space("notes.search", "small", options={"dimensions": 32}, dimensions=32)
    work(url)
    db.switch_space("notes.search", "small")
    query = Note.search(QUERY).limit(3)
    with Database(empty_url) as other:
        other.upgrade()
        Base.metadata.create_all(other.engine)
        with Session(other.engine) as session:
            session.add(Note(id=1, body="how do vaccines work"))
            session.flush()
            Note.search.sync(session)
            session.commit()
        with Session(db.engine) as here, Session(other.engine) as there:
            for _ in range(2):
                assert "sparse" in query.all(here)[0].legs
                assert set(query.all(there)[0].legs) == {"semantic", "lexical"}
            assert Note.search.searcher(there.connection()).resolved.name == "notes_search"
            assert Note.search.searcher(here.connection()).resolved.name == "notes_search_small"


def execute_vectors(db: Database, source: str, kind: str) -> None:
    values = {"source": source, "kind": kind}
    patiently(db.engine, "SELECT neural.add_vectors(to_regclass(:source), 'search', :kind, 'x', 3)", values)


def test_watched_tables_in_sql_and_the_shell(
    db: Database, execute: Execute, tiny_sparse: Path, url: str, filled: list[str]
) -> None:
    execute("CREATE TABLE pets (a text, b int, body text, PRIMARY KEY (a, b))")
    execute("INSERT INTO pets SELECT 'p', n, 'quick vaccines ' || n FROM generate_series(1, 30) n")
    execute("SELECT neural.watch('pets', '{body}', encoder => 'hash')")
    run = CliRunner(env={"PGNEURAL_DATABASE_URL": url})
    made = run.invoke(main, ["space", "add-vectors", "pets.search", "--sparse-encoder", str(tiny_sparse)])
    assert made.exit_code == 0, made.output
    assert "sparse" in made.output
    work(url)
    found = run.invoke(main, ["search", "pets.search", QUERY, "--mode", "sparse", "--json", "--limit", "4"])
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.output)["hits"]) == 4
    assert execute("SELECT count(*) FROM pets_search_sparse") == [(30,)]
    execute("SELECT neural.unwatch('pets')")
    assert execute("SELECT relname FROM pg_class WHERE relname LIKE 'pets_search%'") == []


def test_further_vectors_are_as_visible_as_their_rows(
    table: TableSearch[Any], execute: Execute, login: Any, url: str
) -> None:
    reader = login("reader")
    execute("SELECT neural.grant_reader('reader')")
    execute("GRANT SELECT ON notes TO reader")
    execute("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
    execute("CREATE POLICY few ON notes USING (id < 5)")
    execute("SELECT neural.reconcile('notes')")
    with psycopg.connect(reader) as connection:
        for name in ("notes_search", "notes_search_sparse", "notes_search_tokens"):
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (5,)  # noqa: S608
    with Database(reader) as database:
        hits = database.table("notes.search").search(QUERY, mode="sparse", limit=20)
        assert sorted(scores(hits)) == [0, 1, 2, 3, 4]


def test_a_worker_without_the_model_says_so(db: Database, filled: list[str], execute: Execute, url: str) -> None:
    work(url)
    execute("SELECT neural.add_vectors('notes', 'search', 'sparse', '/nowhere/model', 30)")
    work(url)
    ((problem,),) = execute("SELECT problem FROM neural.spaces WHERE kind = 'dense'")
    assert "/nowhere/model" in problem
    assert "does not permit" in problem
    with Session(db.engine) as session:
        with pytest.warns(UserWarning, match="without its sparse leg: the database names model '/nowhere/model'"):
            found = Note.search("fox").all(session)
        assert set(found[0].legs) <= {"semantic", "lexical"}
        with pytest.raises(UnpermittedModel):
            Note.search("fox").mode("sparse").all(session)
    execute("SELECT neural.drop_vectors('notes', 'search')")
    work(url)
    assert execute("SELECT count(*) FROM notes_search") == [(ROWS,)]


def test_collections_take_further_vectors_to_another_model(
    db: Database, tiny_sparse: Path, tiny_late: Path, url: str
) -> None:
    made = db.collection("both", encoder="hash", sparse=tiny_sparse, late=tiny_late)
    made.index({"id": str(n), "text": text} for n, text in enumerate(texts(ROWS)))
    expected = {str(n): score for n, score in sparsely(tiny_sparse, texts(ROWS)).items()}
    db.create_space("both", "small", options={"dimensions": 32}, dimensions=32)
    work(url)
    db.switch_space("both", "small")
    assert closely(db.existing("both").search(QUERY, mode="sparse", limit=6), expected)
    assert closely(made.search(QUERY, mode="sparse", limit=6), expected)
    made.index({"id": "0", "text": QUERY})
    db.drop_space("both", "main")
    (changed,) = db.existing("both").search(QUERY, mode="sparse", where="external_id = '0'")
    own = SparseTransformerEncoder(tiny_sparse).encode_query(QUERY)
    assert changed.score == pytest.approx(float(own @ own), rel=1e-2)
    assert len(db.existing("both").search(QUERY, rerank=LateInteraction(), limit=3)) == 3
    with db.engine.connect() as connection:
        left = connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relname LIKE 'documents_both%'")).all()
    assert left == []
    db.drop("both")


def test_spaces_are_compared_as_they_are_searched(db: Database, execute: Execute, tiny_sparse: Path, url: str) -> None:
    """Keys of several columns, legs of every kind, and rows that are not indexed yet."""
    execute("CREATE TABLE pets (a text, b int, body text, PRIMARY KEY (a, b))")
    execute("INSERT INTO pets SELECT 'p', n, 'quick vaccines ' || n FROM generate_series(1, 30) n")
    execute("SELECT neural.watch('pets', '{body}', encoder => 'hash')")
    db.add_vectors("pets.search", sparse=tiny_sparse)
    db.create_space("pets.search", "small", options={"dimensions": 32}, dimensions=32)
    work(url)
    execute("INSERT INTO pets VALUES ('p', 31, 'a pangolin')")
    judged = {"q": {'["p", "31"]': 1}}
    for mode in (Mode.LEXICAL, Mode.HYBRID):
        compared = db.compare_spaces("pets.search", "small", {"q": "pangolin"}, judged, mode=mode, k=1)
        assert compared.overlap == 1
        assert [space.mean["ndcg@10"] for space in compared.spaces] == [1.0, 1.0], mode
    sparse = db.compare_spaces("pets.search", "small", {"q": QUERY}, mode=Mode.SPARSE)
    assert sparse.overlap == 1


def test_a_search_with_further_vectors_is_changed(table: TableSearch[Any], db: Database, execute: Execute) -> None:
    """A migration that changes the language changes the row of the search, and not those of its further vectors."""
    definition = Note.search.definition
    with db.engine.begin() as connection:
        for statement in change_statements(definition, replace(definition, language="german")):
            connection.execute(statement)
    rows = execute("SELECT kind, chunk_table, language FROM neural.spaces ORDER BY kind")
    assert rows == [
        ("dense", "notes_search", "german"),
        ("sparse", "notes_search_sparse", "english"),
        ("tokens", "notes_search_tokens", "english"),
    ]


def test_rows_that_are_claimed_after_vectors_were_added_get_them(
    db: Database, filled: list[str], tiny_sparse: Path, execute: Execute
) -> None:
    with db.engine.begin() as connection:
        space = named(connection, "public.notes.search")
        tables = SpaceTables.of(connection, space)  # as of before
        queue.collect(connection, space.id)
    db.add_vectors("notes.search", sparse=tiny_sparse)
    with db.engine.begin() as connection:
        queue.collect(connection, space.id)
    drain(db.engine, tables, HashEncoder)
    assert execute("SELECT count(*) FROM notes_search_sparse") == [(ROWS,)]


def test_a_row_that_the_model_refuses_does_not_stop_the_others(
    db: Database, filled: list[str], tiny_sparse: Path, execute: Execute, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = SparseTransformerEncoder.encode_documents

    def picky(self: SparseTransformerEncoder, items: Sequence[str]) -> Any:
        if filled[3] in items:
            raise ValueError("not this one")
        return usual(self, items)

    monkeypatch.setattr(SparseTransformerEncoder, "encode_documents", picky)
    db.add_vectors("notes.search", sparse=tiny_sparse)
    work(url)
    assert execute("SELECT count(*) FROM notes_search_sparse") == [(ROWS - 1,)]
    ((error,),) = execute("SELECT error FROM neural.pending")
    assert "not this one" in error


def test_nobody_drops_a_table_because_a_catalog_row_names_it(
    db: Database, filled: list[str], execute: Execute, tiny_sparse: Path
) -> None:
    db.add_vectors("notes.search", sparse=tiny_sparse)
    execute("CREATE TABLE precious (id int)")
    execute("CREATE ROLE mallory")
    execute("CREATE TABLE theirs (id int PRIMARY KEY, body text)")
    execute("SELECT neural.watch('theirs', '{body}', encoder => 'hash')")
    execute("ALTER TABLE notes OWNER TO mallory")
    execute("GRANT SELECT ON notes TO public")
    for name in ("precious", "theirs_search"):
        execute("UPDATE neural.spaces SET chunk_table = %s WHERE kind = 'sparse'", name)
        execute("SELECT neural.grant_reader('public')")  # which warns of it, and goes on with others
        for call in ("drop_vectors('notes', 'search')", "unwatch('notes')", "reconcile('notes')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="but is none"):
                execute(f"SELECT neural.{call}")
    owners = execute("SELECT relowner::regrole::text FROM pg_class WHERE relname IN ('precious', 'theirs_search')")
    assert owners == [("postgres",)] * 2
    assert execute("SELECT count(*) FROM precious") == [(0,)]
    execute("DROP OWNED BY mallory CASCADE")
    execute("DROP ROLE mallory")


def test_vectors_of_a_table_that_had_the_name_before_are_not_taken(
    table: TableSearch[Any], db: Database, execute: Execute, url: str
) -> None:
    """The catalog still has the sparse vectors of a table that was renamed, and another table has its name now."""
    execute("ALTER TABLE notes RENAME TO evil")
    execute("DELETE FROM neural.spaces WHERE kind <> 'sparse'")
    execute("ALTER TABLE notes_search RENAME TO evil_search")
    execute("ALTER TABLE notes_search_terms RENAME TO evil_search_terms")
    execute("ALTER INDEX notes_search_pkey RENAME TO evil_pkey")
    execute("ALTER INDEX notes_search_terms_pkey RENAME TO evil_terms_pkey")
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    execute("INSERT INTO notes VALUES (1, 'a fox')")
    execute(
        "INSERT INTO neural.spaces (source, relation, attribute, chunk_table, encoder, revision, dimensions, distance,"
        " max_tokens, overlap, reads)"
        " VALUES ('public.notes', 'notes'::regclass, 'search', 'notes_search', 'hash', '', 256, 'cosine', 512, 64, '-')"
    )
    with db.engine.begin() as connection:
        space = named(connection, "public.notes.search")
        assert extra_spaces(connection, space) == {}
    assert execute("SELECT neural.extra_tables(%s)", space.id) == []
