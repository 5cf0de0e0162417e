"""Encoding what a session writes, in the same transaction, for searches that are declared ``sync="inline"``.

Triggers note every change, whoever makes it and how, with the transaction that made it. A session encodes what its own
transaction has noted: after each flush that writes such rows, before a search, and before it commits, so that bulk
and Core statements are not missed. Rows that others have changed are left to `SearchBinding.sync`.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, SessionTransaction

if TYPE_CHECKING:
    from pgneural.orm.binding import SearchBinding

_CONNECTIONS = "pgneural connections"

_searches: weakref.WeakSet[SearchBinding[Any]] = weakref.WeakSet()


def encode_inline(search: SearchBinding[Any]) -> None:
    """Have every session encode what it writes to the tables of a search."""
    _searches.add(search)
    for name, listener in (("after_begin", _begun), ("after_flush", _flushed), ("before_commit", _committing)):
        if not sa.event.contains(Session, name, listener):
            sa.event.listen(Session, name, listener)


def _begun(session: Session, _: SessionTransaction, connection: sa.Connection) -> None:
    session.info.setdefault(_CONNECTIONS, weakref.WeakSet()).add(connection)


def _flushed(session: Session, _: Any) -> None:
    changed = {sa.inspect(entity).mapper for entity in (*session.new, *session.dirty)}
    for search in list(_searches):
        if any(mapper.isa(search.mapper) for mapper in changed):
            search.sync_own(session.connection(bind_arguments={"mapper": search.mapper}))


def _committing(session: Session) -> None:
    if session.in_nested_transaction() or _CONNECTIONS not in session.info:
        return
    session.flush()
    for connection in session.info.pop(_CONNECTIONS):
        if not connection.closed and connection.in_transaction():
            _encode(connection)


def _encode(connection: sa.Connection) -> None:
    """Encode what the transaction of a connection has noted."""
    if connection.dialect.name != "postgresql":
        return
    if connection.scalar(sa.text("SELECT to_regclass('neural.changes') IS NULL")):
        return
    noted = set(connection.scalars(_NOTED))
    for search in list(_searches):
        if search.definition.name in noted:
            search.sync_own(connection)


_NOTED = sa.text("""
SELECT DISTINCT s.chunk_table FROM neural.changes c JOIN neural.spaces s ON s.id = c.space_id
 WHERE s.sync = 'inline' AND s.state = 'serving' AND c.changed_by = pg_current_xact_id_if_assigned()::text::bigint""")
