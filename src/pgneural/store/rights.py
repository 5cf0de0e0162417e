"""Who may see and change which rows of the catalog: policies of row-level security, as our own tables have them.

A row is seen by who may see the source, and changed by who owns or writes it, or by workers. Everybody may note
changes, but only of tables that he may write. Migration 0007 makes the same;
`differences` tells where a database has others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from pgneural.store.engine import execute_script
from pgneural.store.schema import Catalog

SEES = "has_table_privilege(relation, 'SELECT') OR has_any_column_privilege(relation, 'SELECT')"
WRITES = (
    "has_table_privilege(relation, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(relation, 'UPDATE')"
)
OWNS = "pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = relation), 'USAGE')"
WORKS = "has_table_privilege('neural.workers', 'INSERT')"
OLD = f"{WORKS} AND used_on < current_date - 7"
OF_SEEN = "space_id IN (SELECT s.id FROM neural.spaces s)"
OF_WRITTEN = f"space_id IN (SELECT s.id FROM neural.spaces s WHERE {WRITES})"  # noqa: S608
OF_OWN = f"({OF_WRITTEN}) OR space_id IN (SELECT s.id FROM neural.spaces s WHERE {OWNS}) OR {WORKS}"  # noqa: S608
NOTABLE = f"NOT EXISTS (SELECT FROM neural.known_spaces s WHERE s.id = space_id) OR {OF_OWN}"
"""A writer whose snapshot is older than a space does not see it."""

OF_SOURCES = ("changes", "pending", "failed", "term_counts", "corpus_counts")
"""Tables with rows of a source."""

PUBLIC = (
    "USAGE ON SCHEMA neural",
    "SELECT, UPDATE, DELETE ON neural.spaces",
    "SELECT, DELETE, INSERT (space_id, keys, rows, changed_at, changed_by), UPDATE (rows) ON neural.changes",
    *(f"SELECT, INSERT, UPDATE, DELETE ON neural.{table}" for table in (*OF_SOURCES[1:], "vectors")),
    "SELECT ON neural.work, neural.sql_files",
)
"""What everybody may do, as far as the policies let him: to rows of what is his."""


class Policy(NamedTuple):
    """A policy of a table; ``command`` is ``ALL``, ``SELECT`` and so on."""

    table: str
    name: str
    command: str
    using: str | None = None
    check: str | None = None

    def create(self) -> str:
        """Return the statement that makes it."""
        using = f" USING ({self.using})" if self.using else ""
        check = f" WITH CHECK ({self.check})" if self.check else ""
        return f"CREATE POLICY {self.name} ON neural.{self.table} FOR {self.command}{using}{check}"


def policies() -> Iterator[Policy]:
    """Return all policies."""
    yield Policy("spaces", "seen", "SELECT", f"{SEES} OR {WRITES} OR {WORKS}")
    yield Policy("spaces", "own", "ALL", OWNS, OWNS)
    yield Policy("spaces", "written", "UPDATE", f"{WRITES} OR {WORKS}")
    for table in OF_SOURCES:
        yield Policy(table, "seen", "SELECT", OF_SEEN)
        yield Policy(table, "own", "ALL", OF_OWN, OF_OWN)
    yield Policy("changes", "noted", "INSERT", check=NOTABLE)
    yield Policy("work", "seen", "SELECT", OF_SEEN)
    yield Policy("work", "own", "ALL", WORKS, WORKS)
    yield Policy("vectors", "own", "ALL", "owner = CURRENT_USER", "owner = CURRENT_USER")
    yield Policy("vectors", "old_select", "SELECT", OLD)  # workers remove what nobody has asked for in weeks
    yield Policy("vectors", "old_delete", "DELETE", OLD)


def differences(connection: sa.Connection) -> list[str]:
    """Say which tables of the catalog have other policies than they should, or none in force."""
    wanted: dict[str, set[tuple[str, str]]] = {}
    for policy in policies():
        wanted.setdefault(policy.table, set()).add((policy.name, policy.command))
    found: dict[str, set[tuple[str, str]]] = {}
    for table, name, command in connection.execute(sa.text(_POLICIES)):
        found.setdefault(table, set()).add((name, command))
    secured = set(connection.scalars(sa.text(_SECURED)))
    return [
        f"table neural.{table} has not the policies of row-level security that it should have; "
        "restore them from a new database, or drop schema neural and upgrade"
        for table in sorted(wanted)
        if found.get(table) != wanted[table] or table not in secured
    ]


def _created(_: sa.MetaData, connection: sa.Connection, **__: Any) -> None:
    """Do what migration 0007 does, where the tables are made by the models."""
    execute_script(connection, "CREATE OR REPLACE VIEW neural.known_spaces AS SELECT id FROM neural.spaces")
    for table in sorted({policy.table for policy in policies()}):
        execute_script(connection, f"ALTER TABLE neural.{table} ENABLE ROW LEVEL SECURITY")
    for policy in policies():
        execute_script(connection, policy.create())
    for granted in PUBLIC:
        execute_script(connection, f"GRANT {granted} TO PUBLIC")


sa.event.listen(Catalog.metadata, "after_create", _created)

_POLICIES = """
SELECT tablename, policyname, cmd FROM pg_policies WHERE schemaname = 'neural' AND policyname <> 'as_its_source'"""

_SECURED = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('neural') AND relrowsecurity"
