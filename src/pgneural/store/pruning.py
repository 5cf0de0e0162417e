"""Documents by where they came from, and deleting those that are gone from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from pgneural.store.schema import DOCUMENTS

BATCH = 1000
"""Documents that are deleted in one transaction, with their chunks and words."""


class Stored(NamedTuple):
    """A document of a collection and where it came from."""

    external_id: str
    uri: str


def now(engine: sa.Engine) -> Any:
    """Return the server's time."""
    with engine.begin() as connection:
        return connection.scalar(sa.select(sa.func.clock_timestamp()))


def stored_below(engine: sa.Engine, collection: str, paths: Sequence[str], since: Any) -> Iterator[Stored]:
    """Yield the documents of files at or below these absolute paths that nobody has written since."""
    columns = DOCUMENTS.c
    for path in dict.fromkeys(paths):
        statement = sa.select(columns.external_id, columns.uri).where(
            columns.collection == collection,
            columns.updated_at < since,
            sa.func.starts_with(columns.uri, Path(path).as_uri()),
        )
        with engine.connect().execution_options(yield_per=BATCH) as connection:
            for external_id, uri in connection.execute(statement):
                yield Stored(external_id, uri)


def prune(engine: sa.Engine, collection: str, gone: Sequence[Stored], since: Any) -> int:
    """Delete these documents unless somebody has written them since; return how many were deleted."""
    deleted = 0
    columns = DOCUMENTS.c
    for first in range(0, len(gone), BATCH):
        ids = sorted({stored.external_id for stored in gone[first : first + BATCH]})
        named = columns.external_id == sa.any_(sa.literal(ids, ARRAY(sa.Text)))
        statement = sa.delete(DOCUMENTS).where(columns.collection == collection, columns.updated_at < since, named)
        with engine.begin() as connection:
            deleted += connection.execute(statement).rowcount
    return deleted
