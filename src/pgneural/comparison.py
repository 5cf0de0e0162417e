"""Comparing a space with the one that serves: do they find the same, which finds better, is quicker, is smaller."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from pgneural.collection import Collection
from pgneural.document_searcher import DocumentSearcher
from pgneural.encoders.permitted import permitted
from pgneural.errors import InvalidSpace
from pgneural.evaluation import measured
from pgneural.judgements import Qrels, Queries, read_qrels, read_queries
from pgneural.store import spaces
from pgneural.store.engine import translated
from pgneural.store.monitoring import statuses
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space_tables import SpaceTables
from pgneural.table import TableSearch, table_search
from pgneural.types import Mode

SAMPLED = 100
"""Titles of rows, or how their texts begin, that are asked where no queries are given."""

DEPTH = 100
"""Rows that are taken for each query: as many as the measures look at."""


@dataclass(frozen=True)
class SpaceResult:
    """What one space reached.

    Attributes:
        name: The space.
        state: ``serving``, ``building`` or ``standby``.
        encoder: What makes its vectors.
        p50_ms: Median time of a search, without the encoding of its query.
        p95_ms: 95 % of the searches were quicker.
        encode_ms: Median time of encoding a query.
        bytes: Of its tables with their indexes.
        mean: Each measure's mean over the judged queries, as of `pgneural.evaluate`; empty without judgements.
    """

    name: str
    state: str
    encoder: str
    p50_ms: float
    p95_ms: float
    encode_ms: float
    bytes: int
    mean: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Two spaces of one search.

    Attributes:
        search: Its name.
        queries: How many were asked.
        k: How many hits of each were compared.
        overlap: Which part of the first k hits both have, in the mean.
        spaces: The space that serves, and the other.
    """

    search: str
    queries: int
    k: int
    overlap: float
    spaces: tuple[SpaceResult, SpaceResult]


def compare(
    engine: sa.Engine,
    search: Space,
    name: str,
    queries: str | Path | Queries | None = None,
    qrels: str | Path | Qrels | None = None,
    *,
    k: int = 10,
    mode: Mode = Mode.HYBRID,
) -> Comparison:
    """Ask both spaces the same.

    Args:
        engine: Where they are.
        search: Their search.
        name: The space that is compared with the one that serves.
        queries: A file (see `pgneural.judgements`), or texts by id; by default how rows begin.
        qrels: A file, or relevance by query id and by what the row is known by (`TableSearch.id_of`; of a document,
            its external id).
        k: How many hits of each are compared.
        mode: How they are searched.

    Raises:
        UnknownSpace: There is no such space.
        InvalidSpace: It serves, or the table is empty.
        UnreadableInput: A file cannot be read.
    """
    with translated(), engine.begin() as connection:
        every = spaces.spaces_of(connection, search)
        sizes = {status.name: status.bytes for status in statuses(connection, search)}
        other, serving = spaces.require(connection, search, name), every[0]
        if other.id == serving.id:
            raise InvalidSpace(f"space {name} of {search.search} serves; compare another with it")
        texts = _queries(connection, every[0], queries)
    judged = read_qrels(qrels) if isinstance(qrels, (str, Path)) else qrels
    if not texts:
        raise InvalidSpace(f"{search.search} has no rows to ask for; give queries")
    runs = [_SpaceRun(engine, space, mode, k) for space in (serving, other)]
    for run in runs:
        run.ask(texts)
    overlap = float(np.mean([_overlap(*({*run.keys[id_][:k]} for run in runs)) for id_ in texts]))
    results = [run.result(sizes[run.space.name], judged) for run in runs]
    return Comparison(search.search, len(texts), k, overlap, (results[0], results[1]))


def _queries(connection: sa.Connection, space: Space, queries: str | Path | Queries | None) -> Queries:
    if isinstance(queries, (str, Path)):
        return read_queries(queries)
    if queries is not None:
        return queries
    chunks = SpaceTables.of(connection, space).chunks
    if chunks is None:
        raise InvalidSpace(f"the vectors of {space.source} are in its own rows, without a text; give queries")
    sampled = sa.text(_SAMPLED.replace("{chunks}", chunks.replace(":", "\\:")))
    return {str(number): text for number, text in enumerate(connection.scalars(sampled, {"sampled": SAMPLED}))}


def _search_of(engine: sa.Engine, space: Space) -> Collection | TableSearch[Any]:
    """Return the search of this very space, whether it serves or not."""
    if space.source == DOCUMENTS.fullname:
        make = functools.partial(permitted, space.encoder, **space.options)
        return Collection(DocumentSearcher(engine, space, make, pinned=True))
    return table_search(engine, space, pinned=True)


class _SpaceRun:
    """What one space answers."""

    def __init__(self, engine: sa.Engine, space: Space, mode: Mode, k: int) -> None:
        self.space, self._mode, self._limit = space, mode, max(DEPTH, k)
        self._search = _search_of(engine, space)
        self.keys: dict[str, list[str]] = {}
        self._seconds: list[float] = []
        self._encoding: list[float] = []

    def ask(self, queries: Queries) -> None:
        encoder = permitted(self.space.encoder, **self.space.options)
        for id_, text in [next(iter(queries.items())), *queries.items()]:  # the first pays for caches
            started = time.perf_counter()
            vector = encoder.encode_query(text)
            encoded = time.perf_counter()
            inputs = {"semantic": vector} if self._mode in (Mode.SEMANTIC, Mode.HYBRID) else {}
            hits = self._search.search(text, mode=self._mode, limit=self._limit, inputs=inputs)
            self._seconds.append(time.perf_counter() - encoded)
            self._encoding.append(encoded - started)
            self.keys[id_] = [self._search.id_of(hit.entity) for hit in hits]

    def result(self, size: int, judged: Qrels | None) -> SpaceResult:
        p50, p95 = np.percentile(np.array(self._seconds[1:]) * 1000, [50, 95])
        encode = float(np.median(self._encoding[1:])) * 1000
        mean: Mapping[str, float] = {}
        if judged is not None:
            relevant = {id_: judged[id_] for id_ in self.keys if any(judged.get(id_, {}).values())}
            run = {id_: {key: float(-rank) for rank, key in enumerate(keys)} for id_, keys in self.keys.items()}
            mean = measured(relevant, run)
        space = self.space
        return SpaceResult(space.name, space.state, space.encoder, float(p50), float(p95), encode, size, mean)


def _overlap(one: set[str], other: set[str]) -> float:
    """Return which part of the longer list of hits both have; two empty ones are the same."""
    longest = max(len(one), len(other))
    return len(one & other) / longest if longest else 1.0


_SAMPLED = """
SELECT left(trim(text), 200) FROM {chunks} WHERE ordinal = 0 AND trim(text) <> ''
 ORDER BY md5(left(trim(text), 200)) LIMIT :sampled"""
