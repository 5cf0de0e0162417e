"""What a query needs of the search of a class, so that `query` and `entities` need not know how a class has it."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session

from pgneural.extra_vectors import ExtraVectors
from pgneural.orm.resolved_space import ResolvedSpace
from pgneural.statement import StatementCache, Target
from pgneural.store.definition import SearchDefinition
from pgneural.store.schema import Space
from pgneural.sync import SyncReport
from pgneural.types import Encoder

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

    @property
    def answer(self) -> ResolvedSpace:
        """The space that answers, with its tables, as it was known a moment ago."""

    @property
    def query_encoder(self) -> Encoder:
        """The encoder of the space that answers."""

    def extra_vectors(self, kind: str) -> ExtraVectors:
        """Return the extra vectors of a kind, with their encoder."""

    def connected(self, where: Any) -> sa.Connection:
        """Return the connection of a session, whose changes are flushed."""

    def installed(self) -> contextlib.AbstractContextManager[None]:
        """Say so where something fails because the database has no such search."""

    def look(self, connection: sa.Connection) -> None:
        """See from time to time which space serves."""

    def moved(self, connection: sa.Connection) -> bool:
        """Whether another space serves by now, so that a search has to be made again."""

    def space(self, connection: sa.Connection) -> Space:
        """Return the row of the search in the catalog."""

    def sync_own(self, connection: sa.Connection) -> SyncReport:
        """Encode the rows that the transaction of a connection has changed itself."""

    def restricted(self) -> sa.ColumnElement[bool] | None:
        """Return the condition that a row of the search is one of the class; None where every row is."""

    def target(self, revision: str = "", *, composed: bool = False) -> Target:
        """Return what is searched."""

    def statements(self, revision: str, session: Session) -> StatementCache:
        """Return the statements for queries by an encoder of this revision."""

    def key(self, entity: Any) -> tuple[Any, ...]:
        """Return the primary key of a row."""

    def heading(self, entity: Any) -> str:
        """Return the title of a row."""
