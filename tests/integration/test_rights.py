"""Nobody gains a right by anything of ours: takeovers that were possible, and others of their kind, have no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from pgneural import Database
from pgneural.encoders.permitted import permit, permitted
from pgneural.errors import MissingPrivilege, UnpermittedModel
from pgneural.store.engine import libpq_url
from pgneural.worker import Worker
from tests.fixtures.roles import Login
from tests.fixtures.tables import Execute


def run(url: str, *statements: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def refused(url: str, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            run(url, statement)


@pytest.fixture
def owner(login: Login, execute: Execute) -> str:
    """An owner of a table with a search, who may make searches and nothing else of ours."""
    url = login("mine")
    execute("SELECT neural.grant_owner('mine')")
    run(
        url,
        "CREATE TABLE mine.notes (id int PRIMARY KEY, body text)",
        "SELECT neural.watch('mine.notes', '{body}', encoder => 'hash')",
        "INSERT INTO mine.notes SELECT n, 'fox ' || n FROM generate_series(1, 5) n",
    )
    return url


@pytest.fixture
def worker(login: Login, execute: Execute, owner: str) -> str:
    url = login("encoding")
    execute("SELECT neural.grant_worker('encoding')")
    return url


def test_no_function_with_more_rights_is_for_everybody(execute: Execute) -> None:
    found = execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'neural'::regnamespace"
        " AND (prosecdef OR prorettype = 'trigger'::regtype) AND has_function_privilege('public', oid, 'EXECUTE')"
    )
    assert found == []
    open_ = execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'neural'::regnamespace AND prosecdef"
        " AND NOT coalesce(proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}'"
    )
    assert open_ == []


def test_nothing_resolves_by_a_path_that_others_can_write_to(execute: Execute) -> None:
    """But for what reads what an owner has written: workers do that as the owner."""
    found = execute(
        "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'neural'::regnamespace AND prosqlbody IS NULL"
        " AND NOT coalesce(proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}' ORDER BY 1"
    )
    reads = {"index_words", "index_words_singly", "collect", "take", "reconcile", "reconcile_space", "reconcile_slice"}
    assert {name for (name,) in found} <= reads | {"changed_counts", "unreadable"}


def test_a_schema_named_like_a_role_is_left_out_where_another_made_it(url: str, login: Login) -> None:
    stranger = login("stranger")
    run(url, "GRANT CREATE ON DATABASE {} TO stranger".format(run(url, "SELECT current_database()")[0][0]))
    trap = "AS $$ BEGIN RAISE EXCEPTION 'taken by %', current_user; END $$ LANGUAGE plpgsql"
    run(
        stranger,
        "CREATE SCHEMA postgres",
        f"CREATE FUNCTION postgres.format(text, text) RETURNS text {trap}",
        f"CREATE FUNCTION postgres.concat_ws(text, text, text) RETURNS text {trap}",
        f"CREATE FUNCTION postgres.cardinality(smallint[]) RETURNS int {trap}",
        f"CREATE FUNCTION postgres.count(text) RETURNS bigint {trap}",
    )
    with Database(url) as db:
        assert db.upgrade().current
        assert db.check().current
        db.collection("notes", encoder="hash").index([{"id": "1", "text": "quick foxes"}])
        assert len(db.collection("notes").search("fox")) == 1
        with db.engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW search_path").scalar() == "public"
            assert connection.exec_driver_sql("SELECT current_user").scalar() == "postgres"
    own = make_conninfo(libpq_url(url), user="stranger")
    with Database(own) as db, db.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT current_schema()").scalar() == "stranger"


def test_a_function_in_the_schema_of_a_source_does_not_stand_in_for_the_server_s(owner: str, login: Login) -> None:
    """Whoever may make functions there had the owner call them: by watch, unwatch and spaces."""
    guest = login("guest")
    run(owner, "GRANT USAGE, CREATE ON SCHEMA mine TO guest")
    trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'taken by %', current_user; END $$"
    signatures = [
        f"{name}({', '.join(['text'] * length)}) RETURNS {returns}"
        for name, returns in (("format", "text"), ("concat_ws", "text"), ("jsonb_build_array", "jsonb"))
        for length in range(1, 9)
    ]
    signatures += [
        "cardinality(text[]) RETURNS int", "unnest(text[]) RETURNS SETOF text", "count(text) RETURNS bigint",
        "array_agg(text) RETURNS text[]", "to_jsonb(text) RETURNS jsonb", "array_length(text[], int) RETURNS int",
    ]  # fmt: skip
    run(guest, *(f"CREATE FUNCTION mine.{signature} {trap}" for signature in signatures))
    run(
        owner,
        "ALTER TABLE mine.notes ADD title text, ADD further text",
        "SELECT neural.unwatch('mine.notes')",
        "SELECT neural.watch('mine.notes', '{title,body,further}', encoder => 'hash')",
        "SELECT neural.create_space('mine.notes', 'search', 'new', 'hash', 64)",
        "SELECT neural.take(s.id, 100, false) FROM neural.spaces s WHERE s.source = 'mine.notes' ORDER BY s.id",
        "SELECT neural.switch_space('mine.notes', 'search', 'new', true)",
        "SELECT neural.rollback_space('mine.notes', 'search')",
        "SELECT neural.drop_space('mine.notes', 'search', 'new')",
        "SELECT * FROM neural.reconcile('mine.notes')",
        "SELECT neural.unwatch('notes')",
    )


def test_who_searches_a_table_by_name_runs_nothing_that_its_owner_wrote(owner: str, execute: Execute, url: str) -> None:
    """The SELECT of the catalog is the owner's text, and a cast the owner's function; both ran as the reader."""
    run(
        owner,
        "CREATE FUNCTION mine.spy(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
        " IF current_user <> 'mine' THEN RAISE EXCEPTION 'taken by %', current_user; END IF; RETURN $1; END $$",
    )
    execute(
        "UPDATE neural.spaces SET reads = 'SELECT s.id AS source_id, NULL::text AS title,"
        " mine.spy(s.body) AS content, NULL::text AS language FROM mine.notes s'"
    )
    with Database(url) as database:
        assert len(database.table("mine.notes.search").search("fox", mode="lexical")) == 5
        database.create_space("mine.notes.search", "new", encoder="hash", options={"dimensions": 64})
        Worker(libpq_url(url), as_superuser=True).run(once=True)
        compared = database.compare_spaces("mine.notes.search", "new")
        assert (compared.queries, compared.overlap) == (5, 1)
    run(
        owner,
        "CREATE TYPE mine.odd AS (text text)",
        "CREATE FUNCTION mine.shown(mine.odd) RETURNS text LANGUAGE sql AS 'SELECT mine.spy(($1).text)'",
        "CREATE CAST (mine.odd AS text) WITH FUNCTION mine.shown(mine.odd)",
        "CREATE TABLE mine.odds (id int PRIMARY KEY, body mine.odd)",
        "SELECT neural.watch('mine.odds', '{body}', encoder => 'hash')",
        "INSERT INTO mine.odds VALUES (1, ROW('fox'))",
    )
    with Database(url) as database:
        odds = database.table("mine.odds.search")
        assert not odds.search("fox", mode="lexical")
        Worker(libpq_url(url), as_superuser=True).run(once=True)
        assert len(odds.search("fox", mode="lexical")) == 1


@pytest.mark.parametrize("function", ["forget_changes", "note_documents", "note_changes", "count_terms", "guard_space"])
def test_triggers_of_ours_are_not_for_tables_of_others(login: Login, function: str) -> None:
    stranger = login("stranger")
    run(stranger, "CREATE TABLE stranger.bait (id int PRIMARY KEY)")
    refused(
        stranger,
        "CREATE TRIGGER t AFTER DELETE ON stranger.bait REFERENCING OLD TABLE AS dropped"
        f" FOR EACH STATEMENT EXECUTE FUNCTION neural.{function}()",
    )


def test_a_cast_of_an_owner_runs_as_who_writes(owner: str, login: Login, execute: Execute, url: str) -> None:
    """It ran as the owner of schema neural, a superuser, whoever wrote."""
    writer = login("writing")
    run(
        owner,
        "CREATE TABLE mine.seen (who text)",
        "CREATE TYPE mine.odd AS (text text)",
        "CREATE FUNCTION mine.shown(mine.odd) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO mine.seen VALUES (current_user); RETURN ($1).text; END $$",
        "CREATE CAST (mine.odd AS text) WITH FUNCTION mine.shown(mine.odd)",
        "ALTER TABLE mine.notes ALTER body TYPE mine.odd USING ROW(body)",
        "GRANT USAGE ON SCHEMA mine TO writing",
        "GRANT SELECT, INSERT, UPDATE ON mine.notes, mine.seen TO writing",
    )
    run(writer, "UPDATE mine.notes SET body = ROW('owl') WHERE id = 1")
    run(libpq_url(url), "UPDATE mine.notes SET body = ROW('gnu') WHERE id = 2")
    assert {who for (who,) in execute("SELECT who FROM mine.seen")} <= {"writing", "postgres"}
    execute("DELETE FROM mine.seen")
    run(writer, "UPDATE mine.notes SET body = ROW('ibis') WHERE id = 3")
    assert {who for (who,) in execute("SELECT who FROM mine.seen")} == {"writing"}


def test_a_worker_runs_what_an_owner_has_made_as_the_owner(
    owner: str, worker: str, execute: Execute, login: Login
) -> None:
    """Casts, triggers of chunk tables, defaults, and functions that are found before the server's own."""
    run(
        owner,
        "CREATE TABLE mine.seen (who text)",
        "CREATE FUNCTION mine.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO mine.seen VALUES ('trigger ' || current_user); RETURN NULL; END $$",
        "CREATE TRIGGER spy AFTER INSERT ON mine.notes_search FOR EACH STATEMENT EXECUTE FUNCTION mine.spy()",
        "CREATE TRIGGER spy AFTER INSERT ON mine.notes_search_terms FOR EACH STATEMENT EXECUTE FUNCTION mine.spy()",
        "CREATE FUNCTION mine.cardinality(smallint[]) RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO mine.seen VALUES ('cardinality ' || current_user); RETURN 1; END $$",
        "CREATE FUNCTION mine.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO mine.seen VALUES ('lower ' || current_user); RETURN 'x'; END $$",
    )
    done = Worker(worker)
    done.run(once=True)
    assert done.problems == []
    assert {who for (who,) in execute("SELECT who FROM mine.seen")} == {"trigger mine"}
    assert execute("SELECT count(*) FROM mine.notes_search") == [(5,)]
    assert execute("SELECT DISTINCT owner FROM neural.vectors") == [("mine",)]
    assert execute("SELECT DISTINCT tableowner::text FROM pg_tables WHERE tablename LIKE 'notes_search%'") == [
        ("mine",)
    ]


def test_a_worker_is_no_superuser_unless_told(url: str, notes: Execute) -> None:
    with pytest.raises(MissingPrivilege, match="postgres, a superuser"):
        Worker(libpq_url(url)).run(once=True)
    Worker(libpq_url(url), as_superuser=True).run(once=True)
    assert notes("SELECT count(*) FROM notes_search") == [(20,)]


def test_a_worker_that_may_not_act_as_an_owner_says_so(owner: str, login: Login, execute: Execute) -> None:
    url = login("encoding")
    execute("GRANT INSERT, SELECT, UPDATE, DELETE ON neural.workers, neural.work TO encoding")
    idle = Worker(url)
    idle.run(once=True)
    assert "role encoding may not act as mine, who owns table mine.notes" in idle.problems[0]
    assert "may not act as mine" in execute("SELECT problem FROM neural.status")[0][0]
    execute("GRANT mine TO encoding")
    Worker(url).run(once=True)
    assert execute("SELECT count(*) FROM mine.notes_search") == [(5,)]


def test_rows_that_the_owner_himself_does_not_see_are_not_taken_for_deleted(
    owner: str, worker: str, execute: Execute
) -> None:
    Worker(worker).run(once=True)
    run(owner, "ALTER TABLE mine.notes ENABLE ROW LEVEL SECURITY", "ALTER TABLE mine.notes FORCE ROW LEVEL SECURITY")
    execute("UPDATE mine.notes SET body = 'owl'")
    blind = Worker(worker)
    blind.run(once=True)
    assert "row-level security may hide rows of table mine.notes from role mine" in blind.problems[0]
    assert execute("SELECT count(*) FROM mine.notes_search") == [(5,)]


def test_others_see_and_change_nothing_of_a_source(owner: str, login: Login, execute: Execute, worker: str) -> None:
    execute("SELECT neural.collect(id) FROM neural.spaces")
    Worker(worker).run(once=True)
    execute("UPDATE mine.notes SET body = 'owl'")
    other = login("other")
    for call in ("reader", "application", "owner"):
        execute(f"SELECT neural.grant_{call}('other')")
    for table in ("spaces", "changes", "pending", "failed", "term_counts", "corpus_counts", "vectors", "work"):
        assert run(other, f"SELECT count(*) FROM neural.{table}") == [(0,)], table
    assert run(other, "SELECT count(*) FROM neural.status") == [(0,)]
    space = execute("SELECT id FROM neural.spaces")[0][0]
    noted = "SELECT (SELECT count(*) FROM neural.changes), (SELECT array_agg(revision) FROM neural.spaces)"
    before = execute(noted)
    refused(
        other,
        f"INSERT INTO neural.changes (space_id, keys, rows) VALUES ({space}, '[[1]]', 1)",
        f"INSERT INTO neural.pending (space_id, key, version, changed_at) VALUES ({space}, '[9]', 1, now())",
        f"INSERT INTO neural.term_counts VALUES ({space}, 'english', 'fox', 1000)",
        f"INSERT INTO neural.corpus_counts VALUES ({space}, 'english', 1000, 1000)",
        f"INSERT INTO neural.failed VALUES ({space}, '[1]', 'x', 1)",
        "INSERT INTO neural.spaces (source, attribute, chunk_table, encoder, revision, dimensions, distance, max_tokens, overlap)"
        " VALUES ('mine.notes', 'b', 'b', 'hash', '', 3, 'cosine', 9, 1)",
        "INSERT INTO neural.vectors (owner, encoder, revision, hash, embedding) VALUES ('mine', 'hash', '', '', '[1]')",
        "SELECT neural.watch('mine.notes', '{body}', attribute => 'b', encoder => 'hash')",
        "SELECT * FROM mine.notes_search",
    )
    for statement in (
        "UPDATE neural.spaces SET revision = 'x'",
        "DELETE FROM neural.changes",
        "DELETE FROM neural.spaces",
    ):
        run(other, statement)
    assert execute(noted) == before


def test_who_may_write_a_table_does_not_change_what_is_read_of_it(owner: str, login: Login, execute: Execute) -> None:
    writer = login("writing")
    execute("GRANT USAGE ON SCHEMA mine TO writing")
    execute("GRANT SELECT, INSERT, UPDATE ON mine.notes TO writing")
    refused(
        writer,
        "UPDATE neural.spaces SET reads = 'SELECT 1'",
        "UPDATE neural.spaces SET encoder = '/tmp/x'",
        "UPDATE neural.spaces SET chunk_table = 'x'",
        "DELETE FROM mine.notes_search",
    )
    run(writer, "DELETE FROM neural.spaces")
    assert execute("SELECT count(*) FROM neural.spaces") == [(1,)]
    with pytest.raises(errors.DatabaseError, match="which pgvector has not"):
        run(owner, "UPDATE neural.spaces SET storage = 'vector); DROP TABLE x; --'")
    with pytest.raises(errors.DatabaseError, match="the source of space"):
        run(owner, "UPDATE neural.spaces SET source = 'x TO public; --'")


def test_what_watch_gave_is_taken_back(owner: str, login: Login, execute: Execute) -> None:
    login("reading")
    granted = "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = 'reading'::regrole"
    run(owner, "GRANT SELECT, INSERT ON mine.notes TO reading")
    assert run(owner, "SELECT * FROM neural.follow((SELECT id FROM neural.spaces))") != []
    assert execute(granted) == [(2 + 2,)]  # of the table, and SELECT of what is kept of it
    run(owner, "SELECT neural.unwatch('mine.notes')")
    assert execute(granted) == [(2,)]
    assert execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'mine.notes'::regclass") == [(0,)]


def test_grants_and_row_level_security_of_later_reach_what_is_kept(
    owner: str, worker: str, login: Login, execute: Execute
) -> None:
    reader = login("reading")
    Worker(worker).run(once=True)
    run(owner, "GRANT USAGE ON SCHEMA mine TO reading", "GRANT SELECT ON mine.notes TO reading")
    refused(reader, "SELECT * FROM mine.notes_search")
    Worker(worker).run(once=True)
    assert run(reader, "SELECT count(*) FROM mine.notes_search") == [(5,)]
    run(owner, "ALTER TABLE mine.notes ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON mine.notes USING (id = 3)")
    run(owner, "SELECT * FROM neural.reconcile('mine.notes')")
    assert run(reader, "SELECT source_id FROM mine.notes_search") == [(3,)]
    run(owner, "REVOKE SELECT ON mine.notes FROM reading", "SELECT * FROM neural.reconcile('mine.notes')")
    refused(reader, "SELECT * FROM mine.notes_search")


def test_a_reader_searches_a_collection(db: Database, login: Login, execute: Execute) -> None:
    db.collection("foxes", encoder="hash").index([{"id": "1", "text": "a fox"}])
    reader = login("reading")
    execute("SELECT neural.grant_reader('reading')")
    with Database(reader) as reading:
        assert [hit.entity.external_id for hit in reading.existing("foxes").search("fox")] == ["1"]
        assert [collection.name for collection in reading.status().collections] == ["foxes"]


def test_a_schema_that_others_have_made_is_refused(empty_url: str, admin: psycopg.Connection) -> None:
    with psycopg.connect(libpq_url(empty_url), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS squatter")
        connection.execute("CREATE ROLE squatter")
        connection.execute("CREATE SCHEMA neural AUTHORIZATION squatter")
        with Database(empty_url) as database:
            with pytest.raises(MissingPrivilege, match="schema neural belongs to role squatter"):
                database.upgrade()
            connection.execute("ALTER SCHEMA neural OWNER TO CURRENT_USER")
            connection.execute(
                "CREATE FUNCTION neural.score(distance double precision, metric text) RETURNS double precision"
                " LANGUAGE sql AS 'SELECT 0::float8'"
            )
            connection.execute("ALTER FUNCTION neural.score OWNER TO squatter")
            with pytest.raises(MissingPrivilege, match=r"FUNCTION neural.score\(.*\) belongs to role squatter"):
                database.upgrade()
            connection.execute("DROP FUNCTION neural.score")
            database.upgrade()
            connection.execute("ALTER FUNCTION neural.score OWNER TO squatter")
            assert any("belongs to role squatter" in difference for difference in database.check().differences)
            connection.execute("ALTER FUNCTION neural.score OWNER TO CURRENT_USER")
            assert database.check().current
        connection.execute("DROP ROLE squatter")


def test_a_database_does_not_say_which_models_are_loaded(
    notes: Execute, url: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor that their own code is run."""
    monkeypatch.setattr("pgneural.encoders.permitted._models", {})  # other tests name models, too
    for name in (str(tiny_model), "owner/model", str(tmp_path)):
        with pytest.raises(UnpermittedModel, match="which this host does not permit"):
            permitted(name)
    options: dict[str, Any]
    for options in ({"trust_remote_code": True}, {"name": "minilm"}, {"model_kwargs": {}}):
        with pytest.raises(UnpermittedModel):
            permitted("hash", **options)
    notes("UPDATE neural.spaces SET encoder = %s, dimensions = 32", str(tiny_model))
    notes("""UPDATE neural.spaces SET options = '{"trust_remote_code": true}'""")
    waiting = Worker(libpq_url(url), as_superuser=True)
    waiting.run(once=True)
    assert "which this host does not permit" in waiting.problems[0]
    assert "does not permit" in notes("SELECT problem FROM neural.status")[0][0]
    permit(tiny_model.parent)
    waiting = Worker(libpq_url(url), as_superuser=True)
    waiting.run(once=True)
    assert "asks to run code that comes with model" in waiting.problems[0]
    assert permitted(str(tiny_model), device="cpu").dimensions == 32


def test_vectors_of_others_are_neither_read_nor_written(
    owner: str, worker: str, login: Login, execute: Execute
) -> None:
    """Whether a text exists somewhere is not to be learnt, nor is a wrong vector to be left for it."""
    Worker(worker).run(once=True)
    other = login("other")
    assert run(other, "SELECT count(*) FROM neural.vectors") == [(0,)]
    digest = execute("SELECT encode(hash, 'hex'), revision FROM neural.vectors LIMIT 1")[0]
    run(
        other,
        f"INSERT INTO neural.vectors (encoder, revision, hash, embedding) VALUES ('hash', '{digest[1]}',"
        f" '\\x{digest[0]}', array_fill(0.5::float4, '{{256}}')::vector)",
    )
    execute("TRUNCATE mine.notes_search")
    run(owner, "SELECT * FROM neural.reconcile('mine.notes')")
    Worker(worker).run(once=True)
    assert execute(
        "SELECT count(*) FROM mine.notes_search WHERE embedding = array_fill(0.5::float4, '{256}')::vector"
    ) == [(0,)]
    assert execute("SELECT count(*) FROM mine.notes_search") == [(5,)]


def test_a_search_is_dropped_by_a_role_whose_path_lacks_its_schema(owner: str, execute: Execute) -> None:
    execute("SET search_path = pg_catalog")
    execute("SELECT neural.unwatch('mine.notes')")
    assert execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'mine.notes'::regclass") == [(0,)]
    execute("RESET search_path")
