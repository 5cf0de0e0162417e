"""Doing a search: run the statement, and turn its rows into hits.

The statement ranks keys; the rows themselves are fetched with it, in the same query, so that a hit is one
consistent picture of its row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from pgneural.errors import InvalidFilter
from pgneural.statement import VectorSearch, nearest
from pgneural.store.schema import Document
from pgneural.types import Vector

SNIPPET_CHARACTERS = 240


@dataclass(frozen=True)
class HitChunk:
    """The best chunk of a hit."""

    ordinal: int
    text: str
    locator: Mapping[str, Any]

    def snippet(self, characters: int = SNIPPET_CHARACTERS) -> str:
        """Return the beginning of the text on one line, cut at a word."""
        line = " ".join(self.text.split())
        if len(line) <= characters:
            return line
        return line[:characters].rsplit(" ", 1)[0].rstrip(" ,;:.") + " …"


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        entity: The source row.
        rank: Its place, from 1.
        score: Larger is better; for cosine, 1 is the same direction.
        chunk: Its best chunk.
        legs: What each leg contributed, as a score.
    """

    entity: Document
    rank: int
    score: float
    chunk: HitChunk
    legs: Mapping[str, float]


class Hits(list[Hit]):
    """The hits of one search, best first.

    Attributes:
        exhausted: Whether fewer rows pass the filter than were asked for; these are all of them.
        strategy: How they were found: ``exact``, ``near``, ``fallback``; empty where there is none.
    """

    def __init__(self, hits: list[Hit], *, limit: int, strategy: str) -> None:
        super().__init__(hits)
        self.exhausted = len(hits) < limit
        self.strategy = strategy


def search(
    connection: sa.Connection,
    target: VectorSearch,
    vector: Vector,
    *,
    limit: int,
    where: sa.ColumnElement[bool] | None = None,
) -> Hits:
    """Find the documents nearest to a vector.

    Raises:
        InvalidFilter: PostgreSQL does not accept the filter.
    """
    statement = with_documents(target, nearest(target, vector, k=limit, where=where))
    with filter_errors(where is not None):
        rows = Session(connection).execute(statement).all()
    hits = [_hit(rank, row) for rank, row in enumerate(rows, start=1)]
    return Hits(hits, limit=limit, strategy=rows[0].strategy if rows else "")


@contextlib.contextmanager
def filter_errors(filtered: bool) -> Iterator[None]:
    """Blame the filter, where there is one, for what PostgreSQL cannot read or evaluate.

    Raises:
        InvalidFilter: With what PostgreSQL said.
    """
    try:
        yield
    except DBAPIError as error:
        mine = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)
        if (
            not filtered
            or not isinstance(error.orig, mine)
            or isinstance(error.orig, psycopg.errors.InsufficientPrivilege)
        ):
            raise
        said = str(error.orig).splitlines()[0]
        raise InvalidFilter(f"the filter does not work: {said}; it may use the columns of documents") from error


def with_documents(target: VectorSearch, ranking: sa.Select[Any]) -> sa.Select[Any]:
    """Join the ranked keys with their documents and their best chunks."""
    ranked = ranking.subquery("ranked")
    chunks = target.chunks
    same_chunk = sa.and_(chunks.c.source_id == ranked.c.source_id, chunks.c.ordinal == ranked.c.ordinal)
    return (
        sa.select(Document, ranked, chunks.c.text, chunks.c.locator)
        .join_from(ranked, Document, Document.id == ranked.c.source_id)
        .join(chunks, same_chunk)
        .order_by(ranked.c.distance, ranked.c.source_id)
    )


def _hit(rank: int, row: sa.Row[Any]) -> Hit:
    chunk = HitChunk(row.ordinal, row.text, row.locator)
    return Hit(row.Document, rank, row.score, chunk, {"semantic": row.score})
