"""What a query needs of the search of a class, so that `query` and `entities` need not know how a class has it."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from pgneural.orm.searcher import ClassSearcher
from pgneural.report import Report
from pgneural.store.definition import SearchDefinition
from pgneural.store.schema import Space

E_co = TypeVar("E_co", covariant=True)


class ClassSearch(Protocol[E_co]):
    """The search of a mapped class; `pgneural.orm.binding.SearchBinding` is one.

    Attributes:
        mapper: The mapper of the class.
        definition: What its `Searchable` says.
        terms: The table of its words; None for a search without words.
    """

    mapper: Mapper[Any]
    definition: SearchDefinition
    terms: sa.Table | None

    def connected(self, where: Any) -> sa.Connection:
        """Return the connection of a session, whose changes are flushed."""

    def searcher(self, connection: sa.Connection | None = None) -> ClassSearcher:
        """Return what is known of the search in the database of a connection; without one, in that asked last."""

    def installed(self, searcher: ClassSearcher) -> contextlib.AbstractContextManager[None]:
        """Say so where something fails because the database has no such search."""

    def space(self, connection: sa.Connection) -> Space:
        """Return the row of the search in the catalog."""

    def sync_own(self, connection: sa.Connection) -> Report:
        """Encode the rows that the transaction of a connection has changed itself."""

    def restricted(self) -> sa.ColumnElement[bool] | None:
        """Return the condition that a row of the search is one of the class; None where every row is."""

    def key(self, entity: Any) -> tuple[Any, ...]:
        """Return the primary key of a row."""

    def heading(self, entity: Any) -> str:
        """Return the title of a row."""
