"""Words are the same at both sides, however they are written; those of an earlier version are made anew."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgneural import Collection, Database, Record
from pgneural.encoders.hashing import HashEncoder
from pgneural.store.engine import libpq_url
from pgneural.worker import Worker
from tests.fixtures.tables import Execute

FOUND = [
    ("client/server models", "server"),
    ("what they did to the rest.Then came", "rest"),
    ("see /usr/share/foo.png", "foo"),
    ("see /usr/share/foo.png", "foo.png"),
    ("write to jane.roe@example.org", "jane"),
    ("call 555-1234", "1234"),
    ("关系数据库系统", "数据库"),
    ("ประเทศไทย", "ไทย"),
    ("대한민국", "한민"),
    (unicodedata.normalize("NFD", "Café"), "café"),
    ("the \ufb01rst", "first"),
    ("\uff21\uff22\uff23\uff11\uff12\uff13", "ABC123"),  # of full width
    ("in\u00advisi\u00adble", "invisible"),
    ("zero\u200bwidth", "zerowidth"),
    ("written in C++", "c++"),
    ("written in C#", "C#"),
    ("written in .NET", ".net"),
]

APART = [("written in C++", "c"), ("written in C#", "c"), ("written in C", "c++"), ("written in .NET", "net")]

BEGUN = [
    ("english", "vaccination"),
    ("english", "university"),
    ("german", "Verträge"),
    ("french", "nationalité"),
    ("russian", "университеты"),
]


LOCALES = [
    ("english", "ISPARTA Straße ÉCOLE ΣΊΣΥΦΟΣ ПРИВЕТ naïve—dash “quoted” université, Ünïcode’s ÀÉÎ Łódź ŠKODA ՀԱՅ"),
    ("russian", "университеты УНИВЕРСИТЕТ Ёлка"),
    ("turkish", "ISPARTA IŞIK İstanbul"),
    ("german", "Verträge STRASSE VERTRÄGE"),
    ("simple", "关系数据库系统 ประเทศที่ไทยน้ำ 대한민국 ភាសាខ្មែរ မြန်မာ ພາສາລາວ ひらがな カタカナー"),
]

INFLECTED = [
    *("vaccinations", "universities", "happiness", "running", "Verträge", "nationalités", "universidades", "città"),
    *(
        "университеты",
        "переменные",
        "ευτυχισμένος",
        "المكتبات",
        "membacakan",
        "könyveimet",
        "kirjastoissa",
        "evlerimizden",
    ),
    *("straßenbahnen", "foreningerne", "biblioteekide", "पुस्तकों", "வீடுகளில்", "գրադարաններ", "ביכער", "książkami"),
]


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def written(database: Database) -> Collection:
    made = database.collection("written", encoder="hash", language="english")
    made.index(Record(text, text) for text in {text for text, _ in FOUND + APART})
    return made


def found(collection: Collection, query: str) -> set[str]:
    return {hit.entity.external_id for hit in collection.search(query, mode="lexical", limit=50)}


@pytest.mark.parametrize(("text", "query"), FOUND)
def test_found_by(written: Collection, text: str, query: str) -> None:
    assert text in found(written, query)


@pytest.mark.parametrize(("text", "query"), APART)
def test_not_found_by(written: Collection, text: str, query: str) -> None:
    assert text not in found(written, query)


@pytest.mark.parametrize(("language", "word"), BEGUN)
def test_a_beginning_finds_the_word_itself(database: Database, language: str, word: str) -> None:
    made = database.collection(f"begun_{language}_{len(word)}", encoder="hash", language=language)
    made.index([Record("1", f"{word} x")])
    for end in range(4, len(word) + 1):
        assert found(made, word[:end] + "*") == {"1"}


@given(text=st.text(max_size=30), form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_form_of_a_text_has_the_same_words(execute: Execute, text: str, form: Any) -> None:
    text = text.replace("\0", "").encode("utf-8", "ignore").decode()
    words = "SELECT neural.lexemes('simple', NULL, %s)::text"
    assert execute(words, text) == execute(words, unicodedata.normalize(form, text))


def test_words_beyond_what_one_tsvector_holds(database: Database) -> None:
    made = database.collection("long", encoder="hash", language="simple")
    long = " ".join(f"word{n}" for n in range(90_000)) + " zebra crossing"
    assert len(long) > 800_000
    made.index([Record("1", long), Record("2", "a zebra here")])
    assert found(made, "crossing") == found(made, "word89999") == {"1"}
    assert found(made, 'zebra -"zebra crossing"') == {"2"}
    hits = made.search('"zebra crossing"', mode="lexical")
    assert [(hit.entity.external_id, hit.relaxed) for hit in hits] == [("1", False), ("2", True)]


def test_words_of_an_earlier_version_are_made_anew_by_a_worker(execute: Execute, url: str) -> None:
    execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    execute("INSERT INTO notes SELECT n, 'client/server ' || n FROM generate_series(1, 5) n")
    execute("SELECT neural.watch('notes', '{body}', encoder => 'hash')")
    make = lambda *_, **__: HashEncoder()  # noqa: E731
    Worker(libpq_url(url), as_superuser=True, make=make).run(once=True)
    words = execute("SELECT source_id, lexemes::text FROM notes_search_terms ORDER BY 1")
    execute("UPDATE notes_search_terms SET lexemes = to_tsvector('client/server')")
    execute("UPDATE neural.spaces SET words_version = 1")
    Worker(libpq_url(url), as_superuser=True, make=make).run(once=True)
    assert execute("SELECT source_id, lexemes::text FROM notes_search_terms ORDER BY 1") == words
    assert execute("SELECT words_version, words_refresh FROM neural.spaces") == [(2, None)]


@pytest.mark.parametrize("locale", ["LOCALE 'C'", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"])
def test_words_are_the_same_in_every_locale(admin: psycopg.Connection, server_url: str, url: str, locale: str) -> None:
    if "builtin" in locale and admin.info.server_version < 170000:
        pytest.skip("the server has no builtin locales")
    name = sql.Identifier(f"pgneural_locale_{os.getpid()}")
    admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(name, sql.SQL(locale)))
    try:
        other = make_conninfo(server_url, dbname=name.as_string().strip('"'))
        with Database(other) as database:
            database.upgrade()
        words = "SELECT neural.lexemes(%s, %s, %s)::text"
        with psycopg.connect(url) as here, psycopg.connect(other) as there:
            for language, text in LOCALES:
                asked = (language, text, text)
                assert here.execute(words, asked).fetchone() == there.execute(words, asked).fetchone()
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_word_in_a_run_without_blanks_is_found(written: Collection, execute: Execute, data: Any) -> None:
    run = data.draw(st.text("关系数据库ひらカナー한국어ไทยกขមែរລາວမန", min_size=1, max_size=12))
    start = data.draw(st.integers(0, len(run) - 1))
    word = run[start : data.draw(st.integers(start + 1, len(run)))]
    asked = (
        "SELECT tsvector_to_array(neural.query_words('english', %s))"
        " <@ tsvector_to_array(neural.lexemes('english', '', %s))"
    )
    assert execute(asked, word, f"a {run}. b") == [(True,)]


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_beginning_of_a_word_finds_it_in_every_language(execute: Execute, data: Any) -> None:
    languages = [row[0] for row in execute("SELECT cfgname::text FROM pg_ts_config ORDER BY 1")]
    language = data.draw(st.sampled_from(languages))
    word = data.draw(st.sampled_from(INFLECTED))
    beginning = word[: data.draw(st.integers(3, len(word)))].lower()
    asked = (
        "SELECT neural.lexemes(%s, '', %s) @@ format('%%1$s:* | ''=%%1$s'':*',"
        "   neural.words_apart(neural.plain_text(%s, %s)))::tsquery OR to_tsvector(%s::regconfig, %s) = ''"
    )
    assert execute(asked, language, f"x {word} y", language, beginning, language, word.lower()) == [(True,)]
