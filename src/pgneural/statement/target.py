"""What a statement searches and how much of it is wanted, and the few shapes that every part is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import _anonymous_label
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.errors import InvalidQuery
from pgneural.store.tables import source_columns
from pgneural.store.vectors import Indexed
from pgneural.types import Distance


def about_as_many(per_row: float, before: float) -> bool:
    """Whether statements that were built for so many vectors a row still do: the number only sizes their blocks."""
    return math.isclose(per_row, before, rel_tol=0.2)


LEXICAL = "lexical"
"""The leg that is answered by words; all others are answered by vectors."""


@dataclass(frozen=True)
class Vectors:
    """The vectors of one space.

    Attributes:
        leg: The leg that they answer: ``semantic`` in most searches, ``sparse``, or any other name.
        table: Where they are, or what stands for it: the key of the source row, ``ordinal`` and ``embedding``.
        indexed: What they are and how they are indexed.
        per_row: How many a source row has on average, at least 1.
    """

    leg: str
    table: sa.FromClause
    indexed: Indexed
    per_row: float = 1.0

    @property
    def distance(self) -> Distance:
        """How they are compared."""
        return self.indexed.distance

    def like(self, other: Vectors) -> bool:
        """Whether these are the same vectors, of which a source row has about as many."""
        same = (self.leg, str(self.table), self.indexed) == (other.leg, str(other.table), other.indexed)
        return same and about_as_many(self.per_row, other.per_row)

    def score(self, distance: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
        """Return a distance as a score."""
        return sa.func.neural.score(distance, self.indexed.distance.value, type_=sa.Float)


@dataclass(frozen=True)
class Target:
    """What to search: a source table with its chunks and its words.

    Attributes:
        source: The table whose rows are wanted, or the tables that a class is mapped to, joined.
        vectors: The vectors that its legs compare; the first are those of its chunk table, and lead.
        terms: Its terms table; a source without words has none.
        space: The id of the space in ``neural.spaces``, or an expression that finds it.
        scope: A condition on the source that every row of the chunk table meets; it is left out of
            the index scans. For a collection: its name.
        tokens: The table of the vectors of its tokens, if it has one.
        keys: The names of the key columns in the chunk table, mapped to those of the source; by default the primary
            key of the source.
        entity: The class that is mapped to the source, so that the loader criteria of a session hold within, too.
        composed: Whether the statement becomes part of others, where its names must not be those of another search.
        reads: The SELECT of what is searchable (`Space.reads`), where rows may have words that are not indexed yet.
    """

    source: sa.FromClause
    vectors: tuple[Vectors, ...]
    terms: sa.Table | None
    space: int | sa.ColumnElement[int]
    scope: sa.ColumnElement[bool] | None = None
    tokens: sa.Table | None = None
    keys: Mapping[str, sa.ColumnElement[Any]] = field(default_factory=dict)
    entity: Any = None
    composed: bool = False
    reads: str | None = None

    def __post_init__(self) -> None:
        """Take the primary key of a source that is a table."""
        if not self.keys:
            assert isinstance(self.source, sa.Table)
            object.__setattr__(self, "keys", source_columns(self.source))

    @property
    def rows(self) -> Any:
        """What rows of the source are selected from."""
        return self.source if self.entity is None else self.entity

    @property
    def dense(self) -> Vectors:
        """The vectors of its chunk table."""
        return self.vectors[0]

    @property
    def legs(self) -> list[str]:
        """The names of the legs by which it can be searched, that which leads first."""
        return [*(vectors.leg for vectors in self.vectors), LEXICAL]

    def vectors_of(self, leg: str) -> Vectors:
        """Return what a leg compares.

        Raises:
            InvalidQuery: It has no such leg.
        """
        for vectors in self.vectors:
            if vectors.leg == leg:
                return vectors
        raise InvalidQuery(f"the search has no leg {leg!r}; it has {', '.join(self.legs)}")

    @property
    def chunks(self) -> sa.FromClause:
        """The chunk table, or what stands for it."""
        return self.dense.table

    @property
    def words(self) -> sa.Table:
        """The terms table of a source that has words."""
        assert self.terms is not None
        return self.terms

    def named(self, select: sa.Select[Any] | sa.CompoundSelect[Any], name: str) -> sa.CTE:
        """Name a part of the statement; PostgreSQL computes it once and does not merge it with others."""
        own = _anonymous_label.safe_construct(id(select), name) if self.composed else name
        return select.cte(own).prefix_with("MATERIALIZED", dialect="postgresql")

    def parameter(self, name: str, value: Any, type_: Any) -> sa.BindParameter[Any]:
        """Return a parameter of the statement, of a name that no expression of the caller's has."""
        return sa.bindparam(f"neural_{name}", value, type_, unique=self.composed)

    def keys_of(self, table: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        """Return the columns of a table that hold the key of the source row."""
        return [table.c[name] for name in self.keys]

    def same_row(self, left: sa.FromClause, right: sa.FromClause) -> sa.ColumnElement[bool]:
        """Return the condition that two tables speak of the same source row; either may be the source itself."""

        def key(table: sa.FromClause, name: str) -> sa.ColumnElement[Any]:
            return self.keys[name] if table is self.source else table.c[name]

        return sa.and_(*(key(left, name) == key(right, name) for name in self.keys))


@dataclass(frozen=True)
class Page:
    """Which part of a ranking is wanted: ``limit`` rows after the first ``offset``.

    The ranking is the same for all pages of one length, so that nothing comes twice or never: candidates are
    taken and ordered in blocks whose size depends on the length of a page and not on its place.
    """

    limit: int
    offset: int = 0

    @property
    def end(self) -> int:
        """How many rows the ranking must have for the page to be full."""
        return self.limit + self.offset

    def cut(self, rows: sa.Select[Any], order: list[sa.ColumnElement[Any]]) -> sa.Select[Any]:
        """Take the page's rows from a ranking."""
        return rows.order_by(*order).limit(constant(self.limit)).offset(constant(self.offset) if self.offset else None)

    def rank(self, order: list[sa.ColumnElement[Any]]) -> sa.Label[int]:
        """Return the place of each of the page's rows in the whole ranking, from 1."""
        return (sa.func.row_number().over(order_by=order) + self.offset).label("rank")


def row_by_row(looked_up: sa.Select[Any], name: str) -> LateralFromClause:
    """Look something up for each row of what stands to the left, by an index.

    The offset keeps PostgreSQL from turning it into a join, for which it might read the whole table.
    """
    return looked_up.offset(constant(0)).lateral(name)


def scalar(column: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    """Return a column of a one-row CTE as a value, computed once."""
    return sa.select(column).scalar_subquery()


def constant(value: int) -> sa.ColumnElement[int]:
    """Return a number as part of the text, not as a parameter.

    A plan that is kept for all parameters would otherwise take a LIMIT for a tenth of the table.
    """
    return sa.literal_column(str(value), sa.Integer)


def count(rows: sa.FromClause) -> sa.Select[Any]:
    """Count rows as ``n``."""
    return sa.select(sa.func.count().label("n")).select_from(rows)


def distinct_on(select: sa.Select[Any], columns: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Keep the first row for each value of some columns."""
    if hasattr(postgresql, "distinct_on"):
        extended: sa.Select[Any] = select.ext(postgresql.distinct_on(*columns))
        return extended
    return select.distinct(*columns)  # SQLAlchemy 2.0
