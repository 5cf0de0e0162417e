"""Connecting to a server, and finding out whether it can serve us.

The engine is an ordinary SQLAlchemy engine over psycopg; any URL or connection string that libpq
understands will do. Driver errors that the user can mend become errors of ours, with the remedy.
"""

from __future__ import annotations

import json
import re
import select
import time
from typing import Any

import psycopg
import psycopg.sql
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.errors import (
    DatabaseUnreachable,
    MissingExtension,
    MissingPrivilege,
    OutdatedExtension,
    OutdatedServer,
    UnsupportedDriver,
    UnsupportedEncoding,
)
from pgneural.printable import warn
from pgneural.store.failures import sqlstate
from pgneural.store.failures import translated as translated
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

    Raises:
        UnsupportedDriver: It is the URL of another database.
        DatabaseUnreachable: It is no URL.
    """
    conninfo, threshold = _readable(url), PREPARE_AFTER if prepared else None

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            conninfo, application_name="pgneural", prepare_threshold=threshold, client_encoding="UTF8"
        )
        register(connection)
        _speak_plainly(connection)
        _leave_strange_schema(connection)
        return connection

    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=connect,
        pool_size=connections,
        isolation_level="READ COMMITTED",  # whatever default_transaction_isolation says: the queue relies on it
        pool_reset_on_return=None,  # `_reset` does
    )
    sa.event.listen(engine, "reset", _reset)
    sa.event.listen(engine, "checkin", _left)
    sa.event.listen(engine, "checkout", _require_alive)
    return engine


DRIVERS = ("psycopg", "psycopg_async", "psycopg2", "asyncpg")
"""Those that the tests run with, by SQLAlchemy's names."""


def require_driver(connection: sa.Connection) -> None:
    """Refuse a connection of the user's through which a search would fail somewhere in the middle.

    Raises:
        UnsupportedDriver: Its driver is not one of `DRIVERS`.
    """
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise UnsupportedDriver(
            f"the connection is by {dialect.name}+{dialect.driver}, expected PostgreSQL by psycopg, psycopg2 or "
            "asyncpg; make the engine with a URL that begins with postgresql+psycopg://"
        )


def _readable(url: str) -> str:
    """Return what libpq reads."""
    scheme = re.match(r"(\w+)(\+\w+)?://", url)
    if scheme and scheme[1] not in ("postgresql", "postgres"):
        raise UnsupportedDriver(
            f"the URL begins with {scheme[0]}, expected postgresql://; pgneural works in PostgreSQL only"
        )
    conninfo = libpq_url(url)
    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        raise DatabaseUnreachable(
            f"{hidden_password(url)!r} is no URL of a database; write postgresql://user@host/database"
        ) from error
    return conninfo


_PLAIN = {"DateStyle": "ISO", "standard_conforming_strings": "on"}
"""Settings of a session that decide how values and statements read; a role or a database may have others."""


def _speak_plainly(connection: psycopg.Connection[Any]) -> None:
    """Set what the server has reported to be otherwise: no round trip where all is as usual."""
    reported = connection.info.parameter_status
    wrong = {name: value for name, value in _PLAIN.items() if not (reported(name) or value).startswith(value)}
    for name, value in wrong.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
    if wrong:
        connection.commit()


_STRANGE_SCHEMA = """
SELECT pg_catalog.current_setting('search_path')
  FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) n.nspowner
 WHERE n.nspname OPERATOR(pg_catalog.=) current_user
   AND o.rolname OPERATOR(pg_catalog.<>) current_user AND NOT o.rolsuper
"""
"""The path, where another role has made the schema of the role's name; all is qualified: that schema is on the path."""


def _leave_strange_schema(connection: psycopg.Connection[Any]) -> None:
    """Take ``"$user"`` from the path where its schema is not the role's: its functions would run with our rights."""
    found = connection.execute(_STRANGE_SCHEMA).fetchone()
    if found is not None:
        path = re.sub(r'"\$user"\s*,?\s*', "", found[0]).rstrip(", ")
        connection.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (path,))
    connection.commit()


def _reset(connection: psycopg.Connection[Any], record: Any, state: Any) -> None:
    """End what is left of a transaction; a connection that the server has ended is replaced, and nothing is logged."""
    if state.terminate_only:
        return
    try:
        connection.rollback()
    except psycopg.Error:
        record.invalidate()


def _left(_: Any, record: Any) -> None:
    record.info["left"] = time.monotonic()


def _require_alive(connection: psycopg.Connection[Any], record: Any, _: Any) -> None:
    """Try out a connection that lay in the pool for a while, or that the server has said something on meanwhile."""
    left = record.info.get("left")
    if connection.closed or (left is not None and not _trusted(connection, left) and not _alive(connection)):
        raise sa.exc.DisconnectionError("the server has closed this connection")


def _trusted(connection: psycopg.Connection[Any], left: float) -> bool:
    return time.monotonic() - left <= TRUSTED_SECONDS and not _heard(connection.fileno())


def _heard(socket: int) -> bool:
    """Whether there is something to be read: of an idle connection most likely that it was ended."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


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


def quoted(*names: str) -> str:
    """Quote an identifier, for `execute_script`."""
    return psycopg.sql.Identifier(*names).as_string()


def literal(text: str) -> str:
    """Quote a text as a value, for a statement that takes no parameters."""
    escaped = text.replace("'", "''")
    if "\\" in text:  # the same, whatever standard_conforming_strings is
        return " E'" + escaped.replace("\\", "\\\\") + "'"
    return f"'{escaped}'"


def sql_value(value: Any) -> str:
    """Write a value into a statement that takes no parameters; what is no text, number or NULL is written as JSON."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    return literal(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


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


def require_encoding(connection: sa.Connection) -> None:
    """Refuse a database that keeps text in another encoding: words are normalised, which PostgreSQL does in UTF8 only.

    Raises:
        UnsupportedEncoding: It is not UTF8.
    """
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise UnsupportedEncoding(
            f"the database has encoding {encoding}, expected UTF8; make one with CREATE DATABASE … ENCODING 'UTF8' "
            "TEMPLATE template0, and restore a dump of this one into it"
        )


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
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'vector' AND n.nspname <> ALL (current_schemas(true))"
    )
    if schema := connection.scalar(query):
        raise MissingExtension(
            f"pgvector is in schema {schema}, which is not on this role's search_path; "
            f"run: ALTER ROLE CURRENT_USER SET search_path = public, {quoted(schema)}"
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
        warn(
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
        if sqlstate(error) != "42501":
            raise
        raise MissingPrivilege(
            f"pgvector {offered} is on the server, but this role may not create it; "
            "have a superuser run: CREATE EXTENSION vector"
        ) from error
