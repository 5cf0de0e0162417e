"""Searching and writing mapped classes: composition, hits, synchronisation, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    configure_mappers,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from pgneural import Boost, Database, Searchable
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import (
    DimensionMismatch,
    EncoderMismatch,
    InvalidDeclaration,
    InvalidFilter,
    InvalidQuery,
    SchemaNotInstalled,
)
from pgneural.store.engine import libpq_url
from tests.fixtures.orm import ANIMALS, Create, filled

# composing


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    articles: Mapped[list[Article]] = relationship(back_populates="author")


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    views: Mapped[int]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="articles")
    search = Searchable("title", "body", encoder="hash")


class Quick(Base):
    __tablename__ = "quick"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash", sync="inline")


@pytest.fixture
def articles(create: Create) -> Iterator[Session]:
    with create(Base.metadata) as session:
        authors = [Author(name=f"author {n}") for n in range(3)]
        session.add_all(
            Article(title=f"{ANIMALS[n % 5]} {n}", body=f"body number {n}", views=n, author=authors[n % 3])
            for n in range(60)
        )
        Article.search.sync(session)
        session.commit()
        yield session


@pytest.mark.sqlalchemy20
def test_select_composes_like_any_other(articles: Session) -> None:
    session = articles
    foxes = Article.search("red fox").where(Article.views < 30)
    rows = session.execute(foxes.select()).all()
    assert [row.rank for row in rows] == list(range(1, 11))
    assert rows[0].Article.title.startswith("a red fox")
    assert rows[0].score >= rows[1].score

    joined = foxes.select().join(Article.author).where(Author.name == "author 1").add_columns(Author.name)
    assert {row.name for row in session.execute(joined)} == {"author 1"}

    sub = foxes.select().subquery()
    other = aliased(Article, sub)
    assert len(session.scalars(sa.select(other).where(sub.c.score > -10)).all()) == 10
    assert session.scalar(sa.select(sa.func.count()).select_from(sub)) == 10

    cte = foxes.select().cte("best")
    ranked = sa.select(cte.c.title, sa.func.lag(cte.c.score).over(order_by=cte.c.rank)).order_by(cte.c.rank)
    assert len(session.execute(ranked).all()) == 10

    both = sa.union(
        Article.search("fox").limit(3).select().with_only_columns(Article.id),
        Article.search("owl").limit(3).select().with_only_columns(Article.id),
    )
    assert len(session.execute(both).all()) == 6
    twice = sa.select(Article).where(
        Article.id.in_(Article.search("fox").select().with_only_columns(Article.id)),
        Article.id.in_(Article.search("red").where(Article.views > 5).select().with_only_columns(Article.id)),
    )
    assert session.scalars(twice).all()

    loaded = foxes.select().options(selectinload(Article.author), selectinload(Article.search.related))
    entity = session.execute(loaded).first()[0]  # type: ignore[index]
    assert "author" in entity.__dict__
    assert entity.search_chunks[0].text.startswith("body number")
    assert session.scalars(foxes.select().with_only_columns(Article.title).limit(2)).all()


def test_the_chunk_table_in_statements_of_ones_own(articles: Session) -> None:
    chunks = Article.search.chunks
    longest = sa.select(Article.title, chunks.c.text).join(chunks).order_by(sa.func.length(chunks.c.text).desc())
    assert len(articles.execute(longest.limit(3)).all()) == 3
    near = sa.select(Article).join(Article.search.related).limit(1)
    assert articles.scalars(near).one().title


@pytest.mark.sqlalchemy20
def test_hits_with_every_option(articles: Session) -> None:
    asked = Article.search("fox")
    assert len(asked.limit(3).all(articles)) == 3
    pages = [hit.entity.id for page in range(3) for hit in asked.limit(5).offset(5 * page).all(articles)]
    assert len(set(pages)) == 15
    assert asked.mode("lexical").all(articles)[0].legs.keys() == {"lexical"}
    assert asked.mode("semantic").all(articles)[0].legs.keys() == {"semantic"}
    popular = asked.boost(Boost.popularity(Article.views, 50.0)).limit(1).all(articles)
    assert popular[0].legs["boost 1"] > 0
    assert asked.boost("views", -50.0).limit(1).all(articles)[0].entity.views < 10
    assert len(asked.group_by(Article.author_id).all(articles)) == 3
    assert len(asked.diverse(0.5).all(articles)) == 10
    assert asked.where("views = 7").all(articles)[0].entity.views == 7
    assert asked.where(Article.author.has(Author.name == "author 2")).all(articles)[0].entity.author.name == "author 2"
    assert len(asked.where(Article.views.in_([1, 2, 3])).all(articles)) == 3
    assert len(asked.where(Article.views.in_([4, 5])).all(articles)) == 2  # of another length, in the same shape
    read: list[str] = []

    class Reader:
        def score(self, query: str, texts: Any) -> Any:
            read.extend(texts)
            return np.arange(len(texts), 0, -1, dtype=np.float32)

    assert asked.rerank(Reader()).limit(2).all(articles)[0].legs["rerank"] > 0
    assert read[0].startswith("a red fox")  # the title is above the chunk
    assert asked.options(joinedload(Article.author)).all(articles)[0].entity.author.name
    assert Article.search({"fox": 1.0, "red": -0.5}).all(articles)
    assert len(Article.search(np.ones(256, dtype=np.float32)).all(articles)) == 10
    assert "rows" in str(asked.explain(articles))
    one, two = articles.get_one(Article, 1), articles.get_one(Article, 2)

    def texts_of(query: Any) -> list[str]:
        return [hit.entity.title for hit in query.all(articles)]

    recommended = Article.search.recommend([one], [two]).all(articles)
    assert {one.id, two.id}.isdisjoint(hit.entity.id for hit in recommended)
    assert articles.execute(Article.search.like(one).select()).first()
    assert texts_of(Article.search(one)) == texts_of(Article.search.like(one))


@pytest.mark.sqlalchemy20
def test_kept_statements_answer_with_the_values_of_each_query(articles: Session) -> None:
    for views in (3, 8, 13):
        (hit,) = Article.search("fox").where(Article.views == views).all(articles)
        assert hit.entity.views == views
        boosted = Article.search("fox").boost(-sa.func.abs(Article.views - views), 100.0).limit(1).all(articles)
        assert boosted[0].entity.views == views
        one = articles.get_one(Article, views)
        assert one.id not in [hit.entity.id for hit in Article.search.like(one).limit(60).all(articles)]


@pytest.mark.sqlalchemy20
def test_asynchronous_sessions(articles: Session, url: str) -> None:
    async def run() -> None:
        engine = create_async_engine("postgresql+psycopg://", async_creator=lambda: _connect(url))
        async with AsyncSession(engine) as session:
            hits = await Article.search("fox").limit(2).all(session)
            assert len(hits) == 2
            assert (await Article.search("fox").all(session))[0].entity.title.startswith("a red fox")
            result = await session.execute(Article.search("fox").select())
            assert len(result.all()) == 10
            session.add(Article(title="A new one", body="of penguins", views=0, author_id=1))
            session.add(Quick(text="of walruses"))
            await session.flush()
            assert (await Article.search.sync(session)).rows == 1
            assert (await Article.search("penguins").all(session))[0].entity.title == "A new one"
            assert (await Quick.search("walruses").all(session))[0].entity.text == "of walruses"
        await engine.dispose()

    asyncio.run(run())


async def _connect(url: str) -> Any:
    return await psycopg.AsyncConnection.connect(libpq_url(url))


# writes


def test_manual_sync_finds_whatever_was_written(articles: Session, engine: sa.Engine) -> None:
    session = articles
    assert Article.search.pending(session) == 0
    session.execute(sa.insert(Article), [{"title": "bulk", "body": "zebra", "views": 1, "author_id": 1}])
    session.connection().execute(
        sa.insert(Article.search.definition.key[0].table).values(title="core", body="yak", views=1, author_id=1)
    )
    session.execute(sa.text("UPDATE articles SET views = views + 1"))  # nothing that is searched
    session.commit()
    assert Article.search.pending(session) == 2
    session.commit()
    report = Article.search.sync(engine)
    assert (report.rows, report.chunks_encoded) == (2, 2)
    assert Article.search("zebra").all(session)[0].entity.title == "bulk"
    session.execute(sa.text("UPDATE articles SET body = 'gnu' WHERE title = 'core'"))
    assert Article.search.sync(session).rows == 1
    assert Article.search("gnu").all(session)[0].entity.title == "core"
    session.rollback()
    assert Article.search("yak").all(session)[0].entity.title == "core"
    session.commit()
    session.execute(sa.text("UPDATE articles SET title = title || '.'"))
    assert Article.search.sync(session).rows == 62
    session.execute(sa.text("TRUNCATE articles CASCADE"))
    session.commit()
    assert Article.search.sync(session).chunks_encoded == 0


@pytest.mark.sqlalchemy20
def test_inline_sync(articles: Session) -> None:
    session = articles
    row = Quick(text="a walrus")
    session.add(row)
    session.flush()
    assert Quick.search("walrus").all(session)[0].entity is row
    row.text = "a seal"
    assert Quick.search("seal").mode("lexical").all(session)[0].entity is row  # autoflush
    session.commit()
    session.execute(sa.insert(Quick), [{"text": f"bulk {n}"} for n in range(10)])
    session.commit()
    assert Quick.search.pending(session) == 0
    session.execute(sa.insert(Quick.search.definition.key[0].table).values(text="a narwhal"))
    session.commit()
    assert Quick.search("narwhal").mode("lexical").all(session)[0].entity.text == "a narwhal"
    session.execute(sa.update(Quick).where(Quick.text == "a narwhal").values(text="an orca"))
    session.commit()
    assert Quick.search("orca").mode("lexical").all(session)[0].entity.text == "an orca"
    session.delete(row)
    session.commit()
    assert Quick.search("seal").mode("lexical").all(session) == []
    session.add(Quick(text="lost"))
    session.flush()
    session.rollback()
    assert Quick.search("lost").mode("lexical").all(session) == []


def test_vectors_that_are_known_are_not_made_again(articles: Session) -> None:
    first = articles.get_one(Article, 1)
    first.title, first.body = "x", first.body
    articles.flush()
    first.title = f"{ANIMALS[0]} 0"
    articles.flush()
    report = Article.search.sync(articles)
    assert (report.rows, report.chunks_encoded, report.chunks_reused) == (1, 0, 0)


def test_rows_written_by_a_role_without_rights_on_ours(articles: Session, engine: sa.Engine) -> None:
    articles.execute(sa.text("DROP ROLE IF EXISTS writer"))
    articles.execute(sa.text("CREATE ROLE writer"))
    articles.execute(sa.text("GRANT INSERT, UPDATE, DELETE, SELECT ON articles TO writer"))
    articles.execute(sa.text("GRANT USAGE ON SEQUENCE articles_id_seq TO writer"))
    articles.commit()
    articles.execute(sa.text("SET ROLE writer"))
    articles.execute(sa.text("INSERT INTO articles (title, body, views, author_id) VALUES ('t', 'ibis', 0, 1)"))
    articles.execute(sa.text("DELETE FROM articles WHERE id = 1"))
    articles.execute(sa.text("RESET ROLE"))
    assert Article.search.sync(articles).rows == 2  # one inserted, one deleted
    articles.rollback()
    articles.execute(sa.text("DROP OWNED BY writer"))
    articles.execute(sa.text("DROP ROLE writer"))
    articles.commit()


# what cannot be


def declare(**namespace: Any) -> Any:
    class Base(DeclarativeBase):
        pass

    columns = {"id": mapped_column(sa.Integer, primary_key=True), "text": mapped_column(sa.Text)}
    made = type("Note", (Base,), {"__tablename__": "notes", **columns, **namespace})
    configure_mappers()
    return made


def test_wrong_declarations_say_what_to_do(tmp_path: Any) -> None:
    wrong: list[tuple[Callable[[], Searchable], str]] = [
        (lambda: Searchable(), "reads nothing; name attributes"),
        (lambda: Searchable("txt"), "reads 'txt', but the class has no such attribute; it has id, .*text"),
        (lambda: Searchable("text", encoder="nope"), "no encoder 'nope'; registered are"),
        (lambda: Searchable("text", encoder="owner/model"), "say dimensions="),
        (lambda: Searchable("text", encoder=str(tmp_path)), "say dimensions="),
        (lambda: Searchable("text", encoder="hash", sync="often"), "expected inline, queue, manual"),
        (lambda: Searchable("text", encoder="hash", distance="near"), "expected cosine, l2"),
        (lambda: Searchable("text", encoder="hash", storage="bit"), "is not one of bit columns"),
        (lambda: Searchable("text", encoder="hash", overlap=600), "expected 0 to less than max_tokens"),
        (lambda: Searchable("text", encoder="hash", max_tokens=0), "expected at least 1"),
        (lambda: Searchable(column="vector", encoder="vectors:3"), "no column 'vector' with vectors"),
        (lambda: Searchable(column="text", encoder="vectors:3"), "expected a vector type"),
        (lambda: Searchable(lambda cls: 7, encoder="hash"), "is no column or expression"),
        (
            lambda: Searchable(lambda cls: sa.select(sa.table("x", sa.column("y")).c.y).scalar_subquery()),
            "goes unnoticed|would go unnoticed|reads table",
        ),
    ]
    for make, message in wrong[:-1]:
        with pytest.raises(InvalidDeclaration, match=message):
            declare(search=make())
    with pytest.raises(InvalidDeclaration, match="name of its chunk table"):
        declare(**{"a" * 60: Searchable("text", encoder="hash")})


def test_wrong_queries_say_what_to_do(articles: Session) -> None:
    asked = Article.search("fox")
    with pytest.raises(InvalidQuery, match="expected semantic"):
        asked.mode("magic").all(articles)
    with pytest.raises(InvalidQuery, match="limit is 0"):
        asked.limit(0).select()
    with pytest.raises(DimensionMismatch, match="vectors of 256"):
        Article.search([1.0, 2.0]).all(articles)
    with pytest.raises(InvalidQuery, match="use all"):
        asked.diverse(0.5).select()
    with pytest.raises(InvalidFilter, match="no_such"):
        asked.where("no_such = 1").all(articles)
    articles.rollback()
    with pytest.raises(InvalidQuery, match="another class|another table"):
        asked.where(Author.name == "author 1").all(articles)


def test_a_database_without_the_search(engine: sa.Engine, empty_url: str) -> None:
    with Session(engine) as session, pytest.raises(SchemaNotInstalled, match=r"op\.create_search|articles"):
        Article.search("fox").all(session)
    bare = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(libpq_url(empty_url)))
    with Session(bare) as session, pytest.raises(SchemaNotInstalled):
        Article.search("fox").all(session)
    with pytest.raises(SchemaNotInstalled, match="pgneural db upgrade"):
        declare(search=Searchable("text", encoder="hash")).metadata.create_all(bare)
    bare.dispose()


def test_vectors_of_another_revision_are_an_error(create: Create) -> None:
    encoder = HashEncoder(dimensions=16)
    other = HashEncoder(dimensions=16)
    object.__setattr__(other, "__class__", type("Other", (HashEncoder,), {"revision": "2"}))

    made = declare(search=Searchable("text", encoder=encoder))
    session = filled(create(made.metadata), made)
    again = declare(search=Searchable("text", encoder=other))
    with session:
        with pytest.raises(EncoderMismatch, match="made by hash revision 1-16"):
            again.search("fox").all(session)
        session.rollback()
        session.add(again(text="new"))
        with pytest.raises(EncoderMismatch, match="revision 1-16"):
            again.search.sync(session)
        session.rollback()
        with pytest.raises(sa.exc.DBAPIError, match="revision 1-16"):
            session.execute(again.search("fox").select())


def test_chunks_and_words_are_as_visible_as_their_rows(articles: Session, db: Database) -> None:
    session = articles
    for statement in (
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader",
        "GRANT SELECT ON articles, articles_search, articles_search_terms TO reader",
        "GRANT USAGE ON SCHEMA neural TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA neural TO reader",
        "ALTER TABLE articles ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON articles USING (views < 7)",
    ):
        session.execute(sa.text(statement))
    session.commit()
    assert "row-level security of table public.articles_search " in str(db.check().differences)
    db.upgrade()
    assert db.check().differences == ()
    session.execute(sa.text("SET ROLE reader"))
    for mode in ("semantic", "lexical", "hybrid"):
        hits = Article.search("body").mode(mode).limit(20).all(session)
        assert sorted(hit.entity.views for hit in hits) == list(range(7))
    assert session.scalar(sa.select(sa.func.count()).select_from(Article.search.chunks)) == 7
    session.execute(sa.text("RESET ROLE"))
    session.execute(sa.text("DROP OWNED BY reader"))
    session.execute(sa.text("DROP ROLE reader"))
    session.commit()


# counting, discovering


def test_facets_and_totals(articles: Session) -> None:
    everything = Article.search.facets(articles, Article.title.like("%fox%"))
    assert everything == {False: 48, True: 12}
    assert Article.search.total(articles) == 60
    assert Article.search("fox").total(articles) == 12
    narrowed = Article.search("fox").where(Article.views < 20)
    assert narrowed.total(articles) == 4
    assert narrowed.facets(articles, "views % 2") == {0: 2, 1: 2}
    assert narrowed.facets(articles, Article.author_id, limit=1) != narrowed.facets(articles, Article.author_id)
    assert Article.search.where(Article.author.has(Author.name == "author 1")).total(articles) == 20
    assert Article.search.where(("views < :most", {"most": 20})).total(articles) == 20
    assert Article.search([1.0] * 256).total(articles) == 60
    with pytest.raises(InvalidFilter, match="it may use the columns of articles"):
        Article.search("fox").facets(articles, "nothing_like_that")
    with pytest.raises(InvalidFilter):
        Article.search.where("true) OR (true").total(articles)


def test_discover(articles: Session) -> None:
    foxes, cats = (
        articles.scalars(sa.select(Article).where(Article.title.like(f"%{animal}%")).order_by(Article.id)).all()
        for animal in ("fox", "cat")
    )
    query = Article.search.discover("body", [(foxes[0], cats[0]), (foxes[1], cats[1])]).limit(8)
    hits = query.all(articles)
    assert len(hits) == 8
    assert all("fox" in hit.entity.title for hit in hits)
    assert not {hit.entity.id for hit in hits} & {row.id for row in (*foxes[:2], *cats[:2])}
    assert hits[0].legs["context"] == 2
    nearest = Article.search.discover(None, [(foxes[0], cats[0])]).where(Article.views > 30).limit(3).all(articles)
    assert all("fox" in hit.entity.title and hit.entity.views > 30 for hit in nearest)
    with pytest.raises(InvalidQuery, match="discover needs a pair"):
        Article.search.discover("fox", [])
    with pytest.raises(InvalidQuery, match="come after the statement"):
        query.select()


def test_counting_with_asyncio(articles: Session, url: str) -> None:
    async def count() -> tuple[int, dict[Any, int]]:
        engine = create_async_engine("postgresql+psycopg://", async_creator=lambda: _connect(url))
        async with AsyncSession(engine) as session:
            query = Article.search("fox")
            counted = await query.total(session), await query.facets(session, Article.views > 30)
        await engine.dispose()
        return counted

    assert asyncio.run(count()) == (12, {False: 7, True: 5})
