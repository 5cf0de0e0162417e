"""A first load of a declared table: by one sync, by hand in the best order, and row by row into the index."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import click
import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.corpus import abstracts, private_server
from pgneural import Database, Searchable
from pgneural.cli.output import print_table
from pgneural.store.engine import libpq_url

DIMENSIONS = 384


class _Base(DeclarativeBase):
    pass


class Abstract(_Base):
    """An abstract, encoded by hashing: the model's time is not what is measured."""

    __tablename__ = "abstracts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    search = Searchable("title", "body", encoder="hash", dimensions=DIMENSIONS)


@click.command("loading")
@click.option("--rows", default=50_000, show_default=True, help="Abstracts of arXiv.")
@click.option("--one-by-one", default=5_000, show_default=True, help="Rows for the third way, which is slow.")
def command(rows: int, one_by_one: int) -> None:
    """Seconds from the first row to the last that is searchable by the index."""
    texts = [(n, record.get("title", ""), record["text"]) for n, record in enumerate(abstracts(rows), start=1)]
    ways: dict[str, tuple[Callable[[sa.Engine], None], int]] = {
        "without the index, made after": (_by_hand, len(texts)),
        "declared, one sync": (_synced, len(texts)),
        "each row into the index": (_one_by_one, min(one_by_one, len(texts))),
    }
    rates = {name: _rate(load, texts[:count]) for name, (load, count) in ways.items()}
    first = next(iter(rates.values()))[1]
    print_table(
        ("first load", "rows", "seconds", "rows/s", "ratio"),
        [(name, ways[name][1], seconds, rate, rate / first) for name, (seconds, rate) in rates.items()],
    )


def _rate(load: Callable[[sa.Engine], None], texts: list[tuple[Any, ...]]) -> tuple[float, float]:
    """Load in a server of its own; return the seconds and the rows per second."""
    with private_server() as server, Database(server.start()) as database:
        database.upgrade()
        _Base.metadata.create_all(database.engine)
        with (
            psycopg.connect(libpq_url(server.start())) as connection,
            connection.cursor().copy("COPY abstracts (id, title, body) FROM STDIN") as copy,
        ):
            for row in texts:
                copy.write_row(row)
        started = time.perf_counter()
        load(database.engine)
        seconds = time.perf_counter() - started
    return seconds, len(texts) / seconds


def _synced(engine: sa.Engine) -> None:
    Abstract.search.sync(engine)


def _by_hand(engine: sa.Engine) -> None:
    """Do what somebody who knows pgvector does."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX abstracts_search_embedding_idx")
    Abstract.search.sync(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SET maintenance_work_mem = '1GB'")
        connection.exec_driver_sql("SET max_parallel_maintenance_workers = 1")
        definition = connection.exec_driver_sql("SELECT neural.index_definition(id) FROM neural.spaces").scalar()
        connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY {definition}")


def _one_by_one(engine: sa.Engine) -> None:
    """As it is without setting the index aside."""
    with mock.patch("pgneural.ingest.job.set_index_aside", return_value=False):
        Abstract.search.sync(engine)
