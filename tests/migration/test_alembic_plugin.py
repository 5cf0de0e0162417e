"""The Alembic plugin: what bare Alembic with pgvector gets wrong, and what users' projects are like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, VECTOR

import pgneural
from pgneural.store.engine import libpq_url
from tests.application.project import Application

BARE: dict[str, Any] = {"autogenerate_plugins": ["alembic.autogenerate.*"]}


def items(*indexes: Callable[[sa.Table], sa.Index], extra: tuple[Any, ...] = ()) -> sa.MetaData:
    """Return a table with a vector, and its indexes."""
    metadata = sa.MetaData()
    table = sa.Table(
        "items",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("lang", sa.Text),
        sa.Column("embedding", VECTOR(3)),
        *extra,
    )
    for index in indexes:
        index(table)
    return metadata


def plain(**options: Any) -> Callable[[sa.Table], sa.Index]:
    given: dict[str, Any] = {"postgresql_using": "hnsw", "postgresql_ops": {"embedding": "vector_cosine_ops"}}
    return lambda table: sa.Index("items_embedding_idx", table.c.embedding, **{**given, **options})


def halved(table: sa.Table) -> sa.Index:
    return sa.Index(
        "items_half_idx",
        sa.cast(table.c.embedding, HALFVEC(3)).label("half"),
        postgresql_using="hnsw",
        postgresql_ops={"half": "halfvec_l2_ops"},
    )


def definition(project: Application, index: str) -> str:
    with project.engine.connect() as connection:
        return str(connection.scalar(sa.text(f"SELECT pg_get_indexdef('{index}'::regclass)")))


# the four known bugs


@pytest.mark.sqlalchemy20
def test_missing_import(project: Application) -> None:
    """https://github.com/pgvector/pgvector-python/issues/65 and its likes."""
    bare = project.autogenerate(items(), "bare", **BARE)
    assert "VECTOR" in bare
    assert "import pgvector" not in bare
    with pytest.raises(NameError, match="pgvector"):
        project.upgrade()
    next(project.folder.glob("versions/bare_*.py")).unlink()
    assert "import pgvector.sqlalchemy" in project.autogenerate(items(), "ours")
    project.upgrade()
    project.assert_no_changes(items())


def test_lost_operator_class(project: Application) -> None:
    """pgvector-python#118: Alembic 1.20 writes the class of a labelled expression, but does not see that it changed."""
    items(plain(postgresql_ops={"embedding": "vector_l2_ops"})).create_all(project.engine)
    changed = items(plain(postgresql_ops={"embedding": "vector_cosine_ops"}))
    project.assert_no_changes(changed, **BARE)  # sees nothing
    text = project.autogenerate(changed, "ours")
    assert "operator_class='vector_cosine_ops'" in text
    project.upgrade()
    assert "vector_cosine_ops" in definition(project, "items_embedding_idx")
    project.assert_no_changes(changed)
    project.downgrade("base")
    assert "vector_l2_ops" in definition(project, "items_embedding_idx")


@pytest.mark.sqlalchemy20
def test_repeated_diff(project: Application) -> None:
    """https://github.com/sqlalchemy/alembic/issues/1321: PostgreSQL has other words for the same expression."""

    def english(table: sa.Table) -> sa.Index:
        only = sa.case((table.c.lang == "en", table.c.embedding))
        return sa.Index(
            "items_english_idx",
            sa.cast(only, HALFVEC(3)).label("only"),
            postgresql_using="hnsw",
            postgresql_ops={"only": "halfvec_cosine_ops"},
        )

    items(english).create_all(project.engine)
    text = project.autogenerate(items(english), "bare", **BARE)
    assert "drop_index" in text
    assert "create_index" in text
    next(project.folder.glob("versions/bare_*.py")).unlink()
    project.assert_no_changes(items(english))


def test_an_operator_class_within_the_text_of_an_expression(project: Application) -> None:
    written = "(embedding::halfvec(3)) halfvec_l2_ops"
    index = sa.Index("items_half_idx", sa.text(written), postgresql_using="hnsw")
    mended = items(extra=(index,))
    mended.create_all(project.engine)
    with pytest.warns(UserWarning, match="Expression compare cannot proceed"):  # Alembic's own
        project.assert_no_changes(mended)
    project.assert_no_changes(items(halved))


def test_options_unseen(project: Application) -> None:
    items(plain(postgresql_with={"m": 8, "ef_construction": 40})).create_all(project.engine)
    changed = items(plain(postgresql_with={"m": 12, "ef_construction": 40}))
    project.assert_no_changes(changed, **BARE)  # sees nothing
    text = project.autogenerate(changed, "ours")
    assert "'m': 12" in text
    assert "autocommit_block" in text
    project.upgrade()
    assert "m='12'" in definition(project, "items_embedding_idx")
    project.assert_no_changes(changed)
    project.downgrade("base")
    assert "m='8'" in definition(project, "items_embedding_idx")


# vector indexes of a user's own


@pytest.mark.sqlalchemy20
@pytest.mark.parametrize(
    "index",
    [
        plain(),
        plain(postgresql_using="ivfflat", postgresql_with={"lists": 5}),
        plain(postgresql_where=sa.text("lang = 'en' AND embedding IS NOT NULL")),
        plain(postgresql_ops={"embedding": "vector_ip_ops"}),
        halved,
    ],
)
def test_every_kind_of_index_is_made_once(project: Application, index: Any) -> None:
    text = project.autogenerate(items(index), "one")
    assert "autocommit_block" not in text  # the table is as new as the index
    project.upgrade()
    project.assert_no_changes(items(index))
    text = project.autogenerate(items(), "two")
    assert text.count("op.drop_vector_index(") == 1
    project.upgrade()
    project.assert_no_changes(items())
    project.downgrade("-1")
    project.assert_no_changes(items(index))
    project.downgrade("base")


def test_a_changed_condition_or_operator_class_is_seen(project: Application) -> None:
    before = items(plain(postgresql_where=sa.text("lang = 'en'")))
    before.create_all(project.engine)
    for number, after in enumerate(
        (
            items(plain(postgresql_where=sa.text("lang = 'de'"))),
            items(plain(postgresql_ops={"embedding": "vector_l2_ops"})),
            items(plain(postgresql_using="ivfflat", postgresql_with={"lists": 7})),
        )
    ):
        text = project.autogenerate(after, f"n{number}")
        assert text.count("op.create_vector_index(") == 2  # one up, one down
        project.upgrade()
        project.assert_no_changes(after)


def test_what_an_interrupted_build_has_left_is_removed(project: Application) -> None:
    items().create_all(project.engine)
    project.autogenerate(items(plain()), "one")
    with psycopg.connect(libpq_url(project.url), autocommit=True) as connection:
        connection.execute("CREATE INDEX items_embedding_idx ON items USING hnsw (embedding vector_cosine_ops)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'items_embedding_idx'::regclass")
    project.upgrade()
    project.assert_no_changes(items(plain()))


@pytest.mark.sqlalchemy20
def test_generated_columns(project: Application) -> None:
    half = sa.Column("half", HALFVEC(3), sa.Computed("embedding::halfvec(3)", persisted=True))
    text = project.autogenerate(items(extra=(half,)), "one")
    assert "pgvector.sqlalchemy.HALFVEC(dim=3)" in text
    project.upgrade()
    again = sa.Column("half", HALFVEC(3), sa.Computed("embedding::halfvec(3)", persisted=True))
    project.assert_no_changes(items(extra=(again,)))


def test_the_users_own_render_item_comes_first(project: Application) -> None:
    def render_item(kind: str, item: Any, context: Any) -> Any:
        if kind == "type" and isinstance(item, VECTOR):
            context.imports.add("from pgvector import sqlalchemy as vectors")
            return f"vectors.{item!r}"
        return False

    text = project.autogenerate(items(), "one", render_item=render_item)
    assert "vectors.VECTOR(dim=3)" in text
    project.upgrade()


def test_types_of_an_extension_in_another_schema(tmp_path: Path, empty_url: str) -> None:
    project = Application(tmp_path / "project", empty_url, history=False)
    (project.folder / "versions").mkdir(exist_ok=True)
    with project.engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA extensions"))
        connection.execute(sa.text("CREATE EXTENSION vector SCHEMA extensions"))
        connection.execute(
            sa.text("CREATE TABLE items (id serial PRIMARY KEY, lang text, embedding extensions.vector(3))")
        )
    with pytest.warns(sa.exc.SAWarning, match="Did not recognize type"):
        project.autogenerate(items(), "bare", **BARE)
    next(project.folder.glob("versions/bare_*.py")).unlink()
    project.assert_no_changes(items())
    project.engine.dispose()


def test_our_own_vector_types_are_written_as_pgvectors(project: Application) -> None:
    metadata = sa.MetaData()
    sa.Table("items", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("v", pgneural.VECTOR(3)))
    text = project.autogenerate(metadata, "one")
    assert "pgvector.sqlalchemy.VECTOR(dim=3)" in text
    project.upgrade()
    project.assert_no_changes(metadata)


@pytest.mark.sqlalchemy20
@pytest.mark.parametrize("where", ["id % 2 = 0", "lang LIKE 'en%'", "lang = 'a:b'"])
def test_conditions_with_signs_of_placeholders(project: Application, where: str) -> None:
    metadata = items(plain(postgresql_where=sa.text(where.replace(":", "\\:"))))
    project.autogenerate(metadata, "one")
    project.upgrade()
    assert "%%" not in definition(project, "items_embedding_idx")
    project.assert_no_changes(metadata)


def test_methods_in_capitals_and_names_that_are_too_long(project: Application) -> None:
    convention = {"ix": "a_very_long_convention_for_the_names_of_indexes_%(table_name)s_%(column_0_name)s"}
    metadata = sa.MetaData(naming_convention=convention)
    table = sa.Table("items", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("v", VECTOR(3)))
    sa.Index(None, table.c.v, postgresql_using="HNSW", postgresql_ops={"v": "vector_l2_ops"})
    project.autogenerate(metadata, "one")
    project.upgrade()
    project.assert_no_changes(metadata)
