"""Waiting until what has changed is encoded."""

from __future__ import annotations

import time

import sqlalchemy as sa

from pgneural.errors import StaleResults
from pgneural.printable import counted

POLL_SECONDS = 0.02


def wait_until_fresh(connection: sa.Connection, space: int, seconds: float, what: str) -> None:
    """Wait until all rows that have changed so far are encoded; what changes meanwhile is not waited for.

    Args:
        connection: Where; it has to see what others commit.
        space: The id of the space.
        seconds: For so long at most; 0 looks once.
        what: The search, for the message.

    Raises:
        StaleResults: They are not, or the transaction itself has changed rows, which no worker sees.
    """
    deadline = time.monotonic() + seconds
    own, last = connection.execute(sa.text(_BEFORE), {"space": space}).one()
    if own:
        raise StaleResults(
            f"{counted(own, 'row', 'rows')} of {what} changed in this transaction, which no worker sees; commit it, or "
            "call sync()"
        )
    while last is not None:
        left = connection.scalar(sa.text(_LEFT), {"space": space, "last": last}) or 0
        if not left:
            return
        if time.monotonic() >= deadline:
            raise StaleResults(
                f"after {seconds:g} s, {counted(left, 'row', 'rows')} of {what} still wait to be encoded; wait longer, "
                'see pgneural status, or search with fresh="any"'
            )
        time.sleep(POLL_SECONDS)


_BEFORE = """
SELECT coalesce((SELECT sum(rows) FROM neural.changes WHERE space_id = :space
                    AND changed_by = pg_current_xact_id_if_assigned()::text::bigint), 0)::bigint,
       greatest((SELECT max(changed_at) FROM neural.changes WHERE space_id = :space),
                (SELECT max(changed_at) FROM neural.pending WHERE space_id = :space))"""

_LEFT = """
SELECT ((SELECT coalesce(sum(rows), 0) FROM neural.changes WHERE space_id = :space AND changed_at <= :last)
      + (SELECT count(*) FROM neural.pending WHERE space_id = :space AND changed_at <= :last))::bigint"""
