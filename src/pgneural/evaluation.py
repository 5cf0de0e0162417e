"""Judging a search: how good are its answers, and how quick, in each mode.

The measures are computed by `ir_measures <https://ir-measur.es>`_ (trec_eval's code): nDCG@10 (Järvelin and
Kekäläinen 2002, gain = the judged relevance), recall@100, MRR@10 and MAP over the first 100 hits.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Unpack

import numpy as np
from sqlalchemy.orm import Session

from pgneural.errors import EncoderUnavailable, InvalidQuery, UnreadableInput
from pgneural.extras import require
from pgneural.filter import Filter
from pgneural.judgements import Qrels, Queries, read_qrels, read_queries
from pgneural.options import SearchOptions, mode_of
from pgneural.orm.binding import SearchBinding
from pgneural.printable import counted
from pgneural.search import Hits
from pgneural.table import TableSearch
from pgneural.types import Encoder, Mode

DEPTH = 100
"""Hits taken for each query: as many as recall@100 looks at."""

MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "mrr@10": "RR@10", "map": "AP"}
"""Each with its name in ir_measures."""


@dataclass(frozen=True)
class ModeResult:
    """What one mode reached.

    Attributes:
        mean: Each measure's mean over the judged queries.
        per_query: For each query, each measure.
        p50_ms: Median time of a search in milliseconds, the encoding of the query included.
        p95_ms: 95 % of the searches were quicker.
    """

    mean: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    p50_ms: float
    p95_ms: float

    def as_json(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return a flat mapping; with ``per_query``, each query's measures too."""
        latency = {"p50_ms": round(self.p50_ms, 3), "p95_ms": round(self.p95_ms, 3)}
        flat = {**{name: round(value, 5) for name, value in self.mean.items()}, **latency}
        return {**flat, "per_query": self.per_query} if per_query else flat


@dataclass(frozen=True)
class Evaluation:
    """What a collection reached.

    Attributes:
        collection: Its name.
        queries: How many queries were judged.
        modes: For each mode, what it reached.
        unjudged: Queries without a judgement, which were left out.
    """

    collection: str
    queries: int
    modes: Mapping[str, ModeResult]
    unjudged: int = 0

    def as_json(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return what ``pgneural evaluate --json`` prints."""
        modes = {mode: result.as_json(per_query=per_query) for mode, result in self.modes.items()}
        return {"collection": self.collection, "queries": self.queries, "modes": modes}


class Judged(Protocol):
    """What can be judged: a `pgneural.Collection`, or a `pgneural.TableSearch`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def modes(self) -> Sequence[Mode]:
        """The modes in which it can be searched."""

    @property
    def encoder(self) -> Encoder:
        """What encodes its queries."""

    def search(self, query: Any, /, **options: Unpack[SearchOptions]) -> Hits[Any]:
        """Return what answers a query best."""

    def id_of(self, entity: Any, /) -> str:
        """Return what a hit is known by in judgements."""


def evaluate(
    searched: Judged | SearchBinding[Any],
    queries: str | Path | Queries,
    qrels: str | Path | Qrels,
    *,
    modes: Iterable[Mode | str] | None = None,
    where: Filter | None = None,
    progress: Callable[[int], None] | None = None,
    session: Session | None = None,
    **search: Any,
) -> Evaluation:
    """Search every judged query in each mode, and measure.

    Args:
        searched: What to judge: a collection, `Database.table`, or the search of a mapped class.
        queries: A file (see `pgneural.judgements`), or texts by id.
        qrels: A file, or relevance by query id and external id; of a table's row, the text of its primary key.
        modes: By default all three.
        where: A filter for every search.
        progress: Called after every search with how many are done.
        session: Where a mapped class is searched.
        **search: Passed to `Collection.search`.

    Raises:
        UnreadableInput: A file cannot be read, or no query has a judgement.
        InvalidQuery: There is no such mode.

    Example:
        >>> evaluate(notes, {"q": "foxes"}, {"q": {"1": 1}}, modes=["lexical"]).modes["lexical"].mean["mrr@10"]
        1.0
    """
    require("an evaluation", "ir_measures", "evaluate")
    collection = _over(searched, session)
    texts = read_queries(queries) if isinstance(queries, (str, Path)) else queries
    judged = read_qrels(qrels) if isinstance(qrels, (str, Path)) else qrels
    used = {id_: text for id_, text in texts.items() if any(grade > 0 for grade in judged.get(id_, {}).values())}
    if not used:
        every = counted(len(texts), "query", "queries")
        raise UnreadableInput(f"none of {every} has a relevant document; do the ids of both files agree?")
    relevant = {id_: judged[id_] for id_ in used}
    done = itertools.count(1)

    def find(text: str, mode: str) -> Hits[Any]:
        hits = collection.search(text, mode=mode, where=where, limit=DEPTH, **search)
        if progress:
            progress(next(done))
        return hits

    chosen = [mode_of(mode) for mode in modes] if modes else _usable(collection)
    results = {str(mode): _judge(used, relevant, find, mode, collection.id_of) for mode in chosen}
    return Evaluation(collection.name, len(used), results, len(texts) - len(used))


def _over(searched: Judged | SearchBinding[Any], session: Session | None) -> Judged:
    if not isinstance(searched, SearchBinding):
        return searched
    if session is None:
        raise InvalidQuery(f"{searched!r} is searched in a session; give session=")
    return TableSearch(searched, lambda: contextlib.nullcontext(session))


def _usable(collection: Judged) -> Sequence[Mode]:
    """Return all modes of a collection; where nothing can encode a text, only the lexical one."""
    try:
        collection.encoder.encode_query("a")
    except EncoderUnavailable:
        return [Mode.LEXICAL]
    return collection.modes


def _judge(
    queries: Queries,
    qrels: Qrels,
    find: Callable[[str, str], Hits[Any]],
    mode: Mode,
    id_of: Callable[[Any], str],
) -> ModeResult:
    find(next(iter(queries.values())), mode)  # the first search pays for plans and caches
    run: dict[str, dict[str, float]] = {}
    seconds = []
    for id_, text in queries.items():
        started = time.perf_counter()
        hits = find(text, mode)
        seconds.append(time.perf_counter() - started)
        run[id_] = {id_of(hit.entity): float(-hit.rank) for hit in hits}  # ranks, since ties are decided already
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    per_query = _measure(qrels, run)
    mean = _mean(per_query)
    return ModeResult(mean, per_query, float(p50), float(p95))


def measured(qrels: Qrels, run: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return each measure's mean over the judged queries of a run: for each query, the score of each row."""
    return _mean(_measure(qrels, run))


def _mean(per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in per_query.values()])) for name in MEASURES}


def _measure(qrels: Qrels, run: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    import ir_measures

    names = {ir_measures.parse_measure(measure): name for name, measure in MEASURES.items()}
    per_query = {id_: dict.fromkeys(MEASURES, 0.0) for id_ in qrels}
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        per_query[metric.query_id][names[metric.measure]] = float(metric.value)
    return per_query
