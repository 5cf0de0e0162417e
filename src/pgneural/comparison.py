"""Comparing a space with the one that serves: do they find the same, which finds better, is quicker, is smaller."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from pgneural.encoders.permitted import permitted
from pgneural.errors import InvalidSpace
from pgneural.evaluation import measured
from pgneural.judgements import Qrels, Queries, read_qrels, read_queries
from pgneural.statement import LEXICAL, Page, Query, Target, Vectors
from pgneural.store import spaces
from pgneural.store.catalog import rows_per_key
from pgneural.store.engine import translated
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import indexed_of
from pgneural.store.space_tables import SpaceTables
from pgneural.store.spaces import SearchName
from pgneural.store.tables import chunk_table, terms_table
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
    search: SearchName,
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
        qrels: A file, or relevance by query id and by the row's key (of a document, its external id).
        k: How many hits of each are compared.
        mode: How they are searched.

    Raises:
        UnknownSpace: There is no such space.
        InvalidSpace: It serves, or the table is empty.
        UnreadableInput: A file cannot be read.
    """
    with translated(), engine.begin() as connection:
        every = spaces.spaces_of(connection, search)
        found = {info.name: info for info in spaces.described(connection, search)}
        other, serving = spaces.require(connection, search, name), every[0]
        if other.id == serving.id:
            raise InvalidSpace(f"space {name} of {search} serves; compare another with it")
        asked = _queries(connection, every[0], queries)
    judged = read_qrels(qrels) if isinstance(qrels, (str, Path)) else qrels
    if not asked:
        raise InvalidSpace(f"{search} has no rows to ask for; give queries")
    runs = [_SpaceRun(engine, space, mode, k) for space in (serving, other)]
    for run in runs:
        run.ask(asked)
    overlap = float(np.mean([_overlap(*({*run.keys[id_][:k]} for run in runs)) for id_ in asked]))
    results = [run.result(found[run.space.name].bytes, judged) for run in runs]
    return Comparison(str(search), len(asked), k, overlap, (results[0], results[1]))


def _queries(connection: sa.Connection, space: Space, queries: str | Path | Queries | None) -> Queries:
    if isinstance(queries, (str, Path)):
        return read_queries(queries)
    if queries is not None:
        return queries
    if space.vector_column is not None:
        raise InvalidSpace(f"the vectors of {space.source} are in its own rows, without a text; give queries")
    chunks = _target(connection, space).dense.table
    text = sa.func.left(sa.func.trim(chunks.c.text), 200).label("text")
    first = sa.select(text).where(chunks.c.ordinal == 0, text != "")
    sampled = first.order_by(sa.func.md5(text)).limit(SAMPLED)
    return {str(number): text for number, text in enumerate(connection.scalars(sampled))}


class _SpaceRun:
    """What one space answers."""

    def __init__(self, engine: sa.Engine, space: Space, mode: Mode, k: int) -> None:
        self.space, self._engine, self._mode, self._k = space, engine, mode, k
        self.keys: dict[str, list[str]] = {}
        self._seconds: list[float] = []
        self._encoding: list[float] = []

    def ask(self, queries: Queries) -> None:
        encoder = permitted(self.space.encoder, **self.space.options)
        with translated(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            target = _target(connection, self.space)
            legs = {Mode.HYBRID: target.legs, Mode.LEXICAL: [LEXICAL]}.get(self._mode, [target.dense.leg])
            for id_, text in [next(iter(queries.items())), *queries.items()]:  # the first pays for caches
                started = time.perf_counter()
                vector = encoder.encode_query(text)
                encoded = time.perf_counter()
                inputs = {leg: value for leg, value in (("semantic", vector), (LEXICAL, text)) if leg in legs}
                query = Query(self._mode, Page(max(DEPTH, self._k)), inputs, text)
                statement = query.select(target)
                built = time.perf_counter()
                rows = connection.execute(statement, query.parameters(target)).mappings().all()
                self._seconds.append(time.perf_counter() - built)
                self._encoding.append(encoded - started)
                self.keys[id_] = [_key(row, target) for row in rows]
            if self.space.source == DOCUMENTS.fullname:
                self._externally(connection)

    def _externally(self, connection: sa.Connection) -> None:
        ids = {int(key) for keys in self.keys.values() for key in keys}
        columns = sa.select(DOCUMENTS.c.id, DOCUMENTS.c.external_id)
        names = {row[0]: row[1] for row in connection.execute(columns.where(DOCUMENTS.c.id.in_(ids)))}
        self.keys = {id_: [names.get(int(key), key) for key in keys] for id_, keys in self.keys.items()}

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


def _target(connection: sa.Connection, space: Space) -> Target:
    """Return the target of any space, as the catalog describes it."""
    kept = SpaceTables.of(connection, space)
    schema, table = connection.execute(sa.text("SELECT x[1], x[2] FROM parse_ident(:s) x"), {"s": space.source}).one()
    names = [name.removeprefix("source_") for name in kept.keys]
    metadata = sa.MetaData()
    source = sa.Table(table, metadata, *(sa.Column(name, primary_key=True) for name in names), schema=schema)
    chunks = chunk_table(source, space.attribute, space.dimensions, metadata=metadata, name=space.chunk_table)
    terms = terms_table(source, space.attribute, metadata=metadata, chunks=space.chunk_table)
    ratio = rows_per_key(connection, str(kept.chunks))
    scope = sa.column("collection") == space.attribute if space.source == DOCUMENTS.fullname else None
    return Target(source, (Vectors("semantic", chunks, indexed_of(space), ratio),), terms, space.id, scope)


def _overlap(one: set[str], other: set[str]) -> float:
    """Return which part of the longer list of hits both have; two empty ones are the same."""
    longest = max(len(one), len(other))
    return len(one & other) / longest if longest else 1.0


def _key(row: sa.RowMapping, target: Target) -> str:
    return ",".join(str(row[name]) for name in target.keys)
