"""The Alembic plugin: searches come, change and go by migrations that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column

from pgneural import Database, Searchable, VectorIndex
from pgneural.errors import SchemaNotInstalled
from pgneural.store.engine import libpq_url
from tests.application.project import Application


def notes(
    schema: str | None = None, naming: dict[str, str] | None = None, table: bool = True, **options: Any
) -> sa.MetaData:
    class Base(DeclarativeBase):
        metadata = sa.MetaData(schema=schema, naming_convention=naming)

    if table:
        given = {"encoder": "hash", **options}
        searching = {} if options.get("without") else {"search": Searchable("text", **given)}
        columns = {"id": mapped_column(sa.Integer, primary_key=True), "text": mapped_column(sa.Text)}
        type("Note", (Base,), {"__tablename__": "notes", **columns, **searching})
    return Base.metadata


def tables(project: Application) -> set[str]:
    with project.engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def test_a_table_and_its_search_come_and_go_together(project: Application) -> None:
    text = project.autogenerate(notes(), "one")
    assert text.index("op.create_table") < text.index("op.create_search") < text.index("op.create_vector_index")
    project.upgrade()
    assert tables(project) == {"notes", "notes_search", "notes_search_terms"}
    project.assert_no_changes(notes())
    text = project.autogenerate(notes(table=False), "two")
    assert text.index("op.drop_search") < text.index("op.drop_table")
    project.upgrade()
    assert tables(project) == set()
    project.downgrade("-1")
    project.assert_no_changes(notes())
    project.downgrade("base")
    assert tables(project) == set()


@pytest.mark.parametrize(
    ("changed", "operation"),
    [
        ({"encoder": "vectors:7"}, "create_search"),
        ({"dimensions": 32}, "create_search"),
        ({"distance": "l2"}, "create_search"),
        ({"storage": "halfvec"}, "create_search"),
        ({"language": "german"}, "change_search"),
        ({"title_boost": 3.0}, "change_search"),
        ({"max_tokens": 100}, "change_search"),
        ({"sync": "inline"}, "change_search"),
        ({"language_by": "text"}, "change_search"),
        ({"index": VectorIndex(method="ivfflat", options={"lists": 3})}, "create_vector_index"),
        ({"index": VectorIndex(method="none")}, "drop_vector_index"),
    ],
)
def test_every_change_of_a_search_is_seen_once(project: Application, changed: dict[str, Any], operation: str) -> None:
    project.autogenerate(notes(), "one")
    project.upgrade()
    text = project.autogenerate(notes(**changed), "two")
    assert f"op.{operation}(" in text
    project.upgrade()
    project.assert_no_changes(notes(**changed))
    project.downgrade("-1")
    project.assert_no_changes(notes())


def test_a_lost_trigger_is_mended(project: Application) -> None:
    project.autogenerate(notes(), "one")
    project.upgrade()
    with project.engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER notes_search_update ON notes"))
    assert "op.change_search(" in project.autogenerate(notes(), "two")
    project.upgrade()
    project.assert_no_changes(notes())


def test_naming_conventions_are_not_in_the_way(project: Application) -> None:
    naming = {
        "ix": "ix_%(column_0_label)s",
        "pk": "pk_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(constraint_name)s",
    }
    naming["pk"] = "pk_%(table_name)s"
    project.autogenerate(notes(naming=naming), "one")
    project.upgrade()
    project.assert_no_changes(notes(naming=naming))


def test_include_object_and_include_name_are_respected(project: Application) -> None:
    def without_search(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
        return not (kind == "table" and str(name).startswith("notes_search"))

    text = project.autogenerate(notes(), "one", include_object=without_search)
    assert "op.create_table('notes'" in text
    assert "op.create_search" not in text
    project.upgrade()
    project.autogenerate(notes(), "two")
    project.upgrade()
    project.assert_no_changes(notes(without=True), include_object=without_search)
    named = {"include_name": lambda name, kind, _: not (kind == "table" and str(name).startswith("notes_search"))}
    project.assert_no_changes(notes(without=True), **named)


def test_one_schema_and_no_other(project: Application) -> None:
    project.autogenerate(notes(), "one", include_schemas=False)
    project.upgrade()
    project.assert_no_changes(notes(), include_schemas=False)
    with project.engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("shop"))
        notes(schema="shop").create_all(connection)
    project.assert_no_changes(notes(), include_schemas=False)  # what lies in another schema is not its business


def test_without_our_schema_the_error_says_what_to_do(tmp_path: Path, empty_url: str) -> None:
    project = Application(tmp_path / "project", empty_url, history=False)
    (project.folder / "versions").mkdir(exist_ok=True)
    with project.engine.begin() as connection:
        connection.execute(sa.text("CREATE EXTENSION vector"))
    project.autogenerate(notes(), "one")
    with pytest.raises(SchemaNotInstalled, match="pgneural db upgrade"):
        project.upgrade()
    project.engine.dispose()


def test_a_role_without_superuser_rights(tmp_path: Path, empty_url: str, admin: psycopg.Connection) -> None:
    """Once the extension is there, the application's own role upgrades our schema and its own tables."""
    with psycopg.connect(libpq_url(empty_url), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE ROLE applicant LOGIN NOSUPERUSER")
        connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO applicant")
        connection.execute("GRANT CREATE ON SCHEMA public TO applicant")
    url = psycopg.conninfo.make_conninfo(libpq_url(empty_url), user="applicant")
    try:
        with Database(url) as database:
            database.upgrade()
        project = Application(tmp_path / "project", url, history=False)
        (project.folder / "versions").mkdir(exist_ok=True)
        project.autogenerate(notes(), "one")
        project.upgrade()
        project.assert_no_changes(notes())
        project.downgrade("base")
        project.engine.dispose()
    finally:
        with psycopg.connect(libpq_url(empty_url), autocommit=True) as connection:
            connection.execute("DROP OWNED BY applicant CASCADE")
        admin.execute("DROP ROLE applicant")


def test_upgrades_of_both_schemas_live_side_by_side(project: Application, db: Database, head: str) -> None:
    project.autogenerate(notes(), "one")
    project.upgrade()
    assert db.check().differences == ()
    db.upgrade()
    project.assert_no_changes(notes())
    with project.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM public.alembic_version")) == "one"
        assert connection.scalar(sa.text("SELECT version_num FROM neural.alembic_version")) == head


def test_connections_that_commit_by_themselves_or_only_read(project: Application) -> None:
    project.autogenerate(notes(), "one")
    project.upgrade()
    for options in ({"isolation_level": "AUTOCOMMIT"}, {"postgresql_readonly": True}):
        project.connected = options
        project.assert_no_changes(notes())


def test_the_default_schema_by_its_name(project: Application) -> None:
    project.autogenerate(notes(schema="public"), "one")
    project.upgrade()
    project.assert_no_changes(notes(schema="public"))
    project.assert_no_changes(notes())


@pytest.mark.filterwarnings("ignore:autoincrement")
def test_another_type_or_name_of_the_key_makes_the_search_anew(project: Application) -> None:
    def keyed(name: str, type_: Any) -> sa.MetaData:
        class Base(DeclarativeBase):
            pass

        columns = {name: mapped_column(type_, primary_key=True, autoincrement=False), "text": mapped_column(sa.Text)}
        type("Note", (Base,), {"__tablename__": "notes", **columns, "search": Searchable("text", encoder="hash")})
        return Base.metadata

    project.autogenerate(keyed("id", sa.Integer), "one")
    project.upgrade()
    text = project.autogenerate(keyed("id", sa.BigInteger), "two")
    assert text.count("op.create_search(") == text.count("op.drop_search(") == 2
    project.upgrade()
    project.assert_no_changes(keyed("id", sa.BigInteger))
    project.autogenerate(keyed("nr", sa.BigInteger), "three")
    changes = {}
    for old, new in (("id", "nr"), ("nr", "id")):
        renamed = f"op.alter_column('notes', '{old}', new_column_name='{new}')\n"
        changes[rf"op\.add_column\('notes', sa\.Column\('{new}'[^\n]*\n"] = renamed
        changes[rf" *op\.drop_column\('notes', '{old}'\)\n"] = ""
    project.rewrite("three", changes)
    project.upgrade()
    project.assert_no_changes(keyed("nr", sa.BigInteger))
    project.downgrade("-1")
    project.assert_no_changes(keyed("id", sa.BigInteger))


def test_a_renamed_table_leaves_nothing_behind(project: Application) -> None:
    project.autogenerate(notes(), "one")
    project.upgrade()
    with project.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE notes RENAME TO posts"))

    class Base(DeclarativeBase):
        pass

    columns = {"id": mapped_column(sa.Integer, primary_key=True), "text": mapped_column(sa.Text)}
    type("Post", (Base,), {"__tablename__": "posts", **columns, "search": Searchable("text", encoder="hash")})
    text = project.autogenerate(Base.metadata, "two")
    assert "op.drop_table" not in text
    project.upgrade()
    assert tables(project) == {"posts", "posts_search", "posts_search_terms"}
    project.assert_no_changes(Base.metadata)
    with project.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM neural.spaces")) == 1
        triggers = connection.scalars(sa.text("SELECT tgname FROM pg_trigger WHERE tgrelid = 'posts'::regclass"))
        assert {name for name in triggers if not name.startswith("RI_")} == {
            "posts_search_insert",
            "posts_search_update",
            "posts_search_delete",
            "posts_search_truncate",
        }


@pytest.mark.parametrize(
    "lost", ["TABLE notes_search", "TABLE notes_search_terms", "INDEX notes_search_terms_idx", "TABLE notes CASCADE"]
)
def test_what_was_dropped_by_hand_is_made_again(project: Application, lost: str) -> None:
    project.autogenerate(notes(), "one")
    project.upgrade()
    with project.engine.begin() as connection:
        connection.execute(sa.text(f"DROP {lost}"))
    project.autogenerate(notes(), "two")
    project.upgrade()
    project.assert_no_changes(notes())
