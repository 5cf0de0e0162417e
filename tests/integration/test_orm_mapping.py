"""`Searchable` in every way of mapping a class, against a real database."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    mapped_column,
    registry,
)

from pgneural import Searchable, VectorIndex
from pgneural.errors import (
    InvalidQuery,
)
from tests.fixtures.orm import Create, filled, texts

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


@pytest.mark.sqlalchemy20
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


@pytest.mark.sqlalchemy20
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


@pytest.mark.sqlalchemy20
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


@pytest.mark.sqlalchemy20
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


@pytest.mark.sqlalchemy20
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
        assert Note.search.definition.watched == {"notes": ["text", "price", "lang"]}
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
