"""Statements are kept by their shape: whatever decides one is in its key, or the statement is built each time."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    mapped_column,
    raiseload,
    relationship,
    with_loader_criteria,
)

from pgneural import RRF, Boost, Collection, Document, Searchable, WeightedSum
from pgneural.database import Database
from pgneural.errors import InvalidQuery
from pgneural.statement import Query
from pgneural.store.engine import libpq_url

ResolvedSpace = list[tuple[Any, float, Mapping[str, float]]]


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Untold(sa.ColumnElement[bool]):
    """A condition of the application's own, which does not say what decides it."""

    inherit_cache = False
    type = sa.Boolean()

    def __init__(self, number: int) -> None:
        self.number = number


@compiles(Untold)
def _untold(element: Untold, compiler: Any, **_: Any) -> str:
    return f"(mod(up, 3) = {element.number})"


class Spelled(sa.types.TypeDecorator[str]):
    """A type that does not say whether it can be kept."""

    impl = sa.Text
    cache_ok = False

    def __init__(self, before: str) -> None:
        super().__init__()
        self.before = before

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return self.before + value


class Base(DeclarativeBase):
    pass


class Group(Base):
    __tablename__ = "groups"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    tenant: Mapped[str]
    up: Mapped[int]
    down: Mapped[int]
    colour: Mapped[Colour]
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)
    tags: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    group_id: Mapped[int] = mapped_column(sa.ForeignKey(Group.id))
    group: Mapped[Group] = relationship()
    search = Searchable("text", encoder="hash")

    @hybrid_property
    def rising(self) -> Any:
        return self.up > self.down

    @hybrid_property
    def score(self) -> Any:
        return self.up - self.down


ROWS = 12


@pytest.fixture(scope="module")
def place(new_database: Callable[[str], str], template: str) -> Iterator[Any]:
    url = new_database(template)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(libpq_url(url)))
    with Database(url) as database, Session(engine) as session:
        words = ["germ", "plant", "fox", "stone"]
        texts = [" ".join(words[(n + k) % 4] for k in range(1 + n % 4)) for n in range(ROWS)]
        database.collection("notes", encoder="hash").index(
            [
                {"id": str(n), "title": "ab"[n % 2], "text": text, "metadata": {"up": n, "down": ROWS - n}}
                for n, text in enumerate(texts)
            ]
        )
        Base.metadata.create_all(engine)
        session.add_all(
            Item(
                text=text,
                tenant="ab"[n % 2],
                up=n,
                down=ROWS - n,
                colour=Colour.RED if n % 3 else Colour.BLUE,
                facts={"lang": ["en", "de", "fr"][n % 3], "deep": {"n": n}},
                tags=["x", "y", "z"][: n % 4],
                group=Group(name=f"group {n % 2}"),
            )
            for n, text in enumerate(texts)
        )
        session.flush()
        Item.search.sync(session)
        session.commit()
        yield SimpleNamespace(database=database, session=session)
    engine.dispose()


def texts(*conditions: str) -> list[Any]:
    """Return each text as a caller may give it."""
    return [*conditions, *map(sa.text, conditions), *map(sa.literal_column, conditions)]


UP = Document.metadata_["up"].as_integer()
DOWN = Document.metadata_["down"].as_integer()
Similar = aliased(Document)
same: Any = sa.bindparam("same", 3)

DOCUMENT_FILTERS: list[Any] = [
    None,
    True,
    False,
    *texts("title = 'a'", "title = 'b'", "(metadata->>'up')::int > 3", "(metadata->>'up')::int > 7"),
    ("title = :t", {"t": "a"}),
    ("title = :t", {"t": "b"}),
    ("title = :t OR (metadata->>'up')::int = :n", {"t": "a", "n": 3}),
    ("(metadata->>:key)::int > 4", {"key": "up"}),
    ("(metadata->>:key)::int > 4", {"key": "down"}),
    sa.text("title = :x").bindparams(x="a"),
    sa.text("title = :x").bindparams(x="b"),
    sa.text("external_id IN :ids").bindparams(sa.bindparam("ids", ["1", "2"], expanding=True)),
    sa.text("external_id IN :ids").bindparams(sa.bindparam("ids", ["3"], expanding=True)),
    Document.title == "a",
    Document.title == "b",
    Document.title == sa.bindparam("x", "a"),
    Document.title == sa.bindparam("x", "b"),
    Document.title == sa.bindparam(None, callable_=lambda: "a"),
    Document.title == sa.bindparam(None, callable_=lambda: "b"),
    Document.title == sa.bindparam("x", "a", literal_execute=True),
    Document.title == sa.bindparam("x", "b", literal_execute=True),
    Document.external_id.in_(["1"]),
    Document.external_id.in_(["1", "2", "3"]),
    Document.external_id.in_([]),
    Document.external_id.not_in(["1"]),
    Document.title.is_not_distinct_from("a"),
    Document.title.in_(sa.select(sa.literal("a"))),
    UP > 3,
    DOWN > 3,
    sa.func.least(UP, DOWN) > 2,
    sa.func.greatest(UP, DOWN) > 9,
    sa.cast(Document.external_id, sa.Numeric(10, 1)) == 2,
    sa.cast(Document.external_id, sa.Numeric(10, 0)) == 2,
    sa.cast(Document.external_id, sa.String(1)) == "1",
    sa.cast(Document.external_id, sa.String(2)) == "1",
    sa.case((Document.title == "a", UP), else_=DOWN) > 5,
    sa.case((Document.title == "b", UP), else_=DOWN) > 5,
    sa.select(sa.literal(True)).scalar_subquery(),
    sa.select(sa.literal(1) == 2).scalar_subquery(),
    sa.exists().where(Similar.title == Document.title, Similar.id != Document.id, Similar.external_id == "1"),
    sa.exists().where(Similar.title == Document.title, Similar.id != Document.id, Similar.external_id == "2"),
    sa.select(sa.func.max(Similar.id)).where(Similar.title == Document.title).scalar_subquery() == Document.id,
    sa.select(Similar.external_id).order_by(sa.text("id DESC")).limit(1).scalar_subquery() == Document.external_id,
    sa.select(Similar.external_id).order_by(sa.text("id ASC")).limit(1).scalar_subquery() == Document.external_id,
    Document.title == sa.literal("xa", Spelled("")).op("||")(""),
    sa.type_coerce("b", Spelled("")) == Document.title,
    sa.type_coerce("", Spelled("a")) == Document.title,
    sa.type_coerce("", Spelled("b")) == Document.title,
    Document.metadata_.contains({"up": 3}),
    Document.metadata_.contains({"up": 4}),
    Document.metadata_[("up",)].astext == "3",
    Document.metadata_[("down",)].astext == "3",
]

DOCUMENT_OPTIONS: list[dict[str, Any]] = [
    {},
    *({"mode": mode} for mode in ("semantic", "lexical")),
    *({"limit": limit} for limit in (1, 3, 5)),
    *({"limit": 3, "offset": offset} for offset in (1, 3)),
    *({"mode": "semantic", "aggregate": way} for way in ("mean", "sum", "top2", "top1")),
    *({"mode": "semantic", "max_distance": distance} for distance in (0.5, 0.9, 2)),
    *({"min_score": score} for score in (-1, 0, 0.0, 1.5)),
    {"fusion": WeightedSum(semantic=0.1, lexical=5)},
    {"fusion": WeightedSum(semantic=5, lexical=0.1)},
    {"fusion": RRF(1)},
    {"fusion": RRF(60)},
    {"fusion": RRF(60, semantic=0.1, lexical=5)},
    *({"boosts": [Boost(by, weight)]} for by in (UP, DOWN) for weight in (3, 3.0, -3)),
    *({"boosts": {by: 3}} for by in ("(metadata->>'up')::int", "(metadata->>'down')::int")),
    {"boosts": [Boost(UP), Boost(DOWN, 5)]},
    {"boosts": [Boost(UP % same), Boost(DOWN % same)]},
    {"boosts": [Boost(UP % sa.bindparam("same", 5)), Boost(DOWN % sa.bindparam("same", 2))]},
    {"boosts": [Boost.popularity(UP, 9)], "fusion": RRF()},
    {"boosts": [Boost.recency(Document.created_at - UP * timedelta(days=1), timedelta(days=2), 9)]},
    {"boosts": [Boost.recency(Document.created_at - DOWN * timedelta(days=1), timedelta(days=2), 9)]},
    {"boosts": [Boost(("(metadata->>'up')::int % :n", {"n": 3}), 9)]},
    {"boosts": [Boost(("(metadata->>'up')::int % :n", {"n": 5}), 9)]},
    {"diversity": 0.9},
    {"group_by": Document.title},
    {"group_by": "(metadata->>'up')::int % 3"},
    {"group_by": ("(metadata->>'up')::int % :n", {"n": 4})},
    {"group_by": ("(metadata->>'up')::int % :n", {"n": 2}), "per_group": 2},
]

ItemAgain = aliased(Item)

ITEM_FILTERS: list[Any] = [
    *texts("items.tenant = 'a'", "items.tenant = 'b'", "up > 3"),
    ("tenant = :t", {"t": "a"}),
    ("tenant = :t", {"t": "b"}),
    sa.text("up > :x").bindparams(x=3),
    sa.text("up > :x").bindparams(x=8),
    Item.tenant == "a",
    Item.tenant == "b",
    Item.tenant == sa.bindparam("t", "a"),
    Item.tenant == sa.bindparam("t", "b"),
    Item.rising,
    sa.not_(Item.rising),
    Item.score > 4,
    Item.up > 4,
    Item.down > 4,
    Item.colour == Colour.RED,
    Item.colour == Colour.BLUE,
    Item.facts["lang"].astext == "en",
    Item.facts["lang"].astext == "de",
    Item.facts[("deep", "n")].astext == "5",
    Item.tags.contains(["x", "y"]),
    Item.tags.contains(["z"]),
    sa.func.cardinality(Item.tags) > 1,
    Item.tags[1:2] == ["x", "y"],
    Item.tags[1:3] == ["x", "y", "z"],
    Item.group.has(Group.name == "group 1"),
    Item.group.has(Group.name == "group 0"),
    Item.id.in_([1, 2, 3]),
    Item.id.in_([4]),
    sa.exists().where(ItemAgain.id == Item.id + 1, ItemAgain.tenant == "a"),
    sa.exists().where(ItemAgain.id == Item.id + 2, ItemAgain.tenant == "a"),
    Untold(0),
    Untold(1),
    True,
    False,
]

ItemQuery = Callable[[Any], Any]


def _option(name: str, *values: Any, **named: Any) -> ItemQuery:
    return lambda query: getattr(query, name)(*values, **named)


ITEM_OPTIONS: list[ItemQuery] = [
    lambda query: query,
    *(_option("mode", mode) for mode in ("semantic", "lexical", "hybrid")),
    _option("limit", 2),
    lambda query: query.limit(2).offset(2),
    *(_option("boost", by, weight) for by in (Item.up, Item.down, Item.score) for weight in (3.0, -3)),
    *(_option("boost", by, 3.0) for by in ("up", "down", ("up % :n", {"n": 3}), ("up % :n", {"n": 4}))),
    lambda query: query.boost(Item.up).boost(Item.down, 4),
    _option("fuse", RRF(2)),
    _option("fuse", WeightedSum(semantic=1, lexical=9)),
    _option("threshold", min_score=0.1),
    _option("threshold", max_distance=0.8),
    _option("group_by", Item.tenant),
    _option("group_by", Item.colour),
    _option("group_by", "up % 3"),
    _option("options", raiseload(Item.group)),
    _option("options", with_loader_criteria(Item, Item.tenant == "a")),
    _option("options", with_loader_criteria(Item, Item.tenant == "b")),
    _option("diverse", 0.8),
]


def of_documents(notes: Collection, asked: tuple[str, Any, Mapping[str, Any]]) -> ResolvedSpace:
    text, where, options = asked
    try:
        hits = notes.search(text, where=where, **options)
    except InvalidQuery as error:  # options that do not go with each other
        return [(str(error), 0.0, {})]
    return [(hit.entity.external_id, round(hit.score, 9), rounded(hit.legs)) for hit in hits]


def of_items(session: Session, asked: tuple[Any, tuple[Any, ...], ItemQuery]) -> ResolvedSpace:
    query, conditions, option = asked
    try:
        hits = option(query.where(*conditions)).all(session)
    except InvalidQuery as error:
        return [(str(error), 0.0, {})]
    return [(hit.entity.id, round(hit.score, 9), rounded(hit.legs)) for hit in hits]


def rounded(legs: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in legs.items()}


class Pool:
    """Questions by number, with the answers of statements that were built for them alone."""

    def __init__(self, asked: Callable[[Any, Any], ResolvedSpace], questions: list[Any], alone: Any, keep: Any) -> None:
        self._asked, self.questions, self._alone, self._keep = asked, questions, alone, keep
        self._expected: dict[int, ResolvedSpace] = {}

    def expected(self, number: int) -> ResolvedSpace:
        if number not in self._expected:
            self._keep(0)
            self._expected[number] = self._asked(self._alone, self.questions[number])
            self._keep(200)
        return self._expected[number]

    def require(self, warm: Any, numbers: list[int]) -> None:
        """Ask one after the other, with the statements that are kept of those before."""
        for number in numbers:
            expected = self.expected(number)
            assert self._asked(warm, self.questions[number]) == expected, f"question {number}"


@pytest.fixture(scope="module")
def keep() -> Iterator[Callable[[int], None]]:
    """Return a function that says how many statements are kept; with 0 each is built anew."""
    with pytest.MonkeyPatch.context() as patch:
        yield lambda kept: patch.setattr("pgneural.statement.cache.MOST_STATEMENTS", kept)


@pytest.fixture(scope="module")
def documents(place: Any, keep: Any) -> Pool:
    questions = [("germ", where, {"mode": "semantic", "limit": ROWS}) for where in DOCUMENT_FILTERS]
    questions += [("plant fox", None, options) for options in DOCUMENT_OPTIONS]
    return Pool(of_documents, questions, place.database.existing("notes"), keep)


@pytest.fixture(scope="module")
def items(place: Any, keep: Any) -> Pool:
    vector = np.ones(256, dtype=np.float32)
    questions: list[Any] = [
        (Item.search("germ").mode("semantic").limit(ROWS), (where,), ITEM_OPTIONS[0]) for where in ITEM_FILTERS
    ]
    questions += [(Item.search("plant fox"), (), option) for option in ITEM_OPTIONS]
    first, second, third = place.session.scalars(sa.select(Item).order_by(Item.id).limit(3))
    queries = [Item.search(vector), Item.search(first), Item.search(second), Item.search.recommend([first], [third])]
    questions += [(query, (), ITEM_OPTIONS[0]) for query in queries]
    return Pool(of_items, questions, place.session, keep)


@pytest.mark.parametrize("step", [1, -1])
def test_no_two_questions_of_a_collection_share_a_statement(place: Any, documents: Pool, step: int) -> None:
    numbers = list(range(len(documents.questions)))[::step]
    documents.require(place.database.existing("notes"), numbers)


@pytest.mark.parametrize("step", [1, -1])
def test_no_two_questions_of_a_class_share_a_statement(place: Any, items: Pool, step: int) -> None:
    Item.search.searcher().forget_statements()
    items.require(place.session, list(range(len(items.questions)))[::step])


def by_hand(where: Any) -> Any:
    """Return a filter as a caller of SQLAlchemy would write it."""
    if isinstance(where, tuple):
        return sa.text(where[0]).bindparams(**where[1])
    if isinstance(where, str):
        return sa.text(where)
    return sa.true() if where is None else where


def test_each_filter_finds_what_a_statement_by_hand_finds(place: Any, documents: Pool, items: Pool) -> None:
    """SQLAlchemy's own cache takes a parameter with a callable for one without: it is left out."""
    notes, anew = Document.collection == "notes", {"compiled_cache": None}
    for number, where in enumerate(DOCUMENT_FILTERS):
        wanted = place.session.scalars(
            sa.select(Document.external_id).where(notes, by_hand(where)), execution_options=anew
        )
        assert {answer[0] for answer in documents.expected(number)} == set(wanted), number
    for number, where in enumerate(ITEM_FILTERS):
        wanted = place.session.scalars(sa.select(Item.id).where(by_hand(where)), execution_options=anew)
        assert {answer[0] for answer in items.expected(number)} == set(wanted), number


def test_the_questions_differ(documents: Pool, items: Pool) -> None:
    """The pool would show nothing if most of it were refused, or the same."""
    for pool in (documents, items):
        answers = [pool.expected(number) for number in range(len(pool.questions))]
        refused = [answer for answer in answers if answer and isinstance(answer[0][0], str) and " " in answer[0][0]]
        assert refused == []
        assert len({str(answer) for answer in answers}) > len(answers) / 2


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_questions_of_a_collection(place: Any, documents: Pool, data: st.DataObject) -> None:
    where, options = st.sampled_from(DOCUMENT_FILTERS), st.sampled_from(DOCUMENT_OPTIONS)
    question = st.tuples(st.sampled_from(["germ", "plant fox"]), where, options)
    asked = data.draw(st.lists(question, min_size=2, max_size=4))
    at = len(documents.questions)
    documents.questions.extend(asked)
    documents.require(place.database.existing("notes"), list(range(at, at + len(asked))))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_questions_of_a_class(place: Any, items: Pool, data: st.DataObject) -> None:
    query = st.sampled_from([Item.search("germ"), Item.search("plant fox").mode("semantic")])
    where = st.lists(st.sampled_from(ITEM_FILTERS), max_size=3).map(tuple)
    asked = data.draw(st.lists(st.tuples(query, where, st.sampled_from(ITEM_OPTIONS)), min_size=2, max_size=4))
    at = len(items.questions)
    items.questions.extend(asked)
    items.require(place.session, list(range(at, at + len(asked))))


def test_parameters_of_one_name_keep_their_values(place: Any) -> None:
    notes = place.database.existing("notes")
    one: Any = sa.bindparam("x", "1")
    other: Any = sa.bindparam("x", "2")
    both = sa.or_(Document.external_id == one, Document.external_id == other)
    assert {hit.entity.external_id for hit in notes.search("germ", where=both)} == {"1", "2"}
    texts = sa.or_(sa.text("external_id = :x").bindparams(x="3"), sa.text("external_id = :x").bindparams(x="4"))
    assert {hit.entity.external_id for hit in notes.search("germ", where=texts)} == {"3", "4"}
    assert notes.facets(Document.external_id == one, where=Document.external_id == other) == {False: 1}
    where = Item.up > sa.bindparam("x", 3)
    hits = Item.search("germ").where(where, Item.down > sa.bindparam("x", 5)).boost(Item.up % sa.bindparam("x", 2), 9)
    assert {hit.entity.up for hit in hits.all(place.session)} == {4, 5, 6}
    assert {hit.legs["boost 1"] for hit in hits.all(place.session)} == {0, 1}


def test_what_two_expressions_share_is_part_of_the_key(place: Any) -> None:
    """With one parameter in both, and then with one in each."""

    def asked(one: sa.BindParameter[Any], other: sa.BindParameter[Any]) -> list[tuple[int, float]]:
        hits = Item.search("germ").where(Item.up < one).boost(Item.up % other, 9.0).limit(ROWS).all(place.session)
        return sorted((hit.entity.up, hit.legs["boost 1"]) for hit in hits)

    shared: sa.BindParameter[Any] = sa.bindparam(None, 5, unique=True)
    assert asked(shared, shared) == [(n, n % 5) for n in range(5)]
    assert asked(sa.bindparam(None, 7, unique=True), sa.bindparam(None, 2, unique=True)) == [
        (n, n % 2) for n in range(7)
    ]


def test_a_new_value_needs_no_new_statement(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, built, select = place.database.existing("notes"), [], Query.select

    def counted(query: Query, target: Any) -> Any:
        built.append(query)
        return select(query, target)

    monkeypatch.setattr(Query, "select", counted)
    for number in range(5):
        notes.search("germ", where=("external_id = :id", {"id": str(number)}), mode="semantic", limit=4)
        notes.search("germ", where=Document.external_id == str(number), mode="semantic", limit=4)
        Item.search("germ").where(("up = :up", {"up": number})).mode("semantic").limit(4).all(place.session)
    assert len(built) == 3
