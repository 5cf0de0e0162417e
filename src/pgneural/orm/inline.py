"""Encoding what a session writes, in the same transaction, for searches that are declared ``sync="inline"``.

Triggers note every change, whoever makes it; a session that has written asks, after a flush and before a commit, what
is pending. So bulk and Core statements are not missed. What was written outside of any session is found by the next
one that writes, or by `BoundSearch.sync`.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import ORMExecuteState, Session

if TYPE_CHECKING:
    from pgneural.orm.bound import BoundSearch

_WRITTEN = "pgneural wrote"

_searches: weakref.WeakSet[BoundSearch[Any]] = weakref.WeakSet()


def encode_inline(search: BoundSearch[Any]) -> None:
    """Have every session encode what it writes to the tables of a search."""
    _searches.add(search)
    for name, listener in (("do_orm_execute", _executed), ("after_flush", _flushed), ("before_commit", _committing)):
        if not sa.event.contains(Session, name, listener):
            sa.event.listen(Session, name, listener)


def _flushed(session: Session, _: Any) -> None:
    changed = {sa.inspect(entity).mapper for entity in (*session.new, *session.dirty)}
    for search in list(_searches):
        if any(mapper.isa(search.mapper) for mapper in changed):
            _encode(session, search)


def _executed(state: ORMExecuteState) -> None:
    if not state.is_select:
        written = state.session.info.setdefault(_WRITTEN, weakref.WeakSet())
        written |= {search for search in _searches if _concerns(state.statement, search)}


def _concerns(statement: Any, search: BoundSearch[Any]) -> bool:
    """Whether a statement may write to a table of a search; one that is text tells by the words in it."""
    table = getattr(statement, "table", None)
    if table is not None:
        return getattr(table, "fullname", None) in search.declared.watched
    text = str(getattr(statement, "text", ""))
    return any(name.rpartition(".")[2] in text for name in search.declared.watched)


def _committing(session: Session) -> None:
    if written := session.info.pop(_WRITTEN, None):
        session.flush()
        for search in list(written):
            _encode(session, search)


def _encode(session: Session, search: BoundSearch[Any]) -> None:
    search.sync(session.connection(bind_arguments={"mapper": search.mapper}))
