"""Mapped classes: rows with vectors through a session, and searches, against the driver alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import click
import numpy as np
import psycopg
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR as PGVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.corpus import abstracts, private_server
from pgneural import VECTOR, Database, Searchable, VectorIndex
from pgneural.cli.output import print_table
from pgneural.encoders.hashing import HashEncoder
from pgneural.orm import SearchQuery
from pgneural.orm.entities import with_entities
from pgneural.store.vectors import Storage, teach
from pgneural.types import EncoderInput, Vector

DIMENSIONS = 384


@dataclass(frozen=True)
class Ready(HashEncoder):
    """An encoder that costs nothing, so that what is measured is all the rest."""

    dimensions: int = DIMENSIONS
    name: str = "ready"

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return vectors that were made before."""
        return POINTS[: len(items)]


POINTS = np.random.default_rng(0).normal(size=(20_000, DIMENSIONS)).astype(np.float32)


class Base(DeclarativeBase):
    """The benchmark's classes."""


class Theirs(Base):
    """Vectors by pgvector's type."""

    __tablename__ = "theirs"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(PGVECTOR(DIMENSIONS))


class Ours(Base):
    """Vectors by our type."""

    __tablename__ = "ours"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(DIMENSIONS))


class SyncReport(Base):
    """Vectors by `SearchBinding.sync`."""

    __tablename__ = "synced"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    search = Searchable("title", encoder=Ready(), index=VectorIndex("none"))


class Article(Base):
    """What is searched."""

    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    year: Mapped[int]
    search = Searchable("title", "body", encoder="hash")


@click.command("orm")
@click.option("--rows", default=20_000, show_default=True)
@click.option("--queries", default=100, show_default=True)
@click.option("--runs", default=5, show_default=True)
def command(rows: int, queries: int, runs: int) -> None:
    """Rows/s of sessions against COPY, and p50 of searches against the same statement by psycopg."""
    with private_server() as server, Database(server.start()) as db:
        db.upgrade()
        engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(db.url))
        Base.metadata.create_all(engine)
        inserted = inserts(engine, rows, runs)
        searched = searches(engine, rows, queries, runs)
        engine.dispose()
    print_table(("20,000 rows with vectors", "rows/s", "of COPY", "of pgvector's type"), inserted)
    print_table(("search", "ORM p50 ms", "psycopg p50 ms", "ratio", "asked"), searched)


def inserts(engine: sa.Engine, rows: int, runs: int) -> list[list[Any]]:
    """Insert the same rows in every way, in turn."""
    titles = [row["title"] for row in itertools.islice(itertools.cycle(abstracts(rows)), rows)]
    ways: dict[str, Callable[[], None]] = {
        "COPY, binary, by hand": lambda: copied(engine, titles),
        "session.add_all, pgvector.sqlalchemy.VECTOR": lambda: added(engine, Theirs, titles),
        "session.add_all, pgneural.VECTOR": lambda: added(engine, Ours, titles),
        "search.sync of rows that are there, with their words": lambda: synced(engine, titles),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, insert in ways.items():
            with engine.begin() as connection:
                connection.execute(sa.text("TRUNCATE theirs, ours, synced CASCADE"))
            if way.startswith("search"):
                added_plain(engine, titles)
            started = time.perf_counter()
            insert()
            taken[way].append(time.perf_counter() - started)
    speed = {way: rows / median(seconds) for way, seconds in taken.items()}
    copy, theirs, *_ = speed.values()
    return [[way, round(each), each / copy, each / theirs] for way, each in speed.items()]


def copied(engine: sa.Engine, titles: Sequence[str]) -> None:
    """Copy rows as fast as the driver can."""
    vectors = Storage.VECTOR.to_binary(POINTS[: len(titles)])
    pooled = engine.raw_connection()
    driver: Any = pooled.driver_connection
    with driver.cursor() as cursor:
        with cursor.copy("COPY theirs (title, embedding) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text", "bytea"])
            for row in zip(titles, vectors, strict=True):
                copy.write_row(row)
        driver.commit()
    pooled.close()


def added(engine: sa.Engine, class_: type[Any], titles: Sequence[str]) -> None:
    """Add rows to a session."""
    with Session(engine) as session:
        session.add_all(class_(title=title, embedding=point) for title, point in zip(titles, POINTS, strict=False))
        session.commit()


def added_plain(engine: sa.Engine, titles: Sequence[str]) -> None:
    """Add the rows that are then to be encoded."""
    with engine.begin() as connection:
        connection.execute(sa.insert(SyncReport), [{"title": f"{title} {n}"} for n, title in enumerate(titles)])


def synced(engine: sa.Engine, titles: Sequence[str]) -> None:
    """Encode what is pending."""
    assert SyncReport.search.sync(engine).rows == len(titles)


def searches(engine: sa.Engine, rows: int, queries: int, runs: int) -> list[list[Any]]:
    """Ask the same questions both ways, one after the other."""
    documents = abstracts(rows + queries)
    with Session(engine) as session:
        session.execute(
            sa.insert(Article),
            [{"title": row["title"], "body": row["text"], "year": n % 100} for n, row in enumerate(documents[:rows])],
        )
        session.commit()
        Article.search.sync(engine)
        session.execute(sa.text("ANALYZE"))
        session.commit()
        questions = [row["title"] for row in documents[rows:]]
        by_vector = [Article.search.encoder.encode_query(question) for question in questions]
        asked: dict[str, list[SearchQuery[Article]]] = {
            "semantic": [Article.search(vector) for vector in by_vector],
            "semantic, 50 % of the rows": [Article.search(vector).where(Article.year < 50) for vector in by_vector],
            "semantic, 1 % of the rows": [Article.search(vector).where(Article.year == 5) for vector in by_vector],
            "lexical": [Article.search(question).mode("lexical") for question in questions],
            "hybrid": [Article.search(question) for question in questions],
        }
        return [compared(session, label, each, runs) for label, each in asked.items()]


def compared(session: Session, label: str, queries: Sequence[SearchQuery[Article]], runs: int) -> list[Any]:
    """Execute every query both ways; its vector is made before."""
    connection = session.connection()
    teach(connection)
    driver: Any = connection.connection.driver_connection
    searcher = Article.search.searcher(connection)
    target = searcher.target(Article.search.encoder.revision)
    ours: list[float] = []
    bare: list[float] = []
    for run in range(runs + 1):
        for place, query in enumerate(queries):
            asked = query.encoded(searcher)
            done = with_entities(Article.search.mapper, target, asked, whole=True).compile(dialect=connection.dialect)
            text, parameters = str(done), {**done.params, **asked.parameters(target)}
            for first in (place % 2 == 0, place % 2 == 1):  # who comes second finds the pages in memory
                started = time.perf_counter()
                if first:
                    query.all(session)
                else:
                    driver.execute(text, parameters).fetchall()
                if run:
                    (ours if first else bare).append(time.perf_counter() - started)
    p50, baseline = 1000 * median(ours), 1000 * median(bare)
    return [label, p50, baseline, p50 / baseline, "≤ 1.3"]
