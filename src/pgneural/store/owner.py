"""Working on a source as the owner of its table: types, casts, triggers and functions there get no other rights.

A worker serves many tables. What their owners have made of them is executed whenever rows are read or chunks are
stored, so each transaction that touches a source takes on the role of its owner first, as the subscriptions of
logical replication do since PostgreSQL 16. Who has to trust whom: ``docs/concepts/trust.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa


class Transactions(Protocol):
    """What begins transactions: an engine, or an engine on behalf of an owner."""

    def begin(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """Begin a transaction, which ends with the block."""


@dataclass(frozen=True)
class Within:
    """Stands for what begins transactions where there is one already."""

    connection: sa.Connection

    def begin(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """Return the connection, whose transaction goes on after the block."""
        return contextlib.nullcontext(self.connection)


@dataclass(frozen=True)
class Nested:
    """Begins parts of a transaction that may fail alone."""

    connection: sa.Connection

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Begin a savepoint, which ends with the block."""
        with self.connection.begin_nested():
            yield self.connection


class AsOwner:
    """Begins transactions that are those of the owner of a source.

    Args:
        engine: Where.
        space: The id of a space of the source.
    """

    def __init__(self, engine: sa.Engine, space: int) -> None:
        self._engine, self._space = engine, space

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Begin a transaction as the owner.

        Raises:
            DBAPIError: The role may not act as the owner (SQLSTATE 42501), or row-level security would hide rows.
        """
        with self._engine.begin() as connection:
            act(connection, self._space)
            yield connection


def act(connection: sa.Connection, space: int) -> None:
    """Make the rest of a transaction that of the owner of the source of a space."""
    connection.execute(sa.text("SELECT neural.work_as_owner(:space)"), {"space": space})


@contextlib.contextmanager
def session_of(connection: sa.Connection, space: int) -> Iterator[None]:
    """Make a connection without transactions that of the owner for a while, as building an index CONCURRENTLY needs."""
    role = connection.scalar(
        sa.text("SELECT neural.working_role(s.relation) FROM neural.spaces s WHERE s.id = :space"), {"space": space}
    )
    before = connection.scalar(sa.text("SELECT current_setting('role')"))
    _take_on(connection, role or before)
    try:
        yield
    finally:
        _take_on(connection, before)


def _take_on(connection: sa.Connection, role: str | None) -> None:
    connection.execute(sa.text("SELECT set_config('role', :role, false)"), {"role": role or "none"})
