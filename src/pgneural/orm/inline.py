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
        state.session.info[_WRITTEN] = True


def _committing(session: Session) -> None:
    if session.info.pop(_WRITTEN, False):
        session.flush()
        for search in list(_searches):
            _encode(session, search)


def _encode(session: Session, search: BoundSearch[Any]) -> None:
    search.sync(session.connection(bind_arguments={"mapper": search.mapper}))
