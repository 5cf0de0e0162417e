"""The spaces of a search: making one beside the one that serves, indexing it, switching, going back, dropping.

The statements are functions of ``sql/48_spaces.sql``. Those that lock the source wait for it only a moment at a time,
so that nobody queues behind them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from pgneural.errors import InvalidSpace, UnknownSpace
from pgneural.store.engine import translated
from pgneural.store.failures import BUSY, sqlstate
from pgneural.store.monitoring import NAMES
from pgneural.store.schema import Space
from pgneural.store.space import read_spaces
from pgneural.types import ExtraEncoder

LOCK_MILLISECONDS = 100
"""For so long a change of tables waits for its locks, before it lets the others pass and tries again."""

PATIENCE_SECONDS = 60.0
"""For so long it tries."""

T = TypeVar("T")


def named(connection: sa.Connection, name: str) -> Space:
    """Return the space that serves a search.

    Args:
        connection: Where.
        name: A collection, ``table.search`` or ``schema.table.search``.

    Raises:
        UnknownSpace: There is none.
    """
    id_ = connection.scalar(sa.text(_NAMED), {"name": name})
    if id_ is None:
        raise UnknownSpace(f"no search and no collection {name!r}; pgneural status lists them")
    return read_spaces(connection, Space.id == id_)[0]


def spaces_of(connection: sa.Connection, search: Space) -> list[Space]:
    """Return the spaces of a search, the one that serves first."""
    wanted = Space.source == search.source, Space.attribute == search.attribute, Space.kind == "dense"
    return read_spaces(connection, *wanted)


def require(connection: sa.Connection, search: Space, name: str) -> Space:
    """Return a space of a search.

    Raises:
        UnknownSpace: There is none of this name.
    """
    every = spaces_of(connection, search)
    for space in every:
        if space.name == name:
            return space
    raise UnknownSpace(f"{search.search} has no space {name!r}; it has: {', '.join(space.name for space in every)}")


def create(engine: sa.Engine, search: Space, name: str, changes: Mapping[str, Any]) -> int:
    """Make another space; what is not given is as in the one that serves. Return its id.

    Raises:
        InvalidSpace: It cannot be, with the reason.
    """
    arguments_ = {key: value for key, value in changes.items() if value is not None}
    arguments = "".join(f", {key} => CAST(:{key} AS {_TYPES[key]})" for key in arguments_)
    values = {key: json.dumps(value) if _TYPES[key] == "jsonb" else value for key, value in arguments_.items()}
    statement = f"SELECT neural.create_space(to_regclass(:source), :attribute, :name{arguments})"
    return int(patiently(engine, statement, {**_values(search), "name": name, **values}))


def switch(engine: sa.Engine, search: Space, name: str, *, force: bool = False) -> None:
    """Have another space answer from now on.

    Raises:
        InvalidSpace: It is not ready.
        UnknownSpace: There is none of this name.
    """
    statement = "SELECT neural.switch_space(to_regclass(:source), :attribute, :name, :force)"
    patiently(engine, statement, {**_values(search), "name": name, "force": force})


def rollback(engine: sa.Engine, search: Space) -> str:
    """Bring back the space that served before; return its name.

    Raises:
        UnknownSpace: None is on standby.
    """
    return str(patiently(engine, "SELECT neural.rollback_space(to_regclass(:source), :attribute)", _values(search)))


def drop(engine: sa.Engine, search: Space, name: str) -> None:
    """Drop a space that does not serve.

    Raises:
        InvalidSpace: It serves.
        UnknownSpace: There is none of this name.
    """
    statement = "SELECT neural.drop_space(to_regclass(:source), :attribute, :name)"
    patiently(engine, statement, {**_values(search), "name": name})


def add_vectors(engine: sa.Engine, search: Space, kind: str, encoder: ExtraEncoder) -> None:
    """Give a search extra vectors of its chunks, which workers make.

    Raises:
        InvalidSpace: It has such vectors already, or no chunks.
    """
    statement = (
        "SELECT neural.add_vectors(to_regclass(:source), :attribute, CAST(:kind AS text), CAST(:encoder AS text), "
        "CAST(:dimensions AS integer), CAST(:revision AS text))"
    )
    described_encoder = {"encoder": encoder.name, "dimensions": encoder.dimensions, "revision": encoder.revision}
    patiently(engine, statement, {**_values(search), "kind": kind, **described_encoder})


def drop_vectors(engine: sa.Engine, search: Space, kind: str) -> None:
    """Drop the extra vectors of a kind.

    Raises:
        UnknownSpace: The search has none.
    """
    statement = "SELECT neural.drop_vectors(to_regclass(:source), :attribute, :kind)"
    patiently(engine, statement, {**_values(search), "kind": kind})


def set_index_aside(connection: sa.Connection, space: int) -> bool:
    """Drop the vector index while there is next to nothing in it and much to come; return whether it was dropped."""
    statement = sa.text("SELECT neural.set_index_aside(:space)")
    return bool(connection.scalar(statement, {"space": space}))


def to_be_indexed(connection: sa.Connection) -> Sequence[Space]:
    """Return the spaces that are filled, or next to, but have no vector index, and whose tables are the role's own."""
    ids = connection.scalars(sa.text(_TO_BE_INDEXED)).all()
    return read_spaces(connection, Space.id.in_(ids))


def patiently(engine: sa.Engine, statement: str, values: Mapping[str, Any]) -> Any:
    """Execute a statement in a transaction; where it would wait for a lock, try again after a while."""
    with translated():  # around all attempts: an error that has a name of ours is not tried again
        return _again(lambda: _executed(engine, statement, values))


def _executed(engine: sa.Engine, statement: str, values: Mapping[str, Any]) -> Any:
    with engine.begin() as connection:
        connection.execute(sa.text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
        return connection.scalar(sa.text(statement), dict(values))


def _again(do: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return do()
        except DBAPIError as error:
            if sqlstate(error) == "PN400":
                diagnosis: Any = error.orig.diag  # type: ignore[union-attr]
                hint = f"; {diagnosis.message_hint}" if diagnosis.message_hint else ""
                raise InvalidSpace(f"{diagnosis.message_primary}{hint}") from error
            if sqlstate(error) not in BUSY or time.monotonic() > deadline:
                raise
            time.sleep(LOCK_MILLISECONDS / 1000)


def _values(search: Space) -> dict[str, Any]:
    return {"source": search.source, "attribute": search.attribute}


_TYPES = {
    "encoder": "text",
    "dimensions": "integer",
    "distance": "text",
    "language": "text",
    "max_tokens": "integer",
    "overlap": "integer",
    "title_boost": "double precision",
    "storage": "text",
    "vector_index": "jsonb",
    "options": "jsonb",
    "rows_per_second": "double precision",
}

_NAMED = f"""
SELECT s.id FROM neural.spaces s
 WHERE s.kind = 'dense' AND s.state = 'serving' AND :name = ANY ({NAMES})
 ORDER BY s.source = 'neural.documents' DESC, s.id LIMIT 1"""  # noqa: S608

_TO_BE_INDEXED = """
SELECT s.id FROM neural.spaces s
 CROSS JOIN LATERAL neural.space_tables(s.id) k JOIN pg_class c ON c.oid = to_regclass(k.chunks)
 WHERE s.kind = 'dense' AND (s.state = 'building' OR s.index_waits) AND pg_has_role(c.relowner, 'USAGE')
   AND ((SELECT count(*) FROM (SELECT FROM neural.pending p WHERE p.space_id = s.id LIMIT 1000) p)
       + (SELECT coalesce(sum(h.rows), 0) FROM neural.changes h WHERE h.space_id = s.id)
       < CASE WHEN s.index_waits THEN 1000 ELSE 1 END
        OR (s.index_waits AND c.reltuples > 200000))  -- a backlog that never ends must not keep it away
   AND neural.index_definition(s.id) IS NOT NULL
   AND (s.index_waits OR NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND NOT i.indisprimary))"""
