"""Searches answer the same whatever a role or a database has set; long queries are shortened and say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgneural import Collection, Database, Record, Searchable
from pgneural.store.engine import libpq_url
from tests.fixtures.orm import Create, texts

SETTINGS = {
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "extra_float_digits": "-15",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "backslash_quote": "off",
    "xmloption": "document",
    "default_text_search_config": "pg_catalog.german",
    "timezone": "Asia/Kathmandu",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "escape_string_warning": "off",
    "lc_numeric": "C",
    "row_security": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "on",
    "check_function_bodies": "off",
    "statement_timeout": "20s",
    "default_transaction_isolation": "serializable",
}

QUERIES = ["client/server", 'a "red fox" it\'s', "fox -den", "univers*", r"c:\temp\new 'quoted'", "C++", "数据库"]

TEXTS = ["a client/server", "the red fox's den", "a fox that is red", "universities", r"c:\temp\new", "C++ 数据库系统"]


@pytest.fixture(scope="module")
def usual(new_database: Any, template: str) -> Iterator[tuple[str, Collection]]:
    url = new_database(template)
    with Database(url) as database:
        made = database.collection("usual", encoder="hash")
        made.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(TEXTS))
        yield url, made


def answers(collection: Collection) -> list[list[tuple[str, float, bool]]]:
    found = [collection.search(query, mode=mode) for query in QUERIES for mode in ("lexical", "hybrid")]
    return [[(hit.entity.external_id, round(hit.score, 5), hit.relaxed) for hit in hits] for hits in found]


def order(every: list[list[tuple[str, float, bool]]]) -> list[list[tuple[str, bool]]]:
    return [[(id_, relaxed) for id_, _, relaxed in hits] for hits in every]


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_changes_an_answer(usual: tuple[str, Collection], name: str) -> None:
    url, collection = usual
    expected = answers(collection)
    assert all(expected[::2])
    setting = sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(SETTINGS[name]))
    with psycopg.connect(url, autocommit=True) as connection:
        here = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET {}").format(here, setting))
        try:
            with Database(url) as database:
                reopened = database.collection("usual")
                assert order(answers(reopened)) == order(expected)
                reopened.index([Record("new", "a red fox too")])
                assert "new" in {hit.entity.external_id for hit in reopened.search("fox", mode="lexical")}
                reopened.delete("new")
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} RESET {}").format(here, sql.Identifier(name)))


class Base(DeclarativeBase):
    pass


class Paper(Base):
    __tablename__ = "papers"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


@pytest.mark.parametrize(
    "setting", ["quote_all_identifiers = on", "standard_conforming_strings = off", "extra_float_digits = -15"]
)
def test_mapped_classes_under_settings(create: Create, setting: str) -> None:
    with create(Base.metadata) as session:
        session.add_all(Paper(text=text) for text in TEXTS)
        session.flush()
        Paper.search.sync(session)
        session.commit()
        expected = {query: texts(Paper.search(query).all(session)) for query in QUERIES}
        session.execute(sa.text(f"SET {setting}"))
        assert {query: texts(Paper.search(query).all(session)) for query in QUERIES} == expected
        session.add(Paper(text="a badger"))
        session.flush()
        assert texts(Paper.search("badger").mode("lexical").all(session)) == ["a badger"]
        assert Paper.search.sync(session).rows == 1


@pytest.mark.parametrize(
    "query", [" ".join(f"w{n}" for n in range(20_000)), "w" * 10_000_000, "词" * 300_000, "a.b " * 300_000]
)
def test_long_queries_are_shortened_with_a_warning(usual: tuple[str, Collection], query: str) -> None:
    started = time.monotonic()
    with pytest.warns(UserWarning, match=r"characters; its words are read from the first 8,192"):
        usual[1].search(query, mode="lexical")
    assert time.monotonic() - started < 5


def test_long_queries_in_sql_are_shortened_with_a_warning(usual: tuple[str, Collection]) -> None:
    """They were cut without a word."""
    said: list[str] = []
    with psycopg.connect(libpq_url(usual[0])) as connection:
        connection.add_notice_handler(lambda diagnostic: said.append(str(diagnostic.message_primary)))
        asked = "SELECT q.words FROM neural.spaces s, neural.lexical_query(s.id, %s, 100) q LIMIT 1"
        connection.execute(asked, ["fox " * 2048])
        assert said == []
        connection.execute(asked, ["fox " * 2049])
        assert said == ["the query has 8196 characters; its words are read from the first 8192"]
