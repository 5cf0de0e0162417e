"""The rows that changed, encoded and stored in one transaction, which sees all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from pgneural.errors import InvalidQuery
from pgneural.ingest.batch import BATCH_ROWS, Batch, cached_or_known, encoded
from pgneural.report import Report
from pgneural.store import lexical, queue
from pgneural.store.copying import commits_at_once
from pgneural.store.extra_vectors import store_rows
from pgneural.store.owner import Nested, Within
from pgneural.store.space_tables import SpaceTables
from pgneural.store.vector_cache import cache_vectors
from pgneural.types import Encoder

WORTH_ANALYZING = 2000
"""Rows after which the server's statistics are made anew, so that a search of a table that has just grown is planned
for what is there; autovacuum comes a minute later."""


class TransactionalSync:
    """One run over one space, for who waits for it; a batch is taken, encoded and stored at a time.

    Args:
        tables: The tables of the space.
        encoder: Makes its encoder; called when the first text needs a vector.
    """

    def __init__(self, tables: SpaceTables, encoder: Callable[[], Encoder]) -> None:
        self._tables, self._encoder = tables, encoder
        self.report = Report()

    def within(self, connection: sa.Connection, *, own: bool = False) -> Report:
        """Bring all rows, or only those that the transaction itself has changed, up to date in it.

        Rows leave the queue together with what is made of them: where that fails, all of a batch is as it was before.

        Raises:
            InvalidQuery: Each statement of the connection is a transaction.
        """
        if commits_at_once(connection):
            raise InvalidQuery(
                "the connection is in AUTOCOMMIT, where rows could leave the queue before they are encoded; "
                "give sync() a transaction, or the engine"
            )
        while self._batch(connection, own):
            pass
        if not own:  # which would lock the words of rows that others are writing
            lexical.refresh_all(Nested(connection), self._tables.space.id)
            lexical.settle(connection, self._tables.space.id, self._tables.terms, self.report.rows)
            if self.report.rows >= WORTH_ANALYZING:
                self._tables.analyze(connection)
        return self.report

    def _batch(self, connection: sa.Connection, own: bool) -> int:
        """Take rows off the queue and store what is made of them; return how many."""
        with connection.begin_nested():
            keys = queue.take(connection, self._tables.space.id, BATCH_ROWS, own=own)
            left = keys if self._tables.chunks is not None else []
            if left:
                self._tables.look_again(connection)
            while left:
                left = left[self._stored(connection, left) :]
        self.report.rows += len(keys)
        return len(keys)

    def _stored(self, connection: sa.Connection, keys: Sequence[str]) -> int:
        """Encode and store the first of these rows; return how many."""
        where = Within(connection)
        batch = Batch.read(where, self._tables, keys, self._encoder)
        found = cached_or_known(connection, self._encoder, [batch])
        new = encoded(self._encoder, [batch], found)
        batch.give(found | new)
        batch.add_extra(where)
        batch.claim(connection, self._encoder)
        if new:
            cache_vectors(connection, self._encoder(), new)
        store_rows(connection, self._tables, batch.rows)
        self.report.add(batch.count(new))
        return len(batch.rows)
