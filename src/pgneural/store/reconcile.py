"""What no trigger saw: comparing sources with what is kept of them (``sql/46_follow.sql``, ``sql/46_reconcile.sql``).

An attached partition, rows that came by replication or while a trigger was off, a restore without chunks: nothing noted
them. So tables are compared from time to time, and what differs is noted like any other change.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pgneural.printable import counted
from pgneural.printable import logger as logger_of
from pgneural.store.monitoring import NAMED
from pgneural.store.owner import AsOwner, Transactions
from pgneural.store.schema import Space
from pgneural.store.space import read_spaces

logger = logger_of("pgneural.worker")

FOLLOW_SECONDS = 60.0
"""So often a worker looks whether names, keys, triggers and rights of a table are as they were."""

RECONCILE_SECONDS = 600.0
"""So often it compares rows, where any were written meanwhile."""

SLICE_ROWS = 10_000
"""Rows that are compared in one transaction, so that none is long."""


@dataclass
class Differences:
    """How a source differs from what is kept of it.

    Attributes:
        missing: Rows that cannot be found, because they have no words.
        stale: Rows whose chunks are of another text.
        orphans: Rows that are gone, of which something is kept.
        miscounted: Whether the counts of words are not those of the words.
        followed: What else differed, a sentence each.
    """

    missing: int = 0
    stale: int = 0
    orphans: int = 0
    miscounted: bool = False
    followed: Sequence[str] = ()

    @property
    def number(self) -> int:
        """How many differences there are."""
        return self.missing + self.stale + self.orphans + self.miscounted + len(self.followed)

    def __str__(self) -> str:
        found = {
            "without words": self.missing,
            "with chunks of another text": self.stale,
            "gone but kept": self.orphans,
        }
        rows = ", ".join(f"{counted(number, 'row', 'rows')} {what}" for what, number in found.items() if number)
        return "; ".join(filter(None, [*self.followed, rows, "words are counted wrong" if self.miscounted else ""]))


def searches(connection: sa.Connection, only: Sequence[str] = (), *, manual: bool = True) -> list[Space]:
    """Return the spaces that are kept in step with a source.

    Args:
        connection: Where.
        only: Names of searches or collections; empty for all.
        manual: Whether all are those, too, that are synced by hand.
    """
    ids = connection.scalars(_SEARCHES, {"only": list(only), "manual": manual}).all()
    return read_spaces(connection, Space.id.in_(ids))


def follow(where: Transactions, space: int, *, repair: bool = True) -> list[str]:
    """Make what is kept of a source follow its name, key, columns, partitions and rights; return what differed."""
    with where.begin() as connection:
        statement = sa.text("SELECT * FROM neural.follow(:space, :repair)")
        return list(connection.scalars(statement, {"space": space, "repair": repair}))


def compare(where: Transactions, space: int, *, repair: bool = True) -> Differences:
    """Compare the rows of a source with what is kept of them, a slice in a transaction."""
    found, after = Differences(), None
    while True:
        with where.begin() as connection:
            values = {"space": space, "after": after, "rows": SLICE_ROWS, "repair": repair}
            slice_ = connection.execute(_SLICE, values).one()
        found.missing += slice_.missing
        found.stale += slice_.stale
        found.orphans += slice_.orphans
        after = slice_.last
        if after is None:
            break
    with where.begin() as connection:
        found.miscounted = bool(connection.scalar(_RECOUNT, {"space": space, "repair": repair}))
    return found


class Reconciling:
    """When a worker compares which tables; its threads share one.

    Args:
        engine: Where they are.
        only: Names of searches; empty for all that are not synced by hand.
    """

    def __init__(self, engine: sa.Engine, only: Sequence[str]) -> None:
        self._engine, self._only = engine, only
        self._looked = float("-inf")
        self._compared: dict[int, float] = {}
        self._lock = threading.Lock()

    def due(self) -> list[Space]:
        """Return the spaces that are to be looked at now; all of them at first, then from time to time."""
        with self._lock:
            if time.monotonic() < self._looked + FOLLOW_SECONDS:
                return []
            self._looked = time.monotonic()
        with self._engine.begin() as connection:
            return searches(connection, self._only, manual=False)

    def follow(self, space: Space, *, repaired: bool = False) -> int:
        """Make what is kept of a source follow it, as its owner; return how many differences there were.

        Args:
            space: A space of the source.
            repaired: Count those alone that are mended now.
        """
        owner = AsOwner(self._engine, space.id)
        found = Differences(followed=follow(owner, space.id))
        self._say(space, found)
        if found.followed and repaired:
            return found.number - len(follow(owner, space.id, repair=False))
        return found.number

    def compare(self, space: Space) -> int:
        """Compare one with its source, as the source's owner, and repair it; return how many differences there were."""
        owner, found = AsOwner(self._engine, space.id), Differences()
        if time.monotonic() > self._compared.get(space.id, float("-inf")) + RECONCILE_SECONDS:
            with owner.begin() as connection:
                counts = connection.scalar(_COUNTS, {"space": space.id})
            if counts is not None:
                found = compare(owner, space.id)
                with self._engine.begin() as connection:
                    connection.execute(_RECONCILED, {"space": space.id, "counts": json.dumps(counts)})
            self._compared[space.id] = time.monotonic()
        self._say(space, found)
        return found.number

    @staticmethod
    def _say(space: Space, found: Differences) -> None:
        if found.number:
            logger.info("%s: %s", space.search, found)


_SEARCHES = sa.text(f"""
SELECT s.id FROM neural.spaces s
 WHERE s.kind = 'dense' AND s.reads IS NOT NULL
   AND CASE WHEN CAST(:only AS text[]) = '{{}}'
            THEN :manual OR s.sync <> 'manual' OR s.state <> 'serving' OR s.source = 'neural.documents'
            ELSE {NAMED} END""")  # noqa: S608

_SLICE = sa.text(
    "SELECT missing, stale, orphans, last::text FROM neural.reconcile_slice(:space, (:after)::jsonb, :rows, :repair)"
)

_RECOUNT = sa.text("SELECT neural.recount(:space, :repair)")

_COUNTS = sa.text("SELECT neural.changed_counts(:space)")

_RECONCILED = sa.text("UPDATE neural.spaces SET reconciled = (:counts)::jsonb WHERE id = :space")
