"""COPY in binary form through SQLAlchemy: vectors need not be written as text, which takes its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.util import await_only

TEXT, INTEGER, BYTEA = 25, 23, 17
"""The numbers of PostgreSQL's types. What is in the binary form of any type already goes as bytea: as it is."""


def copies(connection: sa.Connection) -> bool:
    """Whether the driver is psycopg; others have no COPY in common."""
    return isinstance(_driver(connection), (psycopg.Connection, psycopg.AsyncConnection))


def commits_at_once(connection: sa.Connection) -> bool:
    """Whether each statement is a transaction, so that there are no savepoints."""
    return bool(getattr(_driver(connection), "autocommit", False))


def has_binary_form(connection: sa.Connection, oid: int) -> bool:
    """Whether psycopg writes values of a type in binary form."""
    try:
        return bool(_driver(connection).adapters.get_dumper_by_oid(oid, psycopg.pq.Format.BINARY))
    except psycopg.ProgrammingError:
        return False


def copy(connection: sa.Connection, into: str, types: Sequence[int], rows: Iterable[Sequence[Any]]) -> None:
    """Add rows to a table.

    Args:
        connection: Of psycopg, in either of its forms.
        into: The table, and in brackets its columns.
        types: Those of the columns.
        rows: A value for each.
    """
    driver, statement = _driver(connection), f"COPY {into} FROM STDIN (FORMAT binary)"
    if isinstance(driver, psycopg.AsyncConnection):
        await_only(_copy_async(driver, statement, types, rows))
        return
    with driver.cursor() as cursor, cursor.copy(statement.encode()) as copying:
        copying.set_types(types)
        for row in rows:
            copying.write_row(row)


async def _copy_async(
    driver: psycopg.AsyncConnection[Any], statement: str, types: Sequence[int], rows: Iterable[Sequence[Any]]
) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement.encode()) as copying:
        copying.set_types(types)
        for row in rows:
            await copying.write_row(row)


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection
