"""A query as a value: it grows by its methods, is asked of any search, and can be kept as JSON.

The methods are those of `pgneural.orm.SearchQuery`, which is a query of one mapped class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import sqlalchemy as sa

from pgneural.errors import InvalidQuery, PgneuralError
from pgneural.filter import Expression, Filter, condition
from pgneural.options import PATIENCE_SECONDS, QueryInput, SearchOptions
from pgneural.rerank import LateInteraction, Rerank, Reranker
from pgneural.statement import RRF, Boost, Fusion, WeightedSum
from pgneural.types import Mode

if TYPE_CHECKING:
    from pathlib import Path

SQL = ("where", "boosts", "group_by")
"""What holds SQL in the JSON of a query: PostgreSQL executes it with the rights of who searches."""

FUSIONS: Mapping[str, type[Fusion]] = {"weighted_sum": WeightedSum, "rrf": RRF}


class Generative:
    """The methods by which a query grows; each returns another query."""

    search_options: SearchOptions

    def limit(self, limit: int) -> Self:
        """Ask for so many rows, at least 1; ten by default."""
        return self._with(limit=limit)

    def offset(self, offset: int) -> Self:
        """Skip so many rows; pages of one length neither repeat nor lose a row."""
        return self._with(offset=offset)

    def mode(self, mode: Mode | str) -> Self:
        """Choose ``semantic``, ``lexical``, ``sparse`` or ``hybrid``; a text is searched hybrid, a vector semantic."""
        return self._with(mode=mode)

    def fuse(self, fusion: Fusion) -> Self:
        """Join the legs of a hybrid search by a `WeightedSum` or an `RRF`."""
        return self._with(fusion=fusion)

    def boost(self, by: Boost | Expression, weight: float = 1.0) -> Self:
        """Add a score from ordinary columns."""
        boost = by if isinstance(by, Boost) else Boost(by, weight)
        before: Any = self.search_options.get("boosts") or ()
        return self._with(boosts=[*before, boost])

    def aggregate(self, aggregate: str) -> Self:
        """Say how the chunks of a row become one score by meaning: ``max``, ``mean``, ``sum``, ``top3``."""
        return self._with(aggregate=aggregate)

    def threshold(self, *, max_distance: float | None = None, min_score: float | None = None) -> Self:
        """Leave out what is farther, or scores less."""
        return self._with(max_distance=max_distance, min_score=min_score)

    def rerank(self, rerank: Rerank | Reranker | LateInteraction | str | Path) -> Self:
        """Let a cross-encoder read query and text together."""
        return self._with(rerank=rerank)

    def diverse(self, diversity: float) -> Self:
        """Prefer hits that differ from those before them: from 0 (not at all) to 1."""
        return self._with(diversity=diversity)

    def group_by(self, by: Expression, per_group: int = 1) -> Self:
        """Of the rows with one value of an expression, take only the best."""
        return self._with(group_by=by, per_group=per_group)

    def fresh(self, fresh: Literal["any", "require"] = "require", patience: float = PATIENCE_SECONDS) -> Self:
        """Wait until every row that has changed so far is encoded, for so many seconds; 0 looks once.

        A session that sees no commits of others (REPEATABLE READ) waits in vain.
        """
        return self._with(fresh=fresh, patience=patience)

    def inputs(self, **inputs: QueryInput) -> Self:
        """Ask single legs another thing than the query: ``inputs(lexical="vaccine", semantic=vector)``."""
        return self._with(inputs={**(self.search_options.get("inputs") or {}), **inputs})

    def with_options(self, **options: Any) -> Self:
        """Set several options at once, as of `pgneural.Collection.search`; the filter is for `where`.

        Raises:
            InvalidQuery: There is no such option.
        """
        known = SearchOptions.__annotations__.keys() - {"where"}
        if unknown := sorted(options.keys() - known):
            raise InvalidQuery(f"a query has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return self._with(**options)

    def _with(self, **options: Any) -> Self:
        merged: Any = {**self.search_options, **options}
        return replace(self, search_options=merged)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class Query(Generative):
    """A query of any search: of a collection, of a table, of a mapped class.

    Attributes:
        input: A text, a vector, or several texts with weights.
        search_options: Options, as of `pgneural.Collection.search`.
        conditions: The filter.

    Example:
        >>> query = Query("foxes").where("title LIKE 'F%'").limit(1)
        >>> notes.search(query)
        []
    """

    input: QueryInput
    search_options: SearchOptions = field(default_factory=SearchOptions)
    conditions: tuple[Filter, ...] = ()

    def where(self, *conditions: Filter) -> Self:
        """Narrow the rows: SQLAlchemy conditions, or SQL predicates as text, alone or with parameters."""
        return replace(self, conditions=(*self.conditions, *conditions))

    def narrowed(self, options: SearchOptions) -> SearchOptions:
        """Return its options with others in their place; a further filter narrows that of the query."""
        merged: Any = {**self.search_options, **options}
        conditions = map(condition, (*self.conditions, options.get("where")))
        if narrowed := [part for part in conditions if part is not None]:
            merged["where"] = sa.and_(*narrowed)
        result: SearchOptions = merged
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the query as JSON holds it.

        Raises:
            InvalidQuery: A part of it is no plain value: a SQLAlchemy expression, a reranker object.
        """
        document: dict[str, Any] = {"query": _plain("query", self.input)}
        if self.conditions:
            document["where"] = [_sql("where", each) for each in self.conditions]
        for name, value in self.search_options.items():
            if value is not None:
                document[name] = _written(name, value)
        return document

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, sql: bool = False, models: bool = False) -> Self:
        """Read what `to_json` wrote.

        Args:
            value: The JSON.
            sql: Whether its SQL is read. PostgreSQL executes it with the rights of who searches, so only for
                queries that you have written.
            models: Whether it may name a reranker, which this host then loads; likewise.

        Raises:
            InvalidQuery: There is SQL that is not to be read, or something that a query has not.
        """
        options = dict(value)
        if found := [name for name in SQL if options.get(name) and not sql]:
            raise InvalidQuery(f"the query has SQL in {found[0]!r}; pass sql=True if you have written it yourself")
        if options.get("rerank") is not None and not models:
            raise InvalidQuery("the query names a model in 'rerank'; pass models=True if you have written it yourself")
        if "query" not in options:
            raise InvalidQuery("the JSON has no 'query'; give a text, a vector, or texts with weights")
        query, where = cls(options.pop("query")), options.pop("where", None) or []
        if not isinstance(where, Sequence) or isinstance(where, str):
            raise InvalidQuery(f"where is {where!r}, expected a list of SQL texts, or of texts with parameters")
        try:
            read = {name: _read(name, value) for name, value in options.items()}
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            if isinstance(error, PgneuralError):
                raise
            raise InvalidQuery(f"the JSON is no query: {error!r}; write it as to_json does") from error
        return query.with_options(**read).where(*map(_filter, where))


def _written(name: str, value: Any) -> Any:
    if isinstance(value, Fusion):
        (kind,) = (kind for kind, type_ in FUSIONS.items() if type(value) is type_)
        return {"kind": kind, **{k: v for k, v in vars(value).items() if k != "weights"}, **dict(value.weights)}
    if name == "boosts":
        return [{"by": _sql(name, boost.expression), "weight": boost.weight} for boost in _boosts(value)]
    if name == "group_by":
        return _sql(name, value)
    return _plain(name, str(value) if isinstance(value, Mode) else value)


def _boosts(boosts: Any) -> Sequence[Boost]:
    return [Boost(by, weight) for by, weight in boosts.items()] if isinstance(boosts, Mapping) else boosts


def _read(name: str, value: Any) -> Any:
    if name == "fusion":
        weights = dict(value) if isinstance(value, Mapping) else {}
        kind = weights.pop("kind", None)
        if not isinstance(kind, str) or kind not in FUSIONS:
            raise InvalidQuery(f"the fusion is {value!r}, expected one with a kind of {', '.join(FUSIONS)}")
        return FUSIONS[kind](**weights)
    if name == "boosts":
        return [Boost(_filter(each["by"]), each.get("weight", 1.0)) for each in value]
    return _filter(value) if name == "group_by" else value


def _filter(value: Any) -> Any:
    """Return SQL as it is given to `where`: a text, or a text with parameters."""
    return tuple(value) if isinstance(value, list) else value


def _sql(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return [value[0], _plain(name, value[1])]
    raise InvalidQuery(f"{name} has {value!r}, which JSON cannot hold; write it as SQL text, with parameters")


def _plain(name: str, value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"{name} is {value!r}, which JSON cannot hold; give a plain value") from error
    return value
