"""Doing a search: run the statement, and turn its rows into hits.

The statement ranks keys; the rows themselves are fetched with it, in the same query, so that a hit is one
consistent picture of its row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import instance_dict

from pgneural.diversify import agreement, few_of_each, hashable, mmr
from pgneural.errors import InvalidFilter
from pgneural.rerank import LateInteraction, Rerank
from pgneural.statement import LEGS, Page, Query, Target, late_interaction
from pgneural.store.further import tokens_text
from pgneural.store.schema import DOCUMENTS, Document, Space
from pgneural.types import Vector, below

SNIPPET_CHARACTERS = 240

SEVERAL_CANDIDATES = 100
"""The fewest candidates that diverse or grouped hits are chosen from: ten for each of the usual ten hits."""

SEVERAL_WINDOW = 4
"""Candidates for each such hit, and how many times more are looked for when they do not have enough groups."""

KEPT_STATEMENTS = 200
"""Statements of different shape that are kept before all are built anew; one takes some 100 kB."""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Attributes:
        entity: The source row.
        rank: Its place, from 1.
        score: Larger is better. Semantic: of the distance, for cosine 1 is the same direction. Lexical: BM25.
            Hybrid: how many standard deviations above the mean of this query's candidates.
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
        exhausted: Whether there are fewer rows than were asked for; these are all that are left.
        strategy: How they were found: ``exact``, ``near``, ``fallback``, or for a lexical search ``rare words`` or
            ``more words``; empty where there is none.
    """

    def __init__(self, hits: list[Hit], *, limit: int, strategy: str) -> None:
        super().__init__(hits)
        self.exhausted = len(hits) < limit
        self.strategy = strategy


@dataclass(frozen=True)
class Refinement:
    """What is done to the candidates of a search before the page is cut from them.

    Attributes:
        rerank: Reads query and text together.
        diversity: As of `pgneural.diversify.mmr`.
        group_by: An expression over the source; of the rows with one value of it, only the best are kept.
        per_group: How many of each.
        context: Vectors in pairs, shape (pairs, 2, d): a candidate is the better, the more pairs there are of which it
            is nearer to the first.
    """

    rerank: Rerank | LateInteraction | None = None
    diversity: float = 0.0
    group_by: sa.SQLColumnExpression[Any] | None = None
    per_group: int = 1
    context: Vector | None = None

    def candidates(self, limit: int) -> int:
        """Return how many candidates are worth finding for so many hits."""
        wide = self.diversity or self.group_by is not None or self.context is not None
        several = max(SEVERAL_CANDIDATES, SEVERAL_WINDOW * limit) if wide else 0
        return max(limit, several, self.rerank.candidates if self.rerank else 0)


class Search:
    """Searches one target; statements that differ only in vector and text are built once.

    Building costs a millisecond or two, as much as PostgreSQL needs for many a search.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._built: dict[Hashable, tuple[str, dict[str, Any]]] = {}

    def run(self, connection: sa.Connection, query: Query) -> Hits:
        """Find the documents that answer a query.

        Args:
            connection: Where. The settings that the statement makes end with its transaction, or with the
                statement itself where each is its own.
            query: What is asked.

        Raises:
            InvalidFilter: PostgreSQL does not accept the filter.
        """
        what = " or ".join(["filter"] * (query.where is not None) + ["boost"] * bool(query.boosts))
        with filter_errors(bool(what), what):
            rows = self._rows(connection, query)
        strategy = rows[0][_STRATEGY] if rows else ""
        return Hits([_hit(row) for row in rows], limit=query.page.limit, strategy=strategy)

    def refine(self, connection: sa.Connection, query: Query, refinement: Refinement) -> Hits:
        """Find more candidates than the page needs, put them in another order, and cut the page from it.

        Args:
            connection: Where.
            query: What is asked; of its page, only the length counts.
            refinement: How.
        """
        limit = query.page.limit
        strategy, ordered = self._candidates(connection, query, refinement)
        comparable = len(ordered)  # hits whose scores are of one kind
        if isinstance(refinement.rerank, Rerank):
            ordered, comparable = _reranked(refinement.rerank, query.text or "", ordered)
        if isinstance(refinement.rerank, LateInteraction):
            ordered, comparable = self._compared_by_token(connection, query, ordered, refinement.rerank.candidates)
        if refinement.context is not None:
            ordered = self._in_context(connection, refinement.context, ordered)
        if refinement.diversity:
            ordered = self._diverse(connection, ordered[:comparable], limit, refinement) + ordered[comparable:]
        ranked = [replace(hit, rank=rank) for rank, hit in enumerate(ordered[:limit], start=1)]
        return Hits(ranked, limit=limit, strategy=strategy)

    def _candidates(self, connection: sa.Connection, query: Query, refinement: Refinement) -> tuple[str, list[Hit]]:
        """Find candidates; where they are grouped, more and more of them until there are enough or no others."""
        limit = query.page.limit
        wanted = refinement.candidates(limit)
        while True:
            hits = self.run(connection, replace(query, page=Page(wanted)))
            if refinement.group_by is None:
                return hits.strategy, list(hits)
            groups = self._groups(connection, hits, refinement.group_by)
            kept = few_of_each([groups.get(hit.entity.id) for hit in hits], refinement.per_group)
            if len(kept) >= limit or hits.exhausted:
                return hits.strategy, [hits[at] for at in kept]
            wanted *= SEVERAL_WINDOW

    def _groups(
        self, connection: sa.Connection, hits: Sequence[Hit], by: sa.SQLColumnExpression[Any]
    ) -> dict[int, Hashable]:
        wanted = Document.id == sa.any_(sa.literal([hit.entity.id for hit in hits], ARRAY(sa.BigInteger)))
        with filter_errors(True, "group_by"):
            return {row[0]: hashable(row[1]) for row in connection.execute(sa.select(Document.id, by).where(wanted))}

    def _diverse(self, connection: sa.Connection, hits: Sequence[Hit], limit: int, refinement: Refinement) -> list[Hit]:
        vectors = self._vectors(connection, hits)
        chosen = mmr([hit.score for hit in hits], vectors, limit, refinement.diversity, self.target.dense.distance)
        return [hits[at] for at in chosen]

    def _compared_by_token(
        self, connection: sa.Connection, query: Query, hits: Sequence[Hit], candidates: int
    ) -> tuple[list[Hit], int]:
        """Put the best hits in the order of late interaction; the others follow as they were."""
        assert self.target.tokens is not None
        assert query.tokens is not None
        keys = [hit.entity.id for hit in hits[:candidates]]
        statement = late_interaction(self.target.tokens, tokens_text(query.tokens), keys)
        scores = {row[0]: row[1] for row in connection.execute(statement)}
        return _rescored(hits, [scores.get(key) for key in keys])

    def _in_context(self, connection: sa.Connection, context: Vector, hits: Sequence[Hit]) -> list[Hit]:
        """Order hits by how many pairs they are on the right side of; among equals the order stays."""
        agreeing = agreement(self._vectors(connection, hits), context, self.target.dense.distance)
        order = sorted(range(len(hits)), key=lambda at: -agreeing[at])
        return [replace(hits[at], legs={**hits[at].legs, "context": float(agreeing[at])}) for at in order]

    def _vectors(self, connection: sa.Connection, hits: Sequence[Hit]) -> Vector:
        """Return the vector of each hit's chunk, shape (n, d); zeros for a hit without one."""
        chunks = self.target.chunks
        keys = [sa.literal(list(numbers), ARRAY(sa.BigInteger)) for numbers in
                ([hit.entity.id for hit in hits], [hit.chunk.ordinal for hit in hits])]  # fmt: skip
        best = sa.func.unnest(*keys).table_valued("id", "ordinal", name="best").render_derived()
        same = sa.and_(chunks.c.source_id == best.c.id, chunks.c.ordinal == best.c.ordinal)
        rows = connection.execute(sa.select(chunks.c.source_id, chunks.c.embedding).join_from(best, chunks, same))
        storage, _, dimensions = self.target.dense.indexed.vectors
        found = {row[0]: storage.parse(row[1]) for row in rows}
        nothing = np.zeros(dimensions, dtype=np.float32)
        return np.array([found.get(hit.entity.id, nothing) for hit in hits], dtype=np.float32).reshape(-1, len(nothing))

    def _rows(self, connection: sa.Connection, query: Query) -> Sequence[Sequence[Any]]:
        shape, parameters = query.shape(), query.parameters(self.target)
        if shape is None:
            return connection.execute(self._statement(query), parameters).all()
        if shape not in self._built:
            if len(self._built) >= KEPT_STATEMENTS:
                self._built.clear()
            compiled = self._statement(query).compile(dialect=connection.dialect)
            self._built[shape] = str(compiled), dict(compiled.params)
        text, constants = self._built[shape]
        driver: Any = connection.connection.driver_connection
        rows: list[tuple[Any, ...]] = driver.execute(text, {**constants, **parameters}).fetchall()
        return rows

    def _statement(self, query: Query) -> sa.Select[Any]:
        return with_documents(self.target, query.select(self.target))


@contextlib.contextmanager
def filter_errors(filtered: bool, what: str = "filter") -> Iterator[None]:
    """Blame the filter, where there is one, for what PostgreSQL cannot read or evaluate.

    Raises:
        InvalidFilter: With what PostgreSQL said.
    """
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        mine = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)
        if not filtered or not isinstance(cause, mine) or isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise
        said = str(cause).splitlines()[0]
        raise InvalidFilter(f"the {what} does not work: {said}; it may use the columns of documents") from error


def with_documents(target: Target, ranking: sa.Select[Any]) -> sa.Select[Any]:
    """Join the ranked keys with their documents and their best chunks; no rows if the space is gone."""
    ranked = ranking.subquery("ranked")
    chunks = target.chunks
    same_chunk = sa.and_(chunks.c.source_id == ranked.c.source_id, chunks.c.ordinal == ranked.c.ordinal)
    return (
        sa.select(*DOCUMENTS.c, *ranked.c, chunks.c.text, chunks.c.locator)
        .join_from(ranked, DOCUMENTS, DOCUMENTS.c.id == ranked.c.source_id)
        .outerjoin(chunks, same_chunk)
        .where(sa.exists().where(Space.id == target.space))
        .order_by(ranked.c.rank)
    )


def _reranked(rerank: Rerank, text: str, hits: Sequence[Hit]) -> tuple[list[Hit], int]:
    """Put hits in the order of the reranker; those beyond its budget follow as they were."""
    return _rescored(hits, rerank.scores(text, [below(hit.entity.title or "", hit.chunk.text) for hit in hits]))


def _rescored(hits: Sequence[Hit], scores: Sequence[float | None]) -> tuple[list[Hit], int]:
    """Order the first hits by other scores; those without one follow as they were. Return also how many have one."""
    scored, others = [], []
    for hit, score in itertools.zip_longest(hits, scores):
        if score is None:
            others.append(hit)
        else:
            scored.append(replace(hit, score=score, legs={**hit.legs, "rerank": score}))
    return sorted(scored, key=lambda hit: -hit.score) + others, len(scored)


_ATTRIBUTES = tuple(property_.key for property_ in sa.inspect(Document).column_attrs)
_RANKED = len(_ATTRIBUTES)  # where the columns of the ranking begin
_STRATEGY = _RANKED + 4 + len(LEGS)


def _hit(row: Sequence[Any]) -> Hit:
    """Turn a row of `with_documents` into a hit."""
    rank, _, ordinal, score = row[_RANKED : _RANKED + 4]
    legs = {leg: row[at] for at, leg in enumerate(LEGS, start=_RANKED + 4) if row[at] is not None}
    for place, boost in enumerate(row[_STRATEGY + 1 : -2], start=1):
        legs[f"boost {place}"] = boost
    return Hit(_document(row), rank, score, HitChunk(ordinal, row[-2] or "", row[-1] or {}), legs)


def _document(row: Sequence[Any]) -> Document:
    """Return the source row as an entity of no session, as if one had loaded it."""
    document = Document()
    instance_dict(document).update(zip(_ATTRIBUTES, row, strict=False))
    make_transient_to_detached(document)
    return document
