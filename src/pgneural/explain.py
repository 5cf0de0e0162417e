"""Saying in words what a search did: the way it took and why, what each stage cost, why there are not more hits.

Everything is read from one ``EXPLAIN (ANALYZE)`` of the very statement that a search runs; the stages are its
CTEs (`pgneural.statement`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import NO_LINTING

from pgneural.printable import counted
from pgneural.search import Hits
from pgneural.statement import Page, Query, Target, Vectors
from pgneural.store.contained import require_contained
from pgneural.store.tables import index_name
from pgneural.store.vectors import Method

Plan = Mapping[str, Any]

OF_VECTORS = {
    "near": "vector index",
    "exact": "distances, one by one",
    "fallback": "distances of all rows that pass",
}
"""Stages of each leg over vectors."""

OF_WORDS = {
    "question": "words of the query",
    "phrased": "rows with the phrase",
    "few_words": "words, one by one",
    "rare_words": "rows with a rare word",
    "more_words": "rows with more common words",
}


def stages_of(target: Target) -> dict[str, str]:
    """Return the stages of a search of a target in their order, each with what it is in words."""
    others = target.vectors[1:]
    named = {f"{each.leg}_{name}": f"{what} of leg {each.leg}" for each in others for name, what in OF_VECTORS.items()}
    return {
        "probe": "look how many rows pass",
        **OF_VECTORS,
        **named,
        **OF_WORDS,
        "scored": "all scores of the pool",
    }


@dataclass(frozen=True)
class Stage:
    """One part of the statement that ran.

    Attributes:
        name: Its CTE.
        what: The same in words.
        rows: How many rows it gave.
        removed: How many more it looked at, that did not pass the filter.
        ms: How long it took, other stages that it waited for not counted.
        indexes: The indexes it scanned.
    """

    name: str
    what: str
    rows: int
    removed: int
    ms: float
    indexes: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What a search did.

    Attributes:
        hits: The hits themselves, each with what its legs contributed.
        strategy: As of `Hits`.
        stages: What ran, in order.
        words: What happened and why, a sentence each.
        warnings: What should not be so, each with the remedy.
        planning_ms: How long PostgreSQL planned.
        total_ms: How long it executed.
        plan: PostgreSQL's own plan.
    """

    hits: Hits
    strategy: str
    stages: tuple[Stage, ...]
    words: tuple[str, ...]
    warnings: tuple[str, ...]
    planning_ms: float
    total_ms: float
    plan: Plan

    def __str__(self) -> str:
        return "\n".join([*self.words, *(f"warning: {warning}" for warning in self.warnings)])


def explain(connection: sa.Connection, target: Target, query: Query, hits: Hits) -> Explanation:
    """Run the statement of a search under ``EXPLAIN (ANALYZE)`` and put it into words.

    Args:
        connection: In a transaction.
        target: What is searched.
        query: What was asked.
        hits: What it found.
    """
    query = query.settled()
    require_contained(connection, target.source, query.expressions())
    output: Any = connection.execute(_Explained(query.select(target))).scalar()
    output = json.loads(output) if isinstance(output, str) else output  # as some drivers give it
    stages = stages_of(target)
    ran = {stage.name: stage for stage in _stages(output[0]["Plan"], stages)}
    narrative = _Narrative(target, query.page, hits, ran)
    return Explanation(
        hits,
        hits.strategy,
        tuple(ran[name] for name in stages if name in ran),
        tuple(narrative.sentences()),
        tuple(narrative.warnings()),
        float(output[0]["Planning Time"]),
        float(output[0]["Execution Time"]),
        output[0]["Plan"],
    )


class _Explained(sa.Executable, sa.ClauseElement):
    """A statement under ``EXPLAIN``, with its parameters as any driver takes them."""

    inherit_cache = False

    def __init__(self, statement: sa.Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _compiled(element: _Explained, compiler: Any, **options: Any) -> str:
    compiler.linting = NO_LINTING  # legs are joined through their keys in laterals
    return f"EXPLAIN (ANALYZE, FORMAT JSON) {compiler.process(element.statement, **options)}"


def _stages(plan: Plan, stages: Mapping[str, str]) -> Iterator[Stage]:
    for node in _nodes(plan):
        name = node.get("Subplan Name", "").removeprefix("CTE ")
        if name in stages and _executed(node):
            inside = list(_nodes(node))
            waited = sum(_ms(other) for other in inside if other["Node Type"] == "CTE Scan")
            indexes = sorted({other["Index Name"] for other in inside if "Index Name" in other and _executed(other)})
            removed = sum(int(other.get("Rows Removed by Filter", 0)) for other in inside if _is_scan(other))
            rows = int(node["Actual Rows"])
            yield Stage(name, stages[name], rows, removed, max(_ms(node) - waited, 0.0), tuple(indexes))


def _nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _executed(node: Plan) -> bool:
    """Tell whether a branch did anything: one that is not wanted is executed, but nothing below it is."""
    if "One-Time Filter" in node:
        return any(_executed(child) for child in node.get("Plans", ()) if child["Parent Relationship"] == "Outer")
    outer = [child for child in node.get("Plans", ()) if child["Parent Relationship"] == "Outer"]
    return node["Actual Loops"] > 0 and (not outer or any(_executed(child) for child in outer))


def _ms(node: Plan) -> float:
    return float(node["Actual Total Time"]) * float(node["Actual Loops"])


def _is_scan(node: Plan) -> bool:
    return "Relation Name" in node and "SubPlan" not in node.get("Parent Relationship", "")


def _kind(vectors: Vectors) -> str:
    indexed = vectors.indexed
    part = f", {indexed.length} of {indexed.dimensions} dimensions" if indexed.length < indexed.dimensions else ""
    return f"{indexed.index.method} over {indexed.type}{part}"


def _scanned(vectors: Vectors, near: Stage) -> str | None:
    """Return the vector index that a stage scanned; where the user made it, the one that is not a primary key."""
    table = vectors.table
    if isinstance(table, sa.Table):
        return index_name(table) if index_name(table) in near.indexes else None
    return next((name for name in near.indexes if not name.endswith("_pkey")), None)


def _passing(probe: Stage) -> str:
    return counted(probe.rows, "row passes", "rows pass")


def _name(table: sa.FromClause) -> str:
    return str(getattr(table, "fullname", None) or getattr(table, "name", table))


class _Narrative:
    """The sentences of an explanation."""

    def __init__(self, target: Target, page: Page, hits: Hits, stages: Mapping[str, Stage]) -> None:
        self.target, self.page, self.hits, self.stages = target, page, hits, stages

    def sentences(self) -> Iterator[str]:
        yield from self._filter()
        yield from self._vectors()
        yield from self._lexical()
        yield from self._why_fewer()

    def warnings(self) -> Iterator[str]:
        for vectors, near in self._near():
            if not _scanned(vectors, near) and vectors.indexed.index.method is not Method.NONE:
                yield (
                    f"no vector index was used on {_name(vectors.table)}; make it (`index()` of a "
                    "collection does, `op.create_vector_index` in a migration), and run ANALYZE if it is there"
                )
        rare = self.stages.get("rare_words")
        if rare and not rare.indexes:
            yield f"no index was used on {self.target.words.fullname}; run index() or sync() again, or ANALYZE"

    def _filter(self) -> Iterator[str]:
        probe, near = self.stages.get("probe"), self.stages.get("near")
        if self.hits.strategy == "exact" and probe:
            yield f"{_passing(probe)} the filter: few enough to compare them one by one."
        elif probe and near and near.removed:
            share = near.rows / (near.rows + near.removed)
            yield f"At least {_passing(probe)} the filter, about {share:.1%} of those near the query."
        elif probe:
            yield f"At least {_passing(probe)}: too many to compare one by one."
        elif near:
            yield "No filter, and too many rows to compare one by one."

    def _near(self) -> Iterator[tuple[Vectors, Stage]]:
        for vectors in self.target.vectors:
            if stage := self._stage(vectors, "near"):
                yield vectors, stage

    def _stage(self, vectors: Vectors, name: str) -> Stage | None:
        leads = vectors is self.target.dense
        return self.stages.get(name if leads else f"{vectors.leg}_{name}")

    def _vectors(self) -> Iterator[str]:
        for vectors, near in self._near():
            index = _scanned(vectors, near)
            by = f"{index} ({_kind(vectors)})" if index else "no index"
            yield f"By {by}: {near.rows + near.removed:,} chunks looked at, {near.rows:,} of them taken."
        for vectors in self.target.vectors:
            if not (fallback := self._stage(vectors, "fallback")):
                continue
            yield (
                f"That was too few rows for a full page, so all {fallback.rows:,} chunks of the rows that pass "
                "were compared, too."
            )

    def _lexical(self) -> Iterator[str]:
        if phrased := self.stages.get("phrased"):
            yield f"{phrased.rows:,} of the best rows by words have the phrase in quotation marks."
        if self.hits.relaxed:
            yield "These are fewer than were asked for, so rows without it follow: the search is relaxed."
        rare, more, few = (self.stages.get(name) for name in ("rare_words", "more_words", "few_words"))
        if few:
            best = counted(few.rows, "of these rows is the best that has", "of these rows are the best that have")
            yield f"{best} words of the query."
        if rare:
            yield f"The rarest words of the query gave {rare.rows:,} of the best rows by words."
        if more:
            yield f"Rows with more common words could still be better: {more.rows:,} of the best are from these."
        elif rare:
            yield "Rows with none of them cannot be better, so they were not read."

    def _why_fewer(self) -> Iterator[str]:
        probe = self.stages.get("probe")
        if not self.hits.exhausted:
            return
        found = len(self.hits)
        hits = counted(found, "hit", "hits")
        if probe and probe.rows < self.page.end and self.page.offset + found >= probe.rows:
            yield f"Only {hits}, because only {_passing(probe)} the filter."
        else:
            by_meaning = self.stages.keys() & {"near", "exact", "fallback"}
            why = "meet the threshold" if by_meaning else "share a word with the query"
            yield f"Only {hits}, because no other rows {why}."
