"""A chunk is never more visible than its row: row-level security of the source holds for all tables made of it."""

from __future__ import annotations

import sqlalchemy as sa

from pgneural.store.engine import execute_script, quoted
from pgneural.store.schema import DOCUMENTS, SCHEMA

POLICY = "as_its_source"


def follow_row_security(connection: sa.Connection) -> None:
    """Let the tables of all collections be as visible as their documents, row by row.

    Where row-level security of the source is on, each of them gets a policy that defers to it; where it is off, so is
    theirs. The policy is a plain subquery and not EXISTS, which might be computed for the whole source at once.
    """
    for table, enabled, forced in connection.execute(sa.text(_DIFFERENT)).all():
        name = quoted(SCHEMA, table)
        execute_script(connection, f"DROP POLICY IF EXISTS {POLICY} ON {name}")
        if enabled:
            visible = f"(SELECT true FROM {DOCUMENTS.fullname} s WHERE s.id = source_id)"  # noqa: S608
            execute_script(connection, f"CREATE POLICY {POLICY} ON {name} USING ({visible})")
        execute_script(connection, f"ALTER TABLE {name} {'ENABLE' if enabled else 'DISABLE'} ROW LEVEL SECURITY")
        execute_script(connection, f"ALTER TABLE {name} {'FORCE' if forced else 'NO FORCE'} ROW LEVEL SECURITY")


def unprotected(connection: sa.Connection) -> list[str]:
    """Return the tables of collections whose row-level security is not that of the documents."""
    return [row[0] for row in connection.execute(sa.text(_DIFFERENT))]


_DIFFERENT = f"""
SELECT c.relname, d.relrowsecurity, d.relforcerowsecurity
  FROM pg_class d,
       (SELECT chunk_table AS name FROM neural.spaces WHERE source = 'neural.documents'
        UNION SELECT chunk_table || '_terms' FROM neural.spaces WHERE source = 'neural.documents' AND kind = 'dense') t
  JOIN pg_class c ON c.oid = to_regclass(format('neural.%I', t.name))
 WHERE d.oid = 'neural.documents'::regclass
   AND ((c.relrowsecurity, c.relforcerowsecurity) <> (d.relrowsecurity, d.relforcerowsecurity)
        OR d.relrowsecurity <> EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = '{POLICY}'))
 ORDER BY c.relname"""  # noqa: S608
