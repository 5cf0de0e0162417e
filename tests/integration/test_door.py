"""The door: what a filter, a boost or a grouping may be, and that a text stays in its place."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from pgneural import Boost, Collection, Document, Searchable
from pgneural.cli import main
from pgneural.database import Database
from pgneural.errors import InvalidFilter, InvalidQuery
from pgneural.store.engine import libpq_url


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    tenant: Mapped[str]
    made: Mapped[date]
    search = Searchable("text", encoder="hash")


class Other(Base):
    __tablename__ = "others"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int]


@pytest.fixture(scope="module")
def place(new_database: Callable[[str], str], template: str) -> Iterator[Any]:
    """A collection beside another one, a mapped class, and a table that is not to be touched."""
    url = new_database(template)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(libpq_url(url)))
    with Database(url) as database, Session(engine) as session:
        for name in ("mine", "theirs"):
            records = [{"id": str(n), "text": f"germ {n}", "metadata": {"lang": "en"}} for n in range(5)]
            database.collection(name, encoder="hash").index(records)
        Base.metadata.create_all(engine)
        session.add_all(Item(text=f"germ {n}", tenant="ab"[n % 2], made=date(2024, 1, 1 + n)) for n in range(6))
        session.execute(sa.text("CREATE TABLE victim AS SELECT n FROM generate_series(1, 3) n"))
        session.flush()
        Item.search.sync(session)
        session.commit()
        yield SimpleNamespace(
            database=database, mine=database.existing("mine"), session=session, url=url, engine=engine
        )
    engine.dispose()


@pytest.fixture
def mine(place: Any) -> Collection:
    found: Collection = place.mine
    return found


@pytest.fixture
def session(place: Any) -> Iterator[Session]:
    found: Session = place.session
    yield found
    found.rollback()


HOSTILE = [
    "true) OR (true",
    "false) OR (true",
    "true)) OR ((true",
    "(true)) OR ((true)",
    "true) OR (true --",
    "true) OR true --",
    "true) --",
    "true) /*",
    "true) OR (true /* */",
    "true) OR (true /* ) */",
    "/* ( */ true) OR (true",
    "/* /* ( */ */ true) OR (true",
    "/* /* */ true) OR (true",
    "--(\ntrue) OR (true",
    "--\rtrue) OR (true\n) OR (true",
    "1 --1\n= 1) OR (true",
    "1 +--1\n 1 = 2) OR (true",
    "1 */* ( */ 1 = 1) OR (true",
    "E'a'\n'\\'' = '' ) OR (true) OR (true -- '",
    "e'a'\n  \n'\\'' = '' ) OR (true) OR (true -- '",
    "E'a' -- comment\n'\\'' = '' ) OR (true) OR (true -- '",
    "E'\\'' = '' ) OR (true) OR ('' = '",
    "E'\\\\' = '' ) OR (true",
    "E'\\\\\\'' = ' ) OR (' ) OR (true",
    "'\\' = '' ) OR (true) OR ('' = '",
    "'a'\n'b' = '' ) OR (true",
    "N'\\' = '' ) OR (true",
    "B'1' = B'1') OR (true",
    "X'1' = X'1') OR (true",
    "U&'\\0027' = '' ) OR (true",
    "U&'!0027' UESCAPE '!' = '' ) OR (true",
    "U&'\\' UESCAPE '\\' = '' ) OR (true",
    'U&"\\0029" = 1) OR (true',
    "\"title\" = '') OR (true",
    'title = ")" OR (true',
    "$$($$ = '') OR (true",
    "$a$ $b$ ( $b$ $a$ = '') OR (true",
    "$a$ ) $a = '') OR (true",
    "$é$($é$ = '') OR (true",
    "title$a$($a$ = '') OR (true",
    "true]) OR ([true",
    "true])[1] OR (ARRAY[true",
    "(ARRAY[true])[1]) OR ((ARRAY[true])[1]",
    "true)]) OR (ARRAY[(true",
    "[true]) OR ([true]",
    "true) UNION SELECT n FROM victim WHERE (true",
    "true) UNION ALL SELECT (true",
    "true) ORDER BY (1",
    "true) GROUP BY (id",
    "true) LIMIT (1",
    "true) FOR UPDATE OF documents --",
    "true) RETURNING (true",
    "true) WINDOW w AS (ORDER BY id",
    "true; DELETE FROM victim",
    "true); DELETE FROM victim; SELECT (true",
    "true); DELETE FROM victim --",
    "true])[1]; DELETE FROM victim; SELECT (ARRAY[true",
    "true); COMMIT; DELETE FROM victim; BEGIN; SELECT (true",
    "true) AS x; TRUNCATE victim; SELECT (true",
    "1 IN (WITH gone AS (DELETE FROM victim RETURNING 1) SELECT 1 FROM gone)",
    "true\u00a0) OR (true",
    "true\u2028) OR (true",
    "true\t\v\f) OR (true",
    "true） OR （true",
    "true) OR (true\\",
    "'%' = '') OR (true",
    "'%(neural_text)s' = '') OR (true",
    "'{}' = '') OR (true {}",
    "'",
    '"',
    "(",
    ")",
    "[",
    "]",
    "$$",
    "/*",
    "",
    "--",
    "true,",
    "true, true",
    "SELECT true",
    "count(*) > 0",
    "row_number() OVER () > 0",
    "id IN (SELECT source_id FROM documents_mine WHERE embedding IS NOT NULL",
    "embedding IS NOT NULL",
    "bm25 > 0",
]


def left(place: Any) -> list[int]:
    """Count what is there."""
    with place.engine.connect() as connection:
        tables = ("neural.documents", "items", "victim")
        return [connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0 for table in tables]  # noqa: S608


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_does_not_leave_its_place(place: Any, mine: Collection, session: Session, text: str) -> None:
    before = left(place)
    session.execute(sa.text("SET LOCAL application_name = 'still here'"))
    for use in (
        lambda: mine.delete(where=text),
        lambda: mine.delete(where=sa.text(text.replace(":", "\\:"))),
        lambda: mine.delete(where=sa.literal_column(text)),
        lambda: mine.delete(where=sa.or_(Document.title == "x", sa.literal_column(text or " "))),
        lambda: mine.delete(where=(text + " AND :yes", {"yes": True})),
        lambda: mine.search("germ", where=text),
        lambda: mine.recommend(["1"], where=text),
        lambda: mine.facets("title", where=text),
        lambda: Item.search("germ").where(text).all(session),
    ):
        with pytest.raises(InvalidFilter):
            use()
    assert session.scalar(sa.text("SHOW application_name")) == "still here"
    if text != "SELECT true":  # the one that is a value between parentheses
        with pytest.raises((InvalidFilter, sa.exc.DBAPIError)):  # no server reads it before: plain or refused
            session.execute(Item.search("germ").where(text).select())
    session.rollback()
    assert left(place) == before


VALUES = ["1) , (1", "1), (SELECT 2", "1])[1], (ARRAY[1", "1) FROM victim, (SELECT 1", "1 AS x", "*", "DISTINCT 1"]
VALUES += [text.replace("true) OR (true", "1) + (1") for text in HOSTILE if text.endswith("true) OR (true")]


@pytest.mark.parametrize("text", VALUES)
def test_a_value_does_not_leave_its_place(mine: Collection, session: Session, text: str) -> None:
    for use in (
        lambda: mine.facets(text),
        lambda: mine.search("germ", boosts={text: 1.0}),
        lambda: mine.search("germ", boosts=[Boost.popularity(text)]),
        lambda: mine.search("germ", group_by=text),
        lambda: Item.search("germ").boost(text).all(session),
        lambda: Item.search("germ").group_by(text).all(session),
    ):
        with pytest.raises(InvalidFilter):
            use()


def test_without_the_guard_texts_leave_their_place(place: Any) -> None:
    """The control: written between parentheses by hand, many of them delete what is not theirs."""
    effects = 0
    for text in HOSTILE:
        with psycopg.connect(libpq_url(place.url)) as connection:
            statement = f"DELETE FROM neural.documents WHERE collection = 'mine' AND false AND ({text}\n)"  # noqa: S608
            try:
                connection.execute(statement.replace("BEGIN; ", "").replace("COMMIT; ", "").encode())
            except psycopg.Error:
                continue
            counted = connection.execute("SELECT (SELECT count(*) FROM victim), count(*) FROM neural.documents")
            effects += counted.fetchone() != (3, 10)
            connection.rollback()
    assert effects >= 25


CONTAINED = [
    "title = '' AND content LIKE 'germ%' -- a comment",
    "content ~ '\\d$' AND E'\\'' = '''' /* it's ( nested /* here */ */",
    "$$it's ($$ <> $a$)$a$ AND U&'d\\0061t' = 'dat'",
    "CASE WHEN metadata ? 'lang' THEN metadata->>'lang' = 'en' ELSE false END",
    "external_id IN (SELECT n::text FROM generate_series(0, 9) n) AND (ARRAY[1, 2])[1:2] = ARRAY[1, 2]",
    "'{}' <> '%s' AND '%(x)s' <> '{0}' AND 5 % 3 = 2 AND content NOT LIKE '%z'",
    "'10:30'::time > '9:00' AND ':lang' <> 'x'",
    "E'a'\n'\\'' = 'a'''",
    "(title || 'z' COLLATE \"C\" < 'b') IS NOT TRUE",
    "(created_at, id) > (timestamptz '2000-01-01', 0) AND metadata @> '{\"lang\": \"en\"}'",
]


@pytest.mark.parametrize("text", CONTAINED)
def test_ordinary_texts_are_taken(mine: Collection, text: str) -> None:
    assert len(mine.search("germ", where=text)) == 5
    assert mine.facets("metadata->>'lang'", where=text) == {"en": 5}
    assert mine.facets(text) == {True: 5}
    assert len(mine.search("germ", boosts={f"({text}\n)::int": 1.0}, group_by=f"external_id || ({text}\n)")) == 5


def test_other_settings_of_strings(place: Any, session: Session) -> None:
    hostile, good = "'\\' = '' ) OR (true) OR ('' = '", "'\\'' = ''''"
    read_otherwise = "'\\' || ') OR (true) OR (' = '"  # one string more or less
    asked = Item.search("germ").mode("semantic")
    for setting in ("on", "off", "on"):
        session.execute(sa.text(f"SET LOCAL standard_conforming_strings = {setting}"))
        session.execute(sa.text("SET LOCAL escape_string_warning = off"))
        with pytest.raises(InvalidFilter):
            asked.where(hostile).all(session)
        for text in (good, read_otherwise, "'\\' = '\\' -- '"):
            narrowed = f"tenant = 'a' AND ({text}\n)"
            try:
                found = asked.where(f"tenant = 'a' AND {text}").all(session)
            except InvalidFilter:
                continue
            assert {hit.entity.tenant for hit in found} <= {"a"}, narrowed


def test_a_text_is_read_once(mine: Collection) -> None:
    read: list[str] = []

    def listen(*given: Any) -> None:
        read.append(given[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    for _ in range(3):
        mine.search("germ", where="external_id = '1' OR false")
        mine.search("germ", where="external_id = '2' OR false", mode="lexical")
    assert sum("unreadable" in statement for statement in read) == 2
    for _ in range(3):  # a backslash has two meanings
        mine.search("germ", where=r"content ~ '\d' OR false")
    assert sum("unreadable" in statement for statement in read) == 5
    sa.event.remove(sa.Engine, "before_cursor_execute", listen)


def test_an_invalid_filter_leaves_the_transaction_as_it_was(session: Session) -> None:
    session.add(Item(text="new", tenant="c", made=date(2024, 1, 1)))
    for text in ("no_such = 1", "true) OR (true", "tenant = 1", "tenant = $1", "f(1)", "x.tenant = ''", "1/0 = 1"):
        with pytest.raises(InvalidFilter):
            Item.search("germ").where(text).all(session)
    assert session.scalar(sa.select(sa.func.count()).where(Item.tenant == "c")) == 1


def test_read_only_transactions(place: Any) -> None:
    with Session(place.engine) as session:
        session.execute(sa.text("SET TRANSACTION READ ONLY"))
        assert len(Item.search("germ").where("tenant = 'a' OR false").all(session)) == 3
        with pytest.raises(InvalidFilter):
            Item.search("germ").where("tenant = 'a') OR (true").all(session)


def test_async_sessions(place: Any) -> None:
    async def run() -> int:
        engine = create_async_engine(
            "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(libpq_url(place.url))
        )
        async with AsyncSession(engine) as session:
            with pytest.raises(InvalidFilter):
                await Item.search("germ").where("tenant = 'a') OR (true").all(session)
            hits = await Item.search("germ").where(("tenant = :t", {"t": "a"})).all(session)
        await engine.dispose()
        return len(hits)

    assert asyncio.run(run()) == 3


def test_parameters(mine: Collection, session: Session) -> None:
    def ids(text: str, **values: Any) -> list[str]:
        return sorted(hit.entity.external_id for hit in mine.search("germ", where=(text, values)))

    assert ids("external_id = :id", id="1") == ["1"]
    assert ids("external_id = :id", id="1' OR '1' = '1") == []
    assert ids("external_id = ANY(:ids) AND metadata->>'lang' = :lang", ids=["1", "2"], lang="en") == ["1", "2"]
    assert ids("external_id::int > :n AND :n::int < 9", n=3) == ["4"]
    assert ids("metadata @> :part", part='{"lang": "en"}') == ["0", "1", "2", "3", "4"]
    assert ids("created_at > :since AND ':x' <> \":y\".external_id".replace('":y".', ""), since="2000-01-01") != []
    assert ids("(ARRAY['a', 'b'])[1\\:1] = ARRAY[:a] AND '12:30' <> 'a' AND external_id = '1'", a="a") == ["1"]
    assert ids("uri IS NOT DISTINCT FROM :none AND external_id = :id::text", none=None, id="3") == ["3"]
    assert mine.facets(("external_id = :id", {"id": "1"})) == {False: 4, True: 1}
    assert mine.facets("external_id", where=("external_id = :id", {"id": "1"}))
    assert len(mine.like("1", where=("external_id <> :id", {"id": "2"}))) == 3
    assert len(mine.discover("germ", [("1", "2")], where=("external_id <> :id", {"id": "3"}))) == 2
    best = mine.search("germ", boosts=[Boost(("(external_id = :id)::int", {"id": "3"}), 50)], limit=1)
    assert best[0].entity.external_id == "3"
    assert len(mine.search("germ", group_by=("external_id = :id", {"id": "3"}))) == 2
    assert mine.delete(where=("external_id = :id", {"id": "none"})) == 0
    tenants = {hit.entity.tenant for hit in Item.search("germ").where(("tenant = :t", {"t": "b"})).all(session)}
    assert tenants == {"b"}
    rows = session.execute(Item.search("germ").where(("tenant = :t", {"t": "b"})).select()).all()
    assert {row[0].tenant for row in rows} == {"b"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("external_id = :id", {}), "names :id and there is no value"),
        (("external_id = :id", {"id": "1", "lang": "en"}), "has a value for 'lang'"),
        (("external_id = ':id'", {"id": "1"}), "does not name it; it names none"),
        (("external_id = :neural_id", {"neural_id": "1"}), "does not begin with neural_"),
        (("external_id = :id", {"id": {"a": 1}}), "the parameter id is .* of type dict"),
        (("external_id = :id", {"id": lambda: 1}), "of type function"),
        (("external_id = :id", {"id": Document.title}), "the parameter id is"),
        (("external_id = :id", {"id": "a\0"}), "NUL byte"),
        (("external_id = :id",), "of type tuple"),
        (("external_id = :id", ["1"]), "of type tuple"),
        ("external_id = '\0'", "NUL byte"),
        ("external_id = '\ud800'", "surrogate"),
        ("external_id = $1", r"has a placeholder \$1; write :name"),
        ({"external_id": "1"}, "of type dict"),
        (["external_id = '1'"], "of type list"),
        ({"external_id"}, "of type set"),
        (1, "of type int"),
        (1.0, "of type float"),
        (b"true", "of type bytes"),
        (lambda: sa.true(), "of type function"),
        (object(), "of type object"),
        (Document, "of type"),
        (Document.__table__, "rows and not a value"),
        (sa.select(Document.id), "may have many rows"),
        (sa.text("external_id = :id"), "parameter 'id' without a value"),
        (sa.text("external_id = :neural_id").bindparams(neural_id="1"), "begin with neural_"),
        (Document.external_id == sa.bindparam("id"), "parameter 'id' without a value"),
        (Document.external_id == sa.bindparam("neural_states", "1"), "begin with neural_"),
        (Other.id == 1, "over another table, others"),
        (aliased(Document).title == "x", "over another table"),
    ],
)
def test_what_is_no_filter_is_refused_by_name(mine: Collection, where: Any, said: str) -> None:
    for use in (mine.search, mine.facets):
        with pytest.raises(InvalidFilter, match=said):
            use("title", where=where)
    with pytest.raises(InvalidFilter, match=said):
        mine.delete(where=where)


@pytest.mark.parametrize("given", [{"a": 1}, [1], 1, True, None, b"x", lambda: 1, object(), sa.select(Item.id), Item])
def test_what_is_no_expression_is_refused_by_name(mine: Collection, session: Session, given: Any) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: mine.facets(given),
        lambda: Boost.popularity(given),
        lambda: Item.search("germ").boost(given).all(session),
        lambda: mine.search("germ", group_by=given),
    ]
    for use in uses[:3] if given is None else uses:
        with pytest.raises(InvalidFilter, match="expected a SQLAlchemy expression, SQL as text"):
            use()
    if not isinstance(given, bool):
        with pytest.raises(InvalidFilter):
            Item.search("germ").where(given)


def test_options_that_are_no_numbers_are_refused(mine: Collection) -> None:
    given: list[dict[str, Any]] = [
        {"max_distance": "1"},
        {"min_score": sa.literal(1)},
        {"boosts": [1]},
        {"boosts": "title"},
    ]
    for options in given:
        with pytest.raises(InvalidQuery, match=f"{next(iter(options))} is .*expected"):
            mine.search("germ", **options)
    with pytest.raises(InvalidQuery, match="weight of a boost is '1'"):
        Boost("1", "1")  # type: ignore[arg-type]


def test_a_statement_of_others_takes_plain_texts(session: Session) -> None:
    for text in ("tenant = 'a'", "tenant IN ('a', 'it''s (') AND (ARRAY[1])[1] = 1", "items.\"tenant\" = 'a'"):
        rows = session.execute(Item.search("germ").where(text).select()).all()
        assert len(rows) == 3
    for text in ("tenant = E'a'\n'\\''", "tenant = $$a$$", "tenant = 'a' -- x", "tenant = 'a' /* */", "true;"):
        with pytest.raises(InvalidFilter, match=re.escape("select() cannot ask a server about it")):
            Item.search("germ").where(text).select()


def test_a_precedence_does_not_leave_the_collection(mine: Collection) -> None:
    either = "external_id = 'none' OR external_id = '1'"
    given: list[Any] = [either, sa.text(either), sa.literal_column(either)]
    for where in given:
        assert [hit.entity.collection for hit in mine.search("germ", where=where)] == ["mine"]
        assert sum(mine.facets("id", where=where).values()) == 1


def test_the_command_line(place: Any) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, [*arguments, "--database", place.url])

    where = "external_id = :id AND metadata->>'lang' = :lang"
    asked = ("search", "mine", "germ", "--where", where, "--param", "lang=en", "--json")
    found = run(*asked, "--param", "id=3")
    assert [hit["external_id"] for hit in json.loads(found.output)["hits"]] == ["3"]
    hostile = run(*asked, "--param", "id=3' OR '' = '")
    assert json.loads(hostile.output)["hits"] == []
    counted = run("facets", "mine", "external_id", "--where", "external_id < :id", "--param", "id=2", "--json")
    assert [row["value"] for row in json.loads(counted.output)["facets"]] == ["0", "1"]
    deleted = run("delete", "mine", "--where", "external_id = :id", "--param", "id=a=b", "--json")
    assert json.loads(deleted.output)["deleted"] == 0
    for arguments, said in (
        (("--where", "external_id = :id", "--param", "it=1"), "names :id and there is no value for it"),
        (("--where", "true", "--param", "id=1"), "has a value for 'id' and does not name it"),
        (("--param", "id=1"), "--param fills a name in --where"),
        (("--where", "true", "--param", "id"), "is not NAME=VALUE"),
        (("--where", ":a = :a", "--param", "a=1", "--param", "a=2"), "names a parameter twice"),
        (("--where", "true) OR (true"), "the filter does not work: syntax error"),
        (("--boost", "1) + (1"), "the boost does not work: syntax error"),
        (("--group-by", "1) + (1"), "the grouping does not work: syntax error"),
    ):
        refused = run("search", "mine", "germ", *arguments)
        assert refused.exit_code != 0
        assert said in refused.output


LANGUAGES = ["'a'); DELETE FROM victim; SELECT ('a'", "'a') FROM victim, (SELECT 'a'", "E'a'\n'\\'' ) || ('"]


@pytest.mark.parametrize("text", LANGUAGES)
def test_languages_of_documents(place: Any, text: str) -> None:
    before = left(place)
    with pytest.raises(InvalidFilter, match="language_by does not work"):
        place.database.collection("spoken", encoder="hash", language_by=text)
    with pytest.raises(InvalidFilter, match=r"language_by is .*expected SQL as text"):
        place.database.collection("spoken", encoder="hash", language_by=Document.title)
    assert left(place) == before
