"""One schema by every road: migrations, metadata, twice, down and up, dump and restore, many callers at once."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from pgneural import migrate
from pgneural.database import Database
from pgneural.errors import (
    MissingExtension,
    MissingPrivilege,
    NewerSchema,
    OutdatedExtension,
    SchemaNotInstalled,
)
from pgneural.migrate import own
from pgneural.store.definition import SearchDefinition
from pgneural.store.schema import SCHEMA, Catalog


@pytest.fixture
def dump(programs: Callable[[str], str]) -> Callable[..., str]:
    def run(url: str, *options: str) -> str:
        command = [programs("pg_dump"), "--dbname", url, *options]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)

    return run


def schema_of(dump: Callable[..., str], url: str) -> str:
    return dump(url, "--schema-only", "--schema", SCHEMA, "--exclude-table", "neural.alembic_version")


def test_alembic_check_is_clean(db: Database) -> None:
    state = db.check()
    assert state.differences == ()
    assert state.current


def test_metadata_and_migrations_give_one_schema(url: str, empty_url: str, dump: Callable[..., str]) -> None:
    with Database(empty_url) as database, database.engine.begin() as connection:
        connection.execute(sa.text("CREATE EXTENSION vector"))
        connection.execute(sa.schema.CreateSchema(SCHEMA))
        Catalog.metadata.create_all(connection)
        own.apply_sql(connection)
    assert schema_of(dump, empty_url) == schema_of(dump, url)


def test_upgrading_twice_changes_nothing(url: str, dump: Callable[..., str]) -> None:
    before = dump(url)
    with Database(url) as database:
        database.upgrade()
    assert dump(url) == before


def test_down_and_up_again(db: Database, url: str, dump: Callable[..., str]) -> None:
    before = schema_of(dump, url)
    db.collection("notes", encoder="hash").index([{"id": "1", "text": "fox"}])
    with db.engine.begin() as connection:
        migrate.downgrade(connection, "base")
        assert sa.inspect(connection).get_table_names(SCHEMA) == ["alembic_version"]
    assert not db.check().current
    db.upgrade()
    assert schema_of(dump, url) == before


def test_who_encoded_before_may_use_the_queue(db: Database) -> None:
    """The first form of 0005 lost the rights on what it made anew."""
    with db.engine.begin() as connection:
        execute = connection.exec_driver_sql
        execute("DROP ROLE IF EXISTS pgneural_before")
        execute("CREATE ROLE pgneural_before")
        execute("GRANT SELECT, INSERT ON neural.term_counts TO pgneural_before")
        migrate.downgrade(connection, "0005")
        migrate.upgrade(connection)
        for table in ("changes", "pending", "failed", "vectors"):
            may = sa.func.has_table_privilege("pgneural_before", f"neural.{table}", "INSERT")
            assert connection.scalar(sa.select(may)), table
        execute("DROP OWNED BY pgneural_before")
        execute("DROP ROLE pgneural_before")


def test_fields_are_joined_by_the_server_s_own_function(db: Database) -> None:
    """Searches of earlier versions found it by the path of the source; nothing is encoded anew for it."""
    joined = r"SELECT s.id, concat_ws(E'\n\n', s.a, s.b) AS content FROM notes s"
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id int PRIMARY KEY, a text, b text, c text)")
        connection.exec_driver_sql("SELECT neural.watch('notes', '{a,b,c}', encoder => 'hash')")
        migrate.downgrade(connection, "0008")
        connection.execute(sa.text("UPDATE neural.spaces SET reads = :reads, fields = NULL"), {"reads": joined})
        connection.exec_driver_sql("DELETE FROM neural.changes")
        migrate.upgrade(connection)
        reads, waiting = connection.exec_driver_sql(
            "SELECT s.reads, (SELECT count(*) FROM neural.changes) FROM neural.spaces s"
        ).one()
    key = (sa.Column("id", sa.Integer),)
    assert reads == SearchDefinition("notes", "search", key, joined, "hash", 64).reads
    assert "pg_catalog.concat_ws" in reads
    assert waiting == 0


def test_no_way_back_with_several_spaces(db: Database) -> None:
    db.collection("notes", encoder="hash").index([{"id": "1", "text": "fox"}])
    db.create_space("notes", "small", max_tokens=50)
    with pytest.raises(sa.exc.DBAPIError, match="a search has several spaces"), db.engine.begin() as connection:
        migrate.downgrade(connection, "0004")
    assert db.check().current


def test_dump_and_restore_keeps_search_working(
    db: Database, url: str, empty_url: str, dump: Callable[..., str], programs: Callable[[str], str]
) -> None:
    notes = db.collection("Field notes", encoder="hash")
    notes.index([{"id": str(n), "text": f"fox number {n}"} for n in range(20)])
    restore = [programs("psql"), "--dbname", empty_url, "--set", "ON_ERROR_STOP=1", "--quiet"]
    subprocess.run(restore, input=dump(url), text=True, check=True, capture_output=True)
    with Database(empty_url) as restored:
        assert restored.check().current
        copied = restored.collection("Field notes")
        expected = notes.search("fox number 7", limit=3)
        again = copied.search("fox number 7", limit=3)
        assert [hit.entity.external_id for hit in again] == [hit.entity.external_id for hit in expected]
        assert [hit.score for hit in again] == pytest.approx([hit.score for hit in expected])
        assert copied.index([{"id": "7", "text": "fox number 7"}]).unchanged == 1


def test_concurrent_callers_wait_for_each_other(empty_url: str) -> None:
    def upgrade(_: int) -> bool:
        with Database(empty_url) as database:
            return database.upgrade().current

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(upgrade, range(6)))


def test_host_application_s_alembic_version_is_not_touched(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES ('theirs')")
        with Database(empty_url) as database:
            database.upgrade()
        assert connection.execute("SELECT version_num FROM public.alembic_version").fetchall() == [("theirs",)]


def test_drift_is_found(db: Database) -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE neural.documents ADD COLUMN mine text"))
        connection.execute(sa.text("CREATE INDEX mine ON neural.spaces (encoder)"))
        connection.execute(sa.text("COMMENT ON FUNCTION neural.score IS 'mine'"))
    differences = "\n".join(db.check().differences)
    assert "remove_column" in differences
    assert "remove_index" in differences
    assert "FUNCTION neural.score(double precision,text): differs from sql/" in differences
    db.upgrade()
    assert "FUNCTION" not in "\n".join(db.check().differences)


def test_newer_schema_is_refused(db: Database) -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.text("UPDATE neural.alembic_version SET version_num = '9999'"))
    for action in (db.upgrade, db.check, lambda: db.collection("notes", encoder="hash")):
        with pytest.raises(NewerSchema, match=r"at schema revision 9999, which pgneural .* does not know"):
            action()


def test_schema_not_installed(empty_url: str) -> None:
    with Database(empty_url) as database:
        assert database.status().schema_revision is None
        with pytest.raises(SchemaNotInstalled, match="run: pgneural db upgrade"):
            database.collection("notes", encoder="hash")


def test_missing_pgvector(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        if connection.info.server_version < 180000:
            pytest.skip("NOT SHOWN: extension_control_path, which hides pgvector here, came with PostgreSQL 18")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET extension_control_path = '/nowhere'".encode())
    with Database(empty_url) as database, pytest.raises(MissingExtension, match="the server has no pgvector extension"):
        database.upgrade()


@pytest.mark.parametrize(("version", "error"), [("0.7.4", OutdatedExtension), ("0.8.1", None)])
def test_old_pgvector(empty_url: str, version: str, error: type[Exception] | None) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'", (version,))
    with Database(empty_url) as database:
        if error:
            with pytest.raises(error, match=r"pgvector is 0\.7\.4; pgneural needs 0\.8\.0 or later, better 0\.8\.4"):
                database.upgrade()
        else:
            with pytest.warns(UserWarning, match=r"pgvector 0\.8\.1 can corrupt HNSW indexes"):
                database.upgrade()


def test_missing_privileges(empty_url: str, admin: psycopg.Connection) -> None:
    admin.execute("DROP ROLE IF EXISTS pgneural_test_role")
    admin.execute("CREATE ROLE pgneural_test_role LOGIN PASSWORD 'secret'")
    try:
        url = f"{empty_url} user=pgneural_test_role password=secret"
        with Database(url) as database, pytest.raises(MissingPrivilege, match="superuser run: CREATE EXTENSION vector"):
            database.upgrade()
        with psycopg.connect(empty_url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        with Database(url) as database, pytest.raises(MissingPrivilege, match="ask its owner for a GRANT"):
            database.upgrade()
        with psycopg.connect(empty_url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"GRANT CREATE ON DATABASE {name} TO pgneural_test_role".encode())
        with Database(url) as database:
            assert database.upgrade().current
            assert database.collection("notes", encoder="hash").index([{"id": "1", "text": "a"}]).inserted == 1
    finally:
        with psycopg.connect(empty_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY pgneural_test_role CASCADE")
        admin.execute("DROP ROLE pgneural_test_role")


def test_revisions_are_frozen() -> None:
    """A published revision never changes: its hash is written down beside it."""
    import hashlib

    folder = Path(own.shipped_folder("migrations"))
    frozen = dict(line.split() for line in (folder / "frozen.txt").read_text().splitlines())
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "versions").glob("*.py")}
    assert files == frozen
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", name) for name in files)
