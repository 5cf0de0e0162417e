"""What a server or a driver refuses, under names of ours and with the remedy.

Told apart by SQLSTATE and never by text: servers speak many languages. Any driver will do: psycopg, asyncpg and
psycopg2 keep the SQLSTATE in different places.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pgneural.errors import (
    ChangedType,
    DatabaseError,
    DatabaseUnreachable,
    EncoderMismatch,
    InvalidQuery,
    LockTimeout,
    MissingPrivilege,
    ReadOnlyDatabase,
    ResourcesExhausted,
    SchemaNotInstalled,
    StatementCancelled,
    TransactionConflict,
    UnknownSpace,
)

Result = TypeVar("Result")

MOST_PARAMETERS = {"asyncpg": 32_767}
"""Values that a statement may have, by driver; the protocol ends at 65,535."""

BUSY = frozenset({"55P03", "40P01", "40001"})
"""The SQLSTATEs of who waits for a lock, of a deadlock, and of a transaction that another one got in the way of."""

OF_THE_SERVER = frozenset({"08", "25", "28", "53", "57", "58", "XX"})
"""The classes of SQLSTATEs of a connection, a transaction, rights to connect, resources and the server itself."""

OF_A_TABLE = frozenset({"42501", "42P01", "42703", "42883"})
"""The SQLSTATEs of rights, and of tables, columns and functions that are not there."""

OF_OTHERS = frozenset({"40", "55"})
"""The classes of SQLSTATEs of transactions that others got in the way of."""

NAMED: dict[str, tuple[type[DatabaseError], str]] = {
    "25006": (ReadOnlyDatabase, "write on the primary, or as a role whose transactions are not read-only"),
    "40": (TransactionConflict, "run the transaction again"),
    "42501": (MissingPrivilege, "connect as a role that may, or ask its owner for a GRANT"),
    "53100": (ResourcesExhausted, "make room on the server's disk"),
    "53200": (ResourcesExhausted, "give the server more memory, or ask for less at once"),
    "53300": (ResourcesExhausted, "close connections, or raise max_connections of the server"),
    "53": (ResourcesExhausted, "give the server more room, or ask for less at once"),
    "54": (ResourcesExhausted, "ask for less at once"),
    "55P03": (LockTimeout, "try again when others are done, or raise lock_timeout"),
    "57014": (StatementCancelled, "ask for less, or raise statement_timeout"),
}
"""What is raised for a SQLSTATE, or for a class of them, with the remedy."""


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error."""
    return error.orig or error if isinstance(error, DBAPIError) else error


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an error of any driver; empty where the server said none."""
    cause = cause_of(error)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def message_of(error: BaseException) -> str:
    """Return what a driver says of an error, on one line."""
    cause = cause_of(error)
    theirs = cause.__cause__ if type(cause).__module__.startswith("sqlalchemy.") else None
    return " ".join(str(theirs or cause).split())


def first_line(error: BaseException) -> str:
    """Return the first line of it: the message, without the place in the statement."""
    cause = cause_of(error)
    theirs = cause.__cause__ if type(cause).__module__.startswith("sqlalchemy.") else None
    return next(iter(str(theirs or cause).splitlines()), "")


def of_the_caller(error: BaseException) -> bool:
    """Whether an error is of what a caller wrote: an expression that cannot be read, or evaluated."""
    cause, state = cause_of(error), sqlstate(error)
    if not state:
        return isinstance(cause, (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError))
    return (state[:2] in {"0A", "21", "22", "26", "34", "42", "44"} and state != "42501") and not _changed(cause)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver errors that a user can mend into errors of ours.

    Raises:
        DatabaseUnreachable: The connection could not be made, or broke.
        MissingPrivilege: The role may not do this.
        ReadOnlyDatabase: It writes, and here nothing can be written.
        DatabaseError: Another of its kinds: see `pgneural.errors`.
        InvalidQuery: There are too many values, or one that is no text.
    """
    try:
        yield
    except (DBAPIError, psycopg.Error, PoolTimeout, UnicodeEncodeError, ValueError) as error:
        _raise_named(error)
        raise


def _raise_named(error: Exception) -> None:
    if isinstance(error, PoolTimeout):
        raise ResourcesExhausted(f"{message_of(error)}; close sessions, or use fewer threads") from error
    _refuse_what_is_no_text(error)
    if not isinstance(error, (DBAPIError, psycopg.Error)):
        return
    _raise_own(error)
    cause, state = cause_of(error), sqlstate(error)
    if _changed(cause):
        raise ChangedType(
            "the type of a column has changed since this connection prepared the statement; roll back and run it again"
        ) from error
    if state == "0A000" and _of(cause) == "DoCopy":
        raise MissingPrivilege(
            f"{message_of(error)}; index as the owner of the tables, or as a role with BYPASSRLS"
        ) from error
    kind = NAMED.get(state) or NAMED.get(state[:2])
    if kind:
        raise kind[0](f"{first_line(error)}; {kind[1]}") from error
    _require_few_parameters(error)
    if _connection_lost(error):
        raise DatabaseUnreachable(
            f"no connection to the database: {message_of(error)}; "
            "is the server running, the URL right, and a connection left?"
        ) from error


def _refuse_what_is_no_text(error: Exception) -> None:
    """Name what drivers say of a NUL byte or half of a surrogate pair before the server sees it."""
    cause = cause_of(error)
    unsent = isinstance(cause, psycopg.DataError) and not sqlstate(error)
    of_psycopg2 = type(error) is ValueError and "NUL (0x00)" in str(error)
    unencoded = any(isinstance(each, UnicodeEncodeError) for each in _chain(cause))
    if unsent or of_psycopg2 or unencoded or sqlstate(error) in ("22021", "22P05"):
        raise InvalidQuery(
            f"a value cannot be sent as text: {message_of(error)}; remove NUL bytes, halves of surrogate pairs, and "
            "what the encoding of the connection has not"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _raise_own(error: Exception) -> None:
    """Raise what a function of ours raised (sql/40_sources.sql), or what the lack of our schema comes out as."""
    state = sqlstate(error)
    if state in ("PN404", "PN409"):
        message, hint = _message_and_hint(error)
        kind = EncoderMismatch if state == "PN409" else UnknownSpace if "space" in message else SchemaNotInstalled
        raise kind(f"{message}; {hint}") from error
    if state in ("3F000", "42P01", "42883") and re.search(r"\bneural\b", first_line(error)):
        raise SchemaNotInstalled(
            f"{first_line(error)}: the database has no schema neural, or an old one; run: pgneural db upgrade"
        ) from error


def _message_and_hint(error: Exception) -> tuple[str, str]:
    cause: Any = cause_of(error)
    theirs = getattr(cause, "diag", None) or cause.__cause__  # of asyncpg
    message = getattr(theirs, "message_primary", None) or getattr(theirs, "message", None) or first_line(error)
    hint = getattr(theirs, "message_hint", None) or getattr(theirs, "hint", None)
    return str(message), str(hint or "see the documentation")


def _of(cause: BaseException) -> str:
    """Return the function of the server that raised an error."""
    theirs = getattr(cause, "diag", None)
    return str(getattr(theirs, "source_function", None) or "")


def _changed(cause: BaseException) -> bool:
    """Whether the result of a prepared statement is no longer what it was."""
    of_asyncpg = type(cause.__cause__).__name__ == "InvalidCachedStatementError"  # SQLAlchemy forgets them by itself
    return of_asyncpg or _of(cause) == "RevalidateCachedQuery"


def prepared_anew(driver: psycopg.Connection[Any], execute: Callable[[], Result]) -> Result:
    """Execute on a connection; once more where what it has prepared no longer holds and it is in no transaction."""
    try:
        return execute()
    except (DBAPIError, psycopg.Error) as error:
        if not driver.autocommit or not _changed(cause_of(error)):
            raise
        driver.execute("DEALLOCATE ALL")
        return execute()


def _require_few_parameters(error: Exception) -> None:
    """Name the limit of the protocol, which a driver reports without a SQLSTATE."""
    values = error.params if isinstance(error, DBAPIError) else None
    if sqlstate(error) or not isinstance(values, (dict, list, tuple)):
        return
    most = MOST_PARAMETERS.get(type(cause_of(error)).__module__.rpartition(".")[2], 65_535)
    if len(values) > most:
        raise InvalidQuery(
            f"the statement has {len(values):,} values, and this driver sends {most:,}; give them as one array: "
            "column == sa.any_(sa.literal(values, ARRAY(type)))"
        ) from error


def _connection_lost(error: Exception) -> bool:
    cause, state = cause_of(error), sqlstate(error)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if state:
        return state[:2] in {"08", "28", "3D"} or state[:3] == "57P"
    return isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)) or (
        isinstance(error, DBAPIError) and type(error).__name__ in ("OperationalError", "InterfaceError")
    )


def of_a_row(error: Exception) -> bool:
    """Whether an error is of the row that was worked at, so that the others can go on."""
    if not isinstance(error, (DBAPIError, psycopg.Error)):
        return not isinstance(error, (MemoryError, SQLAlchemyError, EncoderMismatch))
    state = sqlstate(error)
    return bool(state) and state[:2] not in OF_THE_SERVER and state not in OF_A_TABLE


def of_a_space(error: Exception) -> bool:
    """Whether an error is of one space, such as a table that is gone or a right that is missing."""
    state = sqlstate(error)
    return bool(state) and state[:2] not in OF_THE_SERVER | OF_OTHERS
