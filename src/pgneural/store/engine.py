"""Connecting to a server, and finding out whether it can serve us.

The engine is an ordinary SQLAlchemy engine over psycopg; any URL or connection string that libpq
understands will do. Driver errors that the user can mend become errors of ours, with the remedy.
"""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg.sql
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.errors import (
    DatabaseUnreachable,
    EncoderMismatch,
    MissingExtension,
    MissingPrivilege,
    OutdatedExtension,
    OutdatedServer,
    SchemaNotInstalled,
    UnknownSpace,
)
from pgneural.store.vectors import register

MINIMUM_SERVER = 15
MINIMUM_PGVECTOR = (0, 8, 0)
"""The first version with iterative index scans, which the search statement needs."""

PREPARE_AFTER = 5
"""Times that a connection executes a statement before it prepares it: psycopg's default."""

TRUSTED_SECONDS = 1.0
"""A connection that was given back no longer ago than this is not tried out before it is used again."""

ADVISED_PGVECTOR = (0, 8, 4)
"""Earlier ones can corrupt an HNSW index around a vacuum (pgvector #988, #993)."""


def libpq_url(url: str) -> str:
    """Return the URL as libpq knows it, without SQLAlchemy's name of a driver."""
    return re.sub(r"^(postgresql|postgres)(\+\w+)?://", "postgresql://", url)


def create_engine(url: str, *, prepared: bool = True, connections: int = 5) -> sa.Engine:
    """Return an engine for a libpq URL or connection string; nothing is connected yet.

    Args:
        url: Where the server is.
        prepared: Whether a statement that comes again is prepared on the server.
        connections: How many are kept open.
    """
    conninfo, threshold = libpq_url(url), PREPARE_AFTER if prepared else None

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(conninfo, application_name="pgneural", prepare_threshold=threshold)
        _read_dates(connection)
        register(connection)
        return connection

    engine = sa.create_engine("postgresql+psycopg://", creator=connect, pool_size=connections)
    sa.event.listen(engine, "checkin", _left)
    sa.event.listen(engine, "checkout", _require_alive)
    return engine


def _read_dates(connection: psycopg.Connection[Any]) -> None:
    """Have dates come in the form that the driver reads, where a role or a database has set another."""
    if (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
        return
    connection.execute("SET datestyle TO ISO")
    connection.commit()


def _left(_: Any, record: Any) -> None:
    record.info["left"] = time.monotonic()


def _require_alive(connection: psycopg.Connection[Any], record: Any, _: Any) -> None:
    """Try out a connection that lay in the pool for a while."""
    left = record.info.get("left")
    if connection.closed or (left is not None and time.monotonic() - left > TRUSTED_SECONDS and not _alive(connection)):
        raise sa.exc.DisconnectionError("the server has closed this connection")


def _alive(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error:
        return False
    return True


def hidden_password(url: str) -> str:
    """Return a URL or connection string without its password."""
    without = re.sub(r"(?<=://)([^:/?#@]*):[^@/]+@", r"\1:***@", url)
    return re.sub(r"(\bpassword\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", without)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver errors that a user can mend into errors of ours.

    Raises:
        DatabaseUnreachable: The connection could not be made, or broke.
        MissingPrivilege: The role may not do this.
    """
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = " ".join(str(cause).split())
        _raise_own(cause, error)
        if isinstance(cause, psycopg.errors.FeatureNotSupported) and "row-level security" in said:
            raise MissingPrivilege(f"{said}; index as the owner of the tables, or as a role with BYPASSRLS") from error
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise MissingPrivilege(f"{said}; connect as a role that may, or ask its owner for a GRANT") from error
        if _connection_lost(cause):
            raise DatabaseUnreachable(
                f"no connection to the database: {said}; is the server running and the URL right?"
            ) from error
        raise


def _raise_own(cause: BaseException | None, error: Exception) -> None:
    """Raise what a function of ours raised (sql/40_sources.sql), or what the lack of our schema comes out as."""
    state = getattr(cause, "sqlstate", None)
    diagnosis: Any = getattr(cause, "diag", None)
    if state == "PN404" and "space" in str(diagnosis.message_primary):
        raise UnknownSpace(f"{diagnosis.message_primary}; {diagnosis.message_hint}") from error
    if state == "PN404":
        raise SchemaNotInstalled(f"{diagnosis.message_primary}; {diagnosis.message_hint}") from error
    if state == "PN409":
        raise EncoderMismatch(f"{diagnosis.message_primary}; {diagnosis.message_hint}") from error
    missing = (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction)
    if isinstance(cause, missing) and re.search(r'neural[."]', str(cause).splitlines()[0]):
        raise SchemaNotInstalled(
            f"{diagnosis.message_primary}: the database has no schema neural, or an old one; run: pgneural db upgrade"
        ) from error


def _connection_lost(cause: BaseException | None) -> bool:
    state = getattr(cause, "sqlstate", None) or ""
    return isinstance(cause, psycopg.OperationalError) and (
        state == "" or (state[:2] in {"08", "28", "3D"} or state[:3] == "57P")
    )


def quoted(*names: str) -> str:
    """Quote an identifier, for `execute_script`."""
    return psycopg.sql.Identifier(*names).as_string()


def literal(text: str) -> str:
    """Quote a text as a value, for a statement that takes no parameters."""
    return "'" + text.replace("'", "''") + "'"


def quoted_table(name: str, schema: str | None = None) -> str:
    """Quote the name of a table, with its schema if it is not the default one."""
    return quoted(schema, name) if schema else quoted(name)


def execute_script(connection: sa.Connection, script: str) -> None:
    """Execute SQL as it stands, without placeholders."""
    connection.exec_driver_sql(script.replace("%", "%%"))


def server_version(connection: sa.Connection) -> str:
    """Return the server's version, for example ``18.4``."""
    return str(connection.scalar(sa.text("SHOW server_version"))).split()[0]


def pgvector_version(connection: sa.Connection) -> str | None:
    """Return the version of the pgvector extension in this database, or None."""
    version: str | None = connection.scalar(sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    return version


def require_server(connection: sa.Connection) -> None:
    """Refuse a PostgreSQL server that is too old.

    Raises:
        OutdatedServer: It is older than PostgreSQL 15.
    """
    version = server_version(connection)
    if int(version.split(".")[0]) < MINIMUM_SERVER:
        raise OutdatedServer(f"the server is PostgreSQL {version}; pgneural needs {MINIMUM_SERVER} or later")


BM25_EXTENSIONS = ("pg_search", "pg_textsearch", "vchord_bm25")
"""Extensions that rank by BM25 inside the server. The lexical leg does not need them; `db status` tells of them."""


def bm25_extensions(connection: sa.Connection) -> list[str]:
    """Return which of `BM25_EXTENSIONS` the database has."""
    names = sa.text("SELECT extname FROM pg_extension WHERE extname = ANY(:names) ORDER BY extname")
    return list(connection.scalars(names, {"names": list(BM25_EXTENSIONS)}))


def require_visible_extension(connection: sa.Connection) -> None:
    """Refuse a connection that does not see pgvector's types and operators.

    Raises:
        MissingExtension: The extension is in a schema that is not on the search_path.
    """
    query = sa.text(
        "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'vector' AND NOT n.nspname = ANY(current_schemas(true))"
    )
    if schema := connection.scalar(query):
        raise MissingExtension(
            f"pgvector is in schema {schema}, which is not on this role's search_path; "
            f"run: ALTER ROLE CURRENT_USER SET search_path = public, {schema}"
        )


def require_extension(connection: sa.Connection) -> None:
    """Make sure that a good enough pgvector is in the database; create it where we may.

    Raises:
        MissingExtension: It is not installed on the server.
        MissingPrivilege: It is, but the role may not create it.
        OutdatedExtension: It is older than 0.8.0.
    """
    version = pgvector_version(connection)
    if version is None:
        _create_extension(connection)
        version = pgvector_version(connection) or ""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    advised = ".".join(map(str, ADVISED_PGVECTOR))
    if number < MINIMUM_PGVECTOR:
        raise OutdatedExtension(
            f"pgvector is {version}; pgneural needs {'.'.join(map(str, MINIMUM_PGVECTOR))} or later, better {advised}; "
            "install it on the server, then run: ALTER EXTENSION vector UPDATE"
        )
    if number < ADVISED_PGVECTOR:
        warnings.warn(
            f"pgvector {version} can corrupt HNSW indexes around a vacuum; install {advised} or later on the "
            "server, then run: ALTER EXTENSION vector UPDATE",
            stacklevel=2,
        )


def _create_extension(connection: sa.Connection) -> None:
    offered = connection.scalar(sa.text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"))
    if offered is None:
        raise MissingExtension(
            "the server has no pgvector extension; install it there "
            "(https://github.com/pgvector/pgvector#installation), then run: pgneural db upgrade"
        )
    try:
        with connection.begin_nested():
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise MissingPrivilege(
            f"pgvector {offered} is on the server, but this role may not create it; "
            "have a superuser run: CREATE EXTENSION vector"
        ) from error
