"""Searching and syncing mapped classes by every driver of PostgreSQL that SQLAlchemy has and that we speak to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Boost, Searchable
from pgneural.errors import DatabaseUnreachable, InvalidFilter, InvalidQuery, UnsupportedDriver
from tests.fixtures.orm import ANIMALS, texts

Result = TypeVar("Result")
SYNC, ASYNC = ("psycopg", "psycopg2"), ("psycopg_async", "asyncpg")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    views: Mapped[int]
    search = Searchable("text", encoder="hash")


class Fast(Base):
    __tablename__ = "fast items"
    day: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), primary_key=True)
    key: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash", sync="inline")


class Own(Base):
    __tablename__ = "own"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash", storage="halfvec")


class Driven:
    """A database through one driver: work is done in a session of it."""

    def __init__(self, driver: str, url: str) -> None:
        parts = conninfo_to_dict(url)
        self.driver = driver
        name = "psycopg" if driver.startswith("psycopg_") else driver
        self.url = sa.URL.create(
            f"postgresql+{name}",
            str(parts["user"]),
            None if parts.get("password") is None else str(parts["password"]),
            database=str(parts["dbname"]),
            query={"host": str(parts["host"])},
        )

    def run(self, work: Callable[[Session], Result]) -> Result:
        """Do something in a session, and commit."""
        if self.driver in ASYNC:
            return asyncio.run(self._awaited(work))
        engine = sa.create_engine(self.url)
        try:
            with Session(engine, expire_on_commit=False) as session:
                done = work(session)
                session.commit()
        finally:
            engine.dispose()
        return done

    async def _awaited(self, work: Callable[[Session], Result]) -> Result:
        engine = create_async_engine(self.url)
        try:
            async with AsyncSession(engine, expire_on_commit=False) as session:
                done = await session.run_sync(work)
                await session.commit()
        finally:
            await engine.dispose()
        return done


@pytest.fixture(scope="module")
def made_once(new_database: Callable[[str], str], template: str) -> str:
    """One database for all drivers."""
    url = new_database(template)
    Driven("psycopg", url).run(lambda session: Base.metadata.create_all(session.connection()))
    return url


@pytest.fixture(params=[*SYNC, *ASYNC])
def driven(request: pytest.FixtureRequest, made_once: str) -> Driven:
    made = Driven(request.param, made_once)
    made.run(lambda session: session.execute(sa.text('TRUNCATE items, "fast items", own, neural.vectors CASCADE')))
    for class_ in (Item, Fast, Own):
        made.run(class_.search.sync)
    return made


def fill(session: Session) -> None:
    session.add_all(Item(id=n, text=text, views=n) for n, text in enumerate(ANIMALS, start=1))
    assert Item.search.sync(session).rows == 5


def test_search_and_sync(driven: Driven) -> None:
    driven.run(fill)

    def searched(session: Session) -> None:
        for mode in ("semantic", "lexical", "hybrid"):
            hits = Item.search("red fox").mode(mode).limit(3).all(session)
            assert texts(hits)[0] == "a red fox runs", mode
            assert hits[0].chunk.text == "a red fox runs"
        vector = Item.search.encoder.encode_query("red fox")
        assert texts(Item.search(vector).limit(1).all(session)) == ["a red fox runs"]
        narrowed = Item.search("fox").where(Item.views > 2, Item.text != ANIMALS[2]).limit(9).all(session)
        assert {hit.entity.id for hit in narrowed} == {4, 5}
        assert [hit.entity.id for hit in Item.search("zebra").where("views < 3").limit(9).all(session)] != []
        boosted = Item.search("animal").boost(Boost(Item.views, 100.0)).limit(1).all(session)
        assert boosted[0].entity.id == 5
        again = Item.search("animal").boost("-views", 100.0).limit(1).all(session)
        assert again[0].entity.id == 1
        fox = session.get_one(Item, 1)
        assert fox not in [hit.entity for hit in Item.search.like(fox).all(session)]
        others = [session.get_one(Item, 2)], [session.get_one(Item, 3)]
        assert len(Item.search.recommend(*others).limit(9).all(session)) == 3
        assert len(Item.search("fox").diverse(0.5).limit(3).all(session)) == 3
        assert len(Item.search("fox").group_by(Item.views % 2).limit(3).all(session)) == 2
        rows = session.execute(Item.search("red fox").limit(2).select()).all()
        assert [row.rank for row in rows] == [1, 2]
        explained = Item.search("red fox").limit(3).explain(session)
        assert explained.hits[0].entity.id == 1
        assert explained.words
        assert Item.search.pending(session) == 0

    driven.run(searched)


def test_what_changes_is_synced(driven: Driven) -> None:
    driven.run(fill)

    def change(session: Session) -> None:
        session.get_one(Item, 1).text = "a purple unicorn"
        session.delete(session.get_one(Item, 2))
        session.flush()
        assert Item.search.pending(session) == 2
        report = Item.search.sync(session)
        assert (report.rows, report.chunks_encoded) == (2, 1)

    driven.run(change)
    driven.run(lambda session: session.execute(sa.text("UPDATE items SET text = text || ' today'")))

    def look(session: Session) -> None:
        assert Item.search.sync(session).rows == 4
        assert Item.search("unicorn today").limit(1).all(session)[0].entity.id == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(Item.search.chunks)) == 4
        stored = session.scalar(sa.select(Item.search.chunks.c.embedding).limit(1))
        assert np.asarray(stored if not isinstance(stored, str) else [0.0]).size

    driven.run(look)


def test_inline_with_keys_of_other_types(driven: Driven) -> None:
    day = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)

    def write(session: Session) -> None:
        session.add_all(Fast(day=day, key=uuid.UUID(int=n), text=text) for n, text in enumerate(ANIMALS))
        session.flush()
        (hit,) = Fast.search("grey cat").limit(1).all(session)
        assert (hit.entity.key, hit.entity.day) == (uuid.UUID(int=1), day)

    driven.run(write)

    def again(session: Session) -> None:
        fox = session.get_one(Fast, (day, uuid.UUID(int=0)))
        fox.text = "a white swan"
        assert Fast.search("white swan").limit(1).all(session)[0].entity is fox
        assert len(Fast.search.like(fox).limit(9).all(session)) == 4

    driven.run(again)


def test_half_precision(driven: Driven) -> None:
    def work(session: Session) -> None:
        session.add_all(Own(id=n, text=text) for n, text in enumerate(ANIMALS))
        assert Own.search.sync(session).chunks_encoded == 5
        session.execute(sa.update(Own).values(text=Own.text + " now"))
        Own.search.sync(session)
        assert Own.search("old owl").limit(1).all(session)[0].entity.id == 3

    driven.run(work)


def test_errors_have_their_names(driven: Driven) -> None:
    driven.run(fill)

    def fails(kind: type[Exception], match: str, work: Callable[[Session], Any]) -> None:
        with pytest.raises(kind, match=match):
            driven.run(work)

    fails(InvalidFilter, "does not work", lambda session: Item.search("fox").where("nothing = 1").all(session))
    fails(InvalidFilter, "does not work", lambda session: Item.search("fox").where("1 / (views - 1) = 1").all(session))
    for odd in ("\0", "\udc80"):
        query = Item.search("fox").where(Item.text == odd)
        with pytest.raises((InvalidQuery, InvalidFilter), match="remove|does not work"):
            driven.run(query.all)

    def ended(session: Session) -> None:
        me = session.scalar(sa.text("SELECT pg_backend_pid()"))
        with psycopg.connect(driven.url.set(drivername="postgresql").render_as_string(False), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [me])
        Item.search("fox").all(session)

    fails(DatabaseUnreachable, "no connection", ended)


def test_long_lists(driven: Driven) -> None:
    driven.run(fill)

    def work(session: Session) -> None:
        ids = list(range(2, 66_000))
        hits = Item.search("animal").where(Item.id.in_(ids)).limit(9).all(session)
        assert {hit.entity.id for hit in hits} == {2, 3, 4, 5}
        hits = Item.search("animal").where(Item.id.not_in(ids) & Item.text.in_(ANIMALS)).limit(9).all(session)
        assert {hit.entity.id for hit in hits} == {1}

    driven.run(work)


@pytest.mark.parametrize("driven", ASYNC, indirect=True)
def test_explain_and_all_are_awaited(driven: Driven) -> None:
    driven.run(fill)

    async def work() -> None:
        engine = create_async_engine(driven.url)
        async with AsyncSession(engine) as session:
            query = Item.search("red fox").limit(2)
            explained = await query.explain(session)
            assert explained.hits[0].entity.id == 1
            assert (await query.all(session))[0].entity.id == 1
            assert (await Item.search.sync(session)).rows == 0
        await engine.dispose()

    asyncio.run(work())


@pytest.fixture
def other_database() -> Iterator[Session]:
    engine = sa.create_engine("sqlite://")
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_other_drivers_are_refused_at_the_door(other_database: Session) -> None:
    for work in (
        lambda: Item.search("fox").all(other_database),
        lambda: Item.search("fox").explain(other_database),
        lambda: Item.search.sync(other_database),
        lambda: Item.search.pending(other_database),
        lambda: Item.search.sync(other_database.connection()),
    ):
        with pytest.raises(UnsupportedDriver, match="sqlite.*postgresql\\+psycopg"):
            work()
