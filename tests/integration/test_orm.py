"""`Searchable` in every way of mapping a class, against a real database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    aliased,
    configure_mappers,
    joinedload,
    mapped_column,
    registry,
    relationship,
    selectinload,
)

from pgneural import Boost, Database, Hit, Searchable, VectorIndex
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

ANIMALS = ["a red fox runs", "a grey cat sleeps", "a brown dog barks", "an old owl watches", "a small mouse hides"]


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(libpq_url(url)))
    yield made
    made.dispose()


@pytest.fixture
def create(engine: sa.Engine) -> Callable[[sa.MetaData], Session]:
    def run(metadata: sa.MetaData) -> Session:
        metadata.create_all(engine)
        return Session(engine)

    return run


Create = Callable[[sa.MetaData], Session]


def filled(session: Session, class_: Any, **values: Any) -> Session:
    """Add an animal to each of some rows, bring the search up to date, and commit."""
    session.add_all(class_(text=text, **{k: v() for k, v in values.items()}) for text in ANIMALS)
    session.flush()
    class_.search.sync(session)
    session.commit()
    return session


def texts(hits: list[Hit[Any]]) -> list[str]:
    return [hit.entity.text for hit in hits]


# how a class is mapped


def test_declarative(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
        search = Searchable("text", encoder="hash")

    with filled(create(Base.metadata), Note) as session:
        (hit,) = Note.search("cats sleeping").limit(1).all(session)
        assert hit.entity.text == "a grey cat sleeps"
        assert hit.entity in session
        assert set(hit.legs) == {"semantic", "lexical"}
        assert hit.chunk.text == hit.entity.text
    assert {"notes_search", "notes_search_terms"} <= set(Base.metadata.tables)
    assert Note.search.chunks is Base.metadata.tables["notes_search"]


def test_mapped_as_dataclass(create: Create) -> None:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        text: Mapped[str]
        search = Searchable("text", encoder="hash")

    with filled(create(Base.metadata), Note) as session:
        assert texts(Note.search("fox").limit(1).all(session)) == ["a red fox runs"]
    assert "search" not in repr(Note(text="x"))


def test_imperative(create: Create) -> None:
    mappers = registry()

    class Note:
        search = Searchable("text", encoder="hash")

        def __init__(self, text: str) -> None:
            self.text = text

    with pytest.raises(AttributeError, match="not mapped yet"):
        Note.search  # noqa: B018
    table = sa.Table(
        "notes", mappers.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text)
    )
    mappers.map_imperatively(Note, table)
    with filled(create(mappers.metadata), Note) as session:
        assert texts(Note.search("owl").limit(1).all(session)) == ["an old owl watches"]


def test_mixin_gives_each_class_a_search_of_its_own(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Written:
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
        search = Searchable("text", encoder="hash")

    class Note(Written, Base):
        __tablename__ = "notes"

    class Letter(Written, Base):
        __tablename__ = "letters"

    session = create(Base.metadata)
    filled(session, Note)
    with filled(session, Letter):
        assert isinstance(Letter.search("fox").all(session)[0].entity, Letter)
        assert isinstance(Note.search("fox").all(session)[0].entity, Note)
    assert Note.search.chunks is not Letter.search.chunks


def test_joined_inheritance(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        text: Mapped[str]
        search = Searchable("text", encoder="hash")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}  # noqa: RUF012

    class Book(Item):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"), primary_key=True)
        author: Mapped[str]
        by_author = Searchable("text", "author", encoder="hash")
        __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012

    session = create(Base.metadata)
    session.add_all(Item(text=f"a plain item {n}") for n in range(3))
    filled(session, Book, author=lambda: "Nina")
    with session:
        Book.by_author.sync(session)
        assert Item.search.pending(session) == 0
        assert len(Item.search("a").all(session)) == 8
        books = Book.search("plain item").all(session)  # the parent's search, narrowed to the child
        assert len(books) == 5
        assert all(isinstance(hit.entity, Book) for hit in books)
        assert texts(Book.by_author("fox Nina").where(Book.author == "Nina").limit(1).all(session)) == [
            "a red fox runs"
        ]
        session.execute(sa.text("UPDATE items SET text = 'a blue whale' WHERE text = 'a red fox runs'"))
        assert Book.by_author.pending(session) == 1  # the content is in the parent's table
        Book.by_author.sync(session)
        assert Book.by_author("whale").mode("lexical").all(session)[0].entity.author == "Nina"


def test_single_table_inheritance(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        text: Mapped[str]
        search = Searchable("text", encoder="hash")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}  # noqa: RUF012

    class Song(Item):
        lyrics: Mapped[str | None]
        sung = Searchable("lyrics", encoder="hash")
        __mapper_args__ = {"polymorphic_identity": "song"}  # noqa: RUF012

    session = create(Base.metadata)
    session.add_all(Item(text=f"an item {n}") for n in range(20))
    filled(session, Song, lyrics=lambda: "la la la")
    with session:
        assert Song.sung.sync(session).rows == 25  # rows of the parent are looked at, and have nothing to be sung
        assert session.scalar(sa.select(sa.func.count()).select_from(Song.sung.chunks)) == 5
        assert len(Song.search("item").limit(10).all(session)) == 5
        assert len(Item.search("item").limit(30).all(session)) == 25
        assert len(Song.sung("la").all(session)) == 5


# keys, schemas, content


@pytest.mark.parametrize("key", ["integer", "uuid", "text", "composite"])
def test_keys_of_every_kind(create: Create, key: str) -> None:
    class Base(DeclarativeBase):
        pass

    numbers = iter(range(100))
    namespace: dict[str, Any] = {
        "integer": {"id": mapped_column(sa.BigInteger, primary_key=True)},
        "uuid": {"id": mapped_column(sa.Uuid, primary_key=True, default=uuid.uuid4)},
        "text": {"id": mapped_column(sa.String(20), primary_key=True, default=lambda: f'it\'s "{next(numbers)}" ü')},
        "composite": {
            "tenant": mapped_column(sa.Integer, primary_key=True, default=7),
            "Day of it": mapped_column(sa.DateTime(timezone=True), primary_key=True, default=sa.func.clock_timestamp()),
        },
    }[key]
    text = {"text": mapped_column(sa.Text), "search": Searchable("text", encoder="hash")}
    Note: Any = type("Note", (Base,), {"__tablename__": f"notes {key}", **namespace, **text})
    with filled(create(Base.metadata), Note) as session:
        (hit,) = Note.search("mouse").limit(1).all(session)
        assert hit.entity.text == "a small mouse hides"
        assert hit.entity not in [near.entity for near in Note.search.like(hit.entity).all(session)]
        assert len(Note.search.like(hit.entity).all(session)) == 4
        hit.entity.text = "a tall giraffe"
        session.flush()
        assert Note.search.sync(session).rows == 1
        assert Note.search("giraffe").all(session)[0].entity is hit.entity
        session.delete(hit.entity)
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Note.search.chunks)) == 4


def test_a_changed_key_takes_its_chunks_along(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
        search = Searchable("text", encoder="hash")

    with filled(create(Base.metadata), Note) as session:
        session.execute(sa.update(Note).values(id=Note.id + 1000))
        report = Note.search.sync(session)
        assert (report.rows, report.chunks_encoded) == (5, 0)
        assert Note.search("fox").all(session)[0].entity.id > 1000


def test_schemas_and_several_searches_of_a_class(create: Create, engine: sa.Engine) -> None:
    class Base(DeclarativeBase):
        metadata = sa.MetaData(schema="the blog")

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
        summary: Mapped[str] = mapped_column(default="in short")
        search = Searchable("text", encoder="hash")
        by_summary = Searchable("summary", encoder="hash", dimensions=32, distance="l2")

    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("the blog"))
    with filled(create(Base.metadata), Note) as session:
        assert Note.by_summary.sync(session).rows == 5
        assert texts(Note.search("dog").limit(1).all(session)) == ["a brown dog barks"]
        assert len(Note.by_summary("short").mode("semantic").all(session)) == 5
    Base.metadata.drop_all(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM neural.spaces")) == 0


def test_hybrid_properties_expressions_and_language_by_row(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
        lang: Mapped[str] = mapped_column(default="en")
        price: Mapped[int] = mapped_column(default=5)

        @hybrid_property
        def shouted(self) -> str:
            return self.text.upper()

        @shouted.inplace.expression
        @classmethod
        def _shouted(cls) -> Any:
            return sa.func.upper(cls.text) + "!'%:x\\"

        search = Searchable(
            "shouted",
            lambda cls: sa.case((cls.price > 3, "dear"), else_="cheap"),
            "price",
            encoder="hash",
            language_by="lang",
        )

    with filled(create(Base.metadata), Note) as session:
        session.add(Note(text="Die Häuser am See", lang="de"))
        Note.search.sync(session)
        assert Note.search("Haus").mode("lexical").all(session)[0].entity.lang == "de"
        chunk = session.scalars(sa.select(Note.search.chunks.c.text)).first()
        assert chunk == "dear\n\n5"
        assert Note.search.declared.watched == {"notes": ["text", "price", "lang"]}
        session.execute(sa.update(Note).where(Note.text.like("%fox%")).values(price=1))
        assert Note.search.sync(session).rows == 1
        assert Note.search("cheap").all(session)[0].entity.text == "a red fox runs"


def test_content_that_is_empty_or_missing(create: Create) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str | None]
        search = Searchable("text", encoder="hash")

    with create(Base.metadata) as session:
        session.add_all([Note(text=None), Note(text=" "), Note(text="a fox"), Note(text="long " * 2000)])
        assert Note.search.sync(session).rows == 4
        assert Note.search.pending(session) == 0
        assert len(Note.search("fox").all(session)) == 2
        ordinals = session.scalars(sa.select(Note.search.chunks.c.ordinal).order_by("ordinal")).all()
        assert max(ordinals) > 3
        session.execute(sa.update(Note).values(text=None))
        Note.search.sync(session)
        assert Note.search("fox").all(session) == []


# vectors that are there already


class Adopting(DeclarativeBase):
    pass


class Photo(Adopting):
    __tablename__ = "photos"
    id: Mapped[int] = mapped_column(primary_key=True)
    caption: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(64), nullable=True)
    near = Searchable(column="embedding", encoder="vectors:64", index=VectorIndex(precision="full"))
    found = Searchable("caption", column="embedding", encoder="vectors:64", index=VectorIndex(precision="full"))
    __table_args__ = (
        sa.Index(
            "photos_embedding_idx",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "vector_cosine_ops"},
        ),
    )


def test_adopted_vectors(create: Create) -> None:
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(3000, 64))
    with create(Adopting.metadata) as session:
        session.add_all(Photo(caption=f"photo {n}", embedding=vector) for n, vector in enumerate(vectors))
        session.add(Photo(caption="photo without a vector"))
        session.commit()
        session.execute(sa.text("ANALYZE"))
        with pytest.raises(InvalidQuery, match="vectors in column 'embedding'"):
            Photo.near.chunks  # noqa: B018
        assert set(Adopting.metadata.tables) == {"photos", "photos_found_terms"}
        hits = Photo.near(vectors[7]).all(session)
        assert hits[0].entity.caption == "photo 7"
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        exact = np.argsort(-(unit @ unit[7]))[:10]
        assert len({f"photo {n}" for n in exact} & {hit.entity.caption for hit in hits}) >= 9
        narrow = Photo.near(vectors[7]).where(Photo.id % 300 == 0)
        assert len(narrow.all(session)) == 10
        session.execute(sa.text("SET LOCAL enable_seqscan = off"))  # the table is small
        assert "By photos_embedding_idx (hnsw over vector)" in str(Photo.near(vectors[7]).explain(session))
        session.commit()
        assert Photo.found.sync(session).rows == 3001
        assert Photo.found("photo 11").mode("lexical").all(session)[0].entity.caption == "photo 11"
        assert len(Photo.near.like(hits[0].entity).limit(3).all(session)) == 3
        assert session.execute(Photo.near(vectors[7]).select()).first().rank == 1  # type: ignore[union-attr]
        with pytest.raises(InvalidQuery, match="no words"):
            Photo.near("a text").mode("lexical").all(session)


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


def test_kept_statements_answer_with_the_values_of_each_query(articles: Session) -> None:
    for views in (3, 8, 13):
        (hit,) = Article.search("fox").where(Article.views == views).all(articles)
        assert hit.entity.views == views
        boosted = Article.search("fox").boost(-sa.func.abs(Article.views - views), 100.0).limit(1).all(articles)
        assert boosted[0].entity.views == views
        one = articles.get_one(Article, views)
        assert one.id not in [hit.entity.id for hit in Article.search.like(one).limit(60).all(articles)]


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
        sa.insert(Article.search.declared.key[0].table).values(title="core", body="yak", views=1, author_id=1)
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
    session.execute(sa.insert(Quick.search.declared.key[0].table).values(text="a narwhal"))
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
    assert Article.search.sync(articles).rows == 1
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
