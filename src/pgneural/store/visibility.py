"""A chunk is never more visible than its row: row-level security of the source holds for all tables made of it."""

from __future__ import annotations

import sqlalchemy as sa


def follow_row_security(connection: sa.Connection) -> None:
    """Let the tables of all collections and searches be as visible as their sources, row by row.

    Those that the role does not own are left as they are; `unprotected` tells of them.
    """
    follow = sa.text("SELECT neural.follow_row_security(to_regclass(:kept), to_regclass(:source))")
    for table, source, owned in connection.execute(sa.text(_DIFFERENT)).all():
        if owned:
            connection.execute(follow, {"kept": table, "source": source})


def unprotected(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return the tables whose row-level security is not that of their sources, each with its source."""
    return [(table, source) for table, source, _ in connection.execute(sa.text(_DIFFERENT))]


_DIFFERENT = """
SELECT DISTINCT neural.qualified(c.oid), s.source, pg_has_role(c.relowner, 'USAGE')
  FROM neural.spaces s
  JOIN pg_class d ON d.oid = to_regclass(s.source)
 CROSS JOIN LATERAL (VALUES (s.chunk_table), (s.chunk_table || '_terms')) made(name)
  JOIN pg_class c ON c.relname = made.name AND c.relnamespace = d.relnamespace
 WHERE (c.relrowsecurity, c.relforcerowsecurity) <> (d.relrowsecurity, d.relforcerowsecurity)
    OR d.relrowsecurity <> EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'as_its_source')
 ORDER BY 1"""
