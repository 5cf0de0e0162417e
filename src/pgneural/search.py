"""Doing a search: what a hit is, and what is done to hits before the page is cut from them.

Where rows come from is `Rows`: the documents of a collection (`documents`), or the entities of a mapped class (`orm`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol

import numpy as np
import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from typing_extensions import TypeVar

from pgneural.diversify import agreement, few_of_each, hashable, mmr
from pgneural.errors import InvalidFilter, InvalidQuery
from pgneural.rerank import LateInteraction, Rerank
from pgneural.statement import Page, Query, Target, late_interaction, one_of
from pgneural.store.extra_vectors import tokens_text
from pgneural.store.failures import first_line, of_the_caller
from pgneural.store.schema import Document
from pgneural.types import Vector, below

SNIPPET_CHARACTERS = 240

SEVERAL_CANDIDATES = 100
"""The fewest candidates that diverse or grouped hits are chosen from: ten for each of the usual ten hits."""

SEVERAL_WINDOW = 4
"""Candidates for each such hit, and how many times more are looked for when they do not have enough groups."""

E = TypeVar("E", default=Document)


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
class Hit(Generic[E]):
    """One result.

    Attributes:
        entity: The source row.
        rank: Its place, from 1.
        score: Larger is better. Semantic: of the distance, for cosine 1 is the same direction. Lexical: BM25.
            Hybrid: how many standard deviations above the mean of this query's candidates.
        chunk: Its best chunk.
        legs: What each leg contributed, as a score.
        relaxed: Whether the query has a "phrase" that the row has not: too few rows have it.
    """

    entity: E
    rank: int
    score: float
    chunk: HitChunk
    legs: Mapping[str, float]
    relaxed: bool = False


class Hits(list[Hit[E]]):
    """The hits of one search, best first.

    Attributes:
        exhausted: Whether there are fewer rows than were asked for; these are all that are left.
        strategy: How they were found: ``exact``, ``near``, ``fallback``, or for a lexical search ``rare words`` or
            ``more words``, or ``phrases`` where only rows with the phrase were wanted; empty where there is none.
        relaxed: Whether fewer rows have the "phrase" of the query than were asked for: the hits without it come after
            them, and each is ``relaxed``.
    """

    def __init__(self, hits: list[Hit[E]], *, limit: int, strategy: str) -> None:
        super().__init__(hits)
        self.exhausted = len(hits) < limit
        self.strategy = strategy
        self.relaxed = any(hit.relaxed for hit in hits)


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
    group_by: sa.ColumnElement[Any] | None = None
    per_group: int = 1
    context: Vector | None = None

    def candidates(self, limit: int) -> int:
        """Return how many candidates are worth finding for so many hits."""
        wide = self.diversity or self.group_by is not None or self.context is not None
        several = max(SEVERAL_CANDIDATES, SEVERAL_WINDOW * limit) if wide else 0
        return max(limit, several, self.rerank.candidates if self.rerank else 0)


class Rows(Protocol[E]):
    """Where the rows of a ranking come from, as entities."""

    @property
    def target(self) -> Target:
        """What is searched."""

    def require(self, clause: sa.ColumnElement[Any], what: str) -> None:
        """Refuse an expression that is not over the rows, or that leaves its place."""

    def execute(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of another statement, in the same transaction."""

    def hits(self, query: Query) -> Hits[E]:
        """Run the statement of a search."""

    def key(self, entity: E) -> tuple[Any, ...]:
        """Return the primary key of a row."""

    def heading(self, entity: E) -> str:
        """Return what stands above each chunk of a row."""


def run(rows: Rows[E], query: Query, noun: str = "the columns of documents") -> Hits[E]:
    """Find the rows that answer a query.

    Args:
        rows: Where. The settings that the statement makes end with its transaction, or with the
            statement itself where each is its own.
        query: What is asked.
        noun: What a filter may use.

    Raises:
        InvalidFilter: PostgreSQL does not accept the filter.
    """
    what = " or ".join(["filter"] * (query.where is not None) + ["boost"] * bool(query.boosts))
    with filter_errors(bool(what), what, noun):
        return rows.hits(query)


class RefinedSearch(Generic[E]):
    """A search whose candidates are put in another order before the page is cut.

    Args:
        rows: Where.
        query: What is asked; of its page, only the length counts.
        refinement: How.
    """

    def __init__(self, rows: Rows[E], query: Query, refinement: Refinement) -> None:
        self.rows, self.query, self.refinement = rows, query, refinement

    def hits(self) -> Hits[E]:
        """Find more candidates than the page needs, put them in another order, and cut the page from it."""
        refinement, limit = self.refinement, self.query.page.limit
        strategy, ordered = self._candidates()
        comparable = len(ordered)  # hits whose scores are of one kind
        if isinstance(refinement.rerank, Rerank):
            ordered, comparable = self._reranked(refinement.rerank, ordered)
        if isinstance(refinement.rerank, LateInteraction):
            ordered, comparable = self._compared_by_token(ordered, refinement.rerank.candidates)
        if refinement.context is not None:
            ordered = self._in_context(refinement.context, ordered)
        if refinement.diversity:
            ordered = self._diverse(ordered[:comparable]) + ordered[comparable:]
        ranked = [replace(hit, rank=rank) for rank, hit in enumerate(ordered[:limit], start=1)]
        return Hits(ranked, limit=limit, strategy=strategy)

    def _candidates(self) -> tuple[str, list[Hit[E]]]:
        """Find candidates; where they are grouped, more and more of them until there are enough or no others."""
        refinement, limit = self.refinement, self.query.page.limit
        wanted = refinement.candidates(limit)
        while True:
            hits = run(self.rows, replace(self.query, page=Page(wanted)))
            if refinement.group_by is None:
                return hits.strategy, list(hits)
            groups = self._groups(hits, refinement.group_by)
            chosen = few_of_each([groups.get(self.rows.key(hit.entity)) for hit in hits], refinement.per_group)
            if len(chosen) >= limit or hits.exhausted:
                return hits.strategy, [hits[at] for at in chosen]
            wanted *= SEVERAL_WINDOW

    def _groups(self, hits: Sequence[Hit[E]], by: sa.ColumnElement[Any]) -> dict[tuple[Any, ...], Hashable]:
        target = self.rows.target
        keys = list(target.keys.values())
        statement = sa.select(*keys, by).select_from(target.rows).where(one_of(keys, self._keys(hits)))
        with filter_errors(True, "group_by"):
            self.rows.require(by, "grouping")
            return {tuple(key): hashable(value) for *key, value in self.rows.execute(statement)}

    def _keys(self, hits: Sequence[Hit[E]]) -> list[tuple[Any, ...]]:
        return [self.rows.key(hit.entity) for hit in hits]

    def _reranked(self, rerank: Rerank, hits: Sequence[Hit[E]]) -> tuple[list[Hit[E]], int]:
        """Put hits in the order of the reranker; those beyond its budget follow as they were."""
        texts = [below(self.rows.heading(hit.entity), hit.chunk.text) for hit in hits]
        return _rescored(hits, rerank.scores(self.query.text or "", texts))

    def _diverse(self, hits: Sequence[Hit[E]]) -> list[Hit[E]]:
        scores, limit, distance = [hit.score for hit in hits], self.query.page.limit, self.rows.target.dense.distance
        chosen = mmr(scores, self._vectors(hits), limit, self.refinement.diversity, distance)
        return [hits[at] for at in chosen]

    def _compared_by_token(self, hits: Sequence[Hit[E]], candidates: int) -> tuple[list[Hit[E]], int]:
        """Put the best hits in the order of late interaction; the others follow as they were."""
        tokens = self.query.tokens
        assert tokens is not None
        keys = self._keys(hits[:candidates])
        statement = late_interaction(self.rows.target, tokens_text(tokens), keys)
        scores = {tuple(key): score for *key, score in self.rows.execute(statement)}
        return _rescored(hits, [scores.get(key) for key in keys])

    def _in_context(self, context: Vector, hits: Sequence[Hit[E]]) -> list[Hit[E]]:
        """Order hits by how many pairs they are on the right side of; among equals the order stays."""
        agreeing = agreement(self._vectors(hits), context, self.rows.target.dense.distance)
        order = sorted(range(len(hits)), key=lambda at: -agreeing[at])
        return [replace(hits[at], legs={**hits[at].legs, "context": float(agreeing[at])}) for at in order]

    def _vectors(self, hits: Sequence[Hit[E]]) -> Vector:
        """Return the vector of each hit's chunk, shape (n, d); zeros for a hit without one."""
        target = self.rows.target
        chunks = target.chunks
        columns = [*target.keys_of(chunks), chunks.c.ordinal]
        wanted = [(*self.rows.key(hit.entity), hit.chunk.ordinal) for hit in hits]
        rows = self.rows.execute(sa.select(*columns, chunks.c.embedding).where(one_of(columns, wanted)))
        storage, _, dimensions = target.dense.indexed.vectors
        found = {tuple(key): storage.parse(vector) for *key, vector in rows}
        nothing = np.zeros(dimensions, dtype=np.float32)
        return np.array([found.get(key, nothing) for key in wanted], dtype=np.float32).reshape(-1, len(nothing))


def mean_vectors(
    target: Target, connection: sa.Connection, keys: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], Vector]:
    """Return the mean vector of each of some rows, by their keys.

    Raises:
        InvalidQuery: One of them has none.
    """
    chunks, storage = target.chunks, target.dense.indexed.storage
    columns = target.keys_of(chunks)
    found: dict[tuple[Any, ...], list[Vector]] = {}
    for *key, embedding in connection.execute(sa.select(*columns, chunks.c.embedding).where(one_of(columns, keys))):
        found.setdefault(tuple(key), []).append(storage.parse(embedding))
    for wanted in keys:
        if wanted not in found:
            raise InvalidQuery(
                f"the row with the key {', '.join(map(str, wanted))} has no vectors yet; sync() or a worker makes them"
            )
    return {key: np.mean(several, axis=0) for key, several in found.items()}


@contextlib.contextmanager
def filter_errors(filtered: bool, what: str = "filter", noun: str = "the columns of documents") -> Iterator[None]:
    """Blame the filter, where there is one, for what PostgreSQL cannot read or evaluate.

    Raises:
        InvalidFilter: With what PostgreSQL said.
    """
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        if not filtered or not of_the_caller(error):
            raise
        raise InvalidFilter(f"the {what} does not work: {first_line(error)}; it may use {noun}") from error


def _rescored(hits: Sequence[Hit[E]], scores: Sequence[float | None]) -> tuple[list[Hit[E]], int]:
    """Order the first hits by other scores; those without one follow as they were. Return also how many have one."""
    scored, others = [], []
    for hit, score in itertools.zip_longest(hits, scores):
        if score is None:
            others.append(hit)
        else:
            scored.append(replace(hit, score=score, legs={**hit.legs, "rerank": score}))
    return sorted(scored, key=lambda hit: -hit.score) + others, len(scored)
