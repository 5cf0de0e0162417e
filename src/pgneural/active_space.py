"""Which space of a search answers a client that may have been opened before a switch.

A query is always encoded by the encoder of the space that answers it. After a switch the client goes on with the space
that served, which stays in step with the rows, until it is ready for the other: no search waits for a model to load.
Clients of collections and of mapped classes follow the same rules here.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from pgneural.printable import logger as logger_of
from pgneural.store.catalog import space_of
from pgneural.store.schema import Space

logger = logger_of(__name__)

PREPARE_JITTER_SECONDS = 3.0
"""After a switch each client prepares for the other space at some moment of so long: all at once would take the
processors from their searches."""


class ActiveSpace:
    """The space that a client searches; its threads share one.

    Attributes:
        space: The space; None before the client has looked into the catalog.
        pending: Whether another space serves already, for which the client is not ready yet.

    Args:
        space: The space that served when the client was opened, if it has looked.
        ready: Whether the client can search another space now; if not, it prepares for it in the background.
    """

    def __init__(self, space: Space | None, ready: Callable[[Space], bool]) -> None:
        self.space, self.pending = space, False
        self._ready = ready
        self._lock = threading.RLock()

    @property
    def state(self) -> tuple[int | None, bool]:
        """What a search must find the same before and after it, else its hits may be of another space."""
        return (None if self.space is None else self.space.id), self.pending

    def refresh(self, connection: sa.Connection, serving: Space) -> bool:
        """Compare with the space that serves now; return whether a search has to be made again.

        Args:
            connection: Where the catalog is.
            serving: The space that serves.
        """
        searched = self.space
        there = searched is not None and (serving.id == searched.id or space_of(connection, searched.id) is not None)
        with self._lock:
            if self.space is not None and searched is not None and self.space.id != searched.id:
                return True  # another thread was faster
            if searched is not None and serving.id == searched.id:
                self.activate(serving)  # perhaps it was switched back before the client was ready
                return False
            if there and not self._ready(serving):
                before, self.pending = self.pending, True
                return not before
            self.activate(serving)
            return True

    def update(self, space: Space | None) -> None:
        """Take over what the catalog says by now of the space that is searched."""
        with self._lock:
            if space is not None and self.space is not None and space.id == self.space.id:
                self.space = space

    def activate(self, space: Space) -> None:
        """Search this space from now on."""
        with self._lock:
            self.space, self.pending = space, False


class Preparation:
    """Prepares a client for another space by a thread, at a random moment.

    Args:
        begin: Returns what loads all that a search of the space needs.
    """

    def __init__(self, begin: Callable[[Space], Callable[[], None]]) -> None:
        self._begin = begin
        self._running: tuple[int, threading.Thread] | None = None

    def __call__(self, space: Space) -> bool:
        """Whether all is there to search a space; if not, a thread prepares it from now on."""
        if self._running is None or self._running[0] != space.id:
            thread = threading.Thread(target=self._run, args=(space, self._begin(space)), daemon=True)
            thread.start()
            self._running = space.id, thread
        return not self._running[1].is_alive()

    @property
    def done(self) -> bool:
        """Whether what was prepared last is ready."""
        return self._running is not None and not self._running[1].is_alive()

    def _run(self, space: Space, load: Callable[[], None]) -> None:
        time.sleep(random.uniform(0, PREPARE_JITTER_SECONDS))
        try:
            load()
        except Exception as error:
            logger.warning("%s is not prepared, and the next search will take longer: %s", space.name, error)
