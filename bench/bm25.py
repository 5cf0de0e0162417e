"""The lexical leg: the same ranking as BM25 elsewhere, the same with and without pruning, quicker than ts_rank_cd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import bm25s
import click
import ir_measures
import sqlalchemy as sa
from ir_measures import nDCG

from bench.corpus import ARXIV, CACHE, abstracts
from bench.judged import Judged, indexed
from pgneural import Collection, Database, embedded
from pgneural.cli.output import print_table
from pgneural.statement import lexical_leg
from pgneural.store.lexical import complete

JUDGED = ("text-cranfield", "text-npl", "text-squad2")


@click.command("bm25")
@click.option("--queries", default=1000, show_default=True, help="On arXiv.")
@click.option("--copies", default=10, show_default=True, help="Of arXiv, for the growth of the latency.")
def command(queries: int, copies: int) -> None:
    """nDCG@10 against bm25s; pruning; latency against ts_rank_cd; growth from 50,000 rows to ten times as many."""
    rows = [quality(collection, data) for collection, data in indexed(JUDGED, "hash")]
    print_table(("nDCG@10", "queries", "ours", "bm25s", "difference"), rows)
    with embedded(CACHE / "bm25") as db:
        collection = db.collection("arxiv", encoder="hash")
        collection.index(ARXIV)
        asked = [sentence(record["text"]) for record in abstracts()][:: 49_973 // queries][:queries]
        print_table(("arXiv", "pruned", "unpruned", "ratio", "same top 10"), [pruning(collection, asked)])
        print_table(("p50 ms over the same matches", "ours", "ts_rank_cd", "ratio"), [ranking(db, collection, asked)])
        grown = db.collection("arxiv_copies", encoder="hash")
        multiply(db, collection, grown, copies)
        print_table(("p50 ms", "50,000 rows", f"{copies} times as many", "growth"), [growth(collection, grown, asked)])


def sentence(text: str) -> str:
    """Return the first sentence of an abstract: a query of natural length that matches many rows."""
    return text.strip().split(". ")[0][:300].replace('"', " ").replace("-", " ")


def quality(collection: Collection, data: Judged) -> list[Any]:
    """Rank with ours and with bm25s over the very same tokens; documents of equal score in the same order."""
    tokens = {row.external_id: list(row.tokens) for row in read(collection, _TOKENS)}
    ids = sorted(tokens)
    model = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    model.index([tokens[id_] for id_ in ids], show_progress=False)
    ours, theirs = {}, {}
    for query, text in data.queries.items():
        hits = collection.search(text, mode="lexical", limit=10)
        ours[query] = {hit.entity.external_id: float(-hit.rank) for hit in hits}
        words = list(read(collection, _QUERY, text=text)[0].tokens)
        known = [word for word in words if word in model.vocab_dict]
        scores = model.get_scores(known) if known else []
        best = sorted(range(len(scores)), key=lambda at: -scores[at])[:10]
        theirs[query] = {ids[at]: float(-rank) for rank, at in enumerate(best) if scores[at] > 0}
    reached = [ir_measures.calc_aggregate([nDCG @ 10], data.qrels, run)[nDCG @ 10] for run in (ours, theirs)]
    return [data.name, len(data.queries), *reached, reached[0] - reached[1]]


def pruning(collection: Collection, queries: Sequence[str]) -> list[Any]:
    """Search with rare words first and with all words at once."""
    pruned, with_pruning = timed(collection, queries)
    with all_words(collection):
        unpruned, without = timed(collection, queries)
    same = sum(a == b for a, b in zip(with_pruning, without, strict=True))
    return [f"{len(queries):,} queries, p50 ms", pruned, unpruned, pruned / unpruned, f"{same:,} of {len(queries):,}"]


def ranking(db: Database, collection: Collection, queries: Sequence[str]) -> list[Any]:
    """Rank all rows that match any word, by ts_rank_cd and by ours; ours without pruning reads the same rows."""

    def ts_rank_cd(text: str) -> None:
        read(collection, _TS_RANK_CD, text=text)

    ours = 1000 * median(seconds(lambda text: collection.search(text, mode="lexical"), queries[::5]))
    theirs = 1000 * median(seconds(ts_rank_cd, queries[::5]))
    return [f"arXiv, {len(queries[::5])} queries", ours, theirs, ours / theirs]


def multiply(db: Database, collection: Collection, grown: Collection, copies: int) -> None:
    """Copy the documents with fresh ids, and index their words; vectors are not needed."""
    if grown.count() == 0:
        with db.engine.begin() as connection:
            connection.execute(sa.text(_COPY), {"from": collection.name, "to": grown.name, "copies": copies})
    complete(db.engine, grown.space)


def growth(collection: Collection, grown: Collection, queries: Sequence[str]) -> list[Any]:
    """Search the same queries among the documents and among all their copies."""
    small, large = timed(collection, queries)[0], timed(grown, queries[::5])[0]
    return ["lexical search", small, large, large / small]


def timed(collection: Collection, queries: Sequence[str]) -> tuple[float, list[list[str]]]:
    """Return the median milliseconds of a search, and the ids found."""
    found: list[list[str]] = []

    def find(text: str) -> None:
        found.append([hit.entity.external_id for hit in collection.search(text, mode="lexical", limit=10)])

    times = seconds(find, queries)
    return 1000 * median(times), found


def seconds(call: Callable[[str], Any], queries: Sequence[str]) -> list[float]:
    """Return the seconds of each call."""
    times = []
    for query in queries:
        started = time.perf_counter()
        call(query)
        times.append(time.perf_counter() - started)
    return times


@contextmanager
def all_words(collection: Collection) -> Iterator[None]:
    """Take every word for a rare one, so that nothing is pruned."""
    usual, lexical_leg.RARE_ROWS = lexical_leg.RARE_ROWS, 2_000_000_000
    collection.searcher.forget_statements()  # it keeps the statements that it has built
    try:
        yield
    finally:
        lexical_leg.RARE_ROWS = usual
        collection.searcher.forget_statements()


def read(collection: Collection, statement: str, **parameters: Any) -> Sequence[sa.Row[Any]]:
    """Run a statement about a collection."""
    values = {"collection": collection.name, "space": collection.space.id, **parameters}
    with collection.searcher.engine.connect() as connection:
        return connection.execute(sa.text(statement.replace("{name}", collection.name)), values).all()


_TOKENS = """
SELECT d.external_id,
       ARRAY(SELECT u.lexeme FROM unnest(t.lexemes) u, generate_series(1, coalesce(cardinality(u.positions), 1))
              WHERE NOT starts_with(u.lexeme, '=')) AS tokens
  FROM neural.documents d JOIN neural."documents_{name}_terms" t ON t.source_id = d.id"""

_QUERY = """
SELECT ARRAY(SELECT u.lexeme FROM unnest(neural.query_words('english', :text)) u,
                    generate_series(1, coalesce(cardinality(u.positions), 1))) AS tokens"""

_TS_RANK_CD = """
SELECT d.external_id, ts_rank_cd(t.lexemes, q.every) AS score
  FROM (SELECT every FROM neural.lexical_query(:space, :text, 1)) q,
       neural."documents_{name}_terms" t JOIN neural.documents d ON d.id = t.source_id
 WHERE t.lexemes @@ q.every ORDER BY score DESC, d.id LIMIT 10"""

_COPY = """
INSERT INTO neural.documents (collection, external_id, title, content, metadata)
SELECT :to, external_id || '-' || copy, title, content, metadata
  FROM neural.documents, generate_series(1, :copies) copy WHERE collection = :from"""
